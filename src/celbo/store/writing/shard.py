"""Rewriting data into a store whose rows are shuffled already, so that epochs read it from front to back quickly.

Two passes and bounded memory: rows are dealt to buckets on disk by their place in a random permutation of all rows,
then each bucket, which fits in memory, is put in order and written. The order is exactly uniform.

Dims: n cells, k buckets.
"""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from anndata.abc import CSRDataset
from scipy import sparse

from ...core import optional, unknown_name
from ..matrices.index_structure import check_sparse
from ..matrices.matrix import StoredMatrix, stored_matrix
from ..progress import tracking
from ..tables.obs import reordered
from .csr import CsrWriter
from .matrix import new_anndata, write_table

__all__ = ["shard"]

BUCKET_BYTES = 2**27
"""Memory a bucket takes: 128 MiB."""

Progress = Callable[[int, int], None] | None


def shard(
    adata: AnnData,
    path: str | Path,
    *,
    layer: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    bucket_bytes: int | None = None,
    progress: Progress = None,
) -> Path:
    """Write the cells of an AnnData in random order to a chunked zarr store, which anndata reads.

    Parameters
    ----------
    adata
        As :func:`celbo.data.open` gives it (``stream=True``: nothing is loaded), or in memory.
    path
        Store to write, ``.zarr``: ``X`` in CSR form, ``obs``, ``var``.
    layer
        Matrix to write as ``X``; None: ``X``.
    seed
        Of the order.
    overwrite
        Whether a store that is there may be replaced.
    bucket_bytes
        Memory to work in; None: 128 MiB. As much room as the data take is needed beside the store meanwhile.
    progress
        Called with (rows done, rows in both passes); None: a bar, where somebody sees it.

    Returns
    -------
    The path. The column ``_celbo_row`` of ``obs`` says which row of the input each cell was.

    Raises
    ------
    FileExistsError, ModuleNotFoundError, ValueError
        A store that is there, no zarr installed, another suffix, or data stored by columns.
    KeyError
        No such layer; the nearest is named.
    """
    path = Path(path)
    optional("zarr", extra="zarr", purpose="Writing .zarr")
    if path.suffix.lower() != ".zarr":
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; shards are written to a .zarr.")
    if layer is not None and layer not in adata.layers:
        raise KeyError(unknown_name("layer", layer, adata.layers))
    rows = _RowsOf(adata.X if layer is None else adata.layers[layer])
    order_n = np.random.default_rng(seed).permutation(rows.n)
    obs = reordered(adata.obs, order_n)
    obs["_celbo_row"] = order_n
    with (
        new_anndata(path, overwrite) as root,
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        tracking("Sharding", "rows") if progress is None else nullcontext(progress) as tell,
    ):
        per_bucket = max(1, int((bucket_bytes or BUCKET_BYTES) / rows.bytes_per_row))
        buckets = _deal(rows, order_n, per_bucket, Path(folder), tell)
        _write_csr(root, rows, buckets, tell)
        write_table(root, "obs", obs)
        write_table(root, "var", adata.var)
    return path


class _RowsOf:
    """Rows of a matrix in CSR form, wherever it lies."""

    def __init__(self, x: object) -> None:
        check_sparse(x)
        self._x = stored_matrix(x) if isinstance(x, CSRDataset) else sparse.csr_array(x)
        self.n, self.g = (int(length) for length in self._x.shape)
        self.dtype = self._x.dtype
        stored = self._x.n_nonzero if isinstance(self._x, StoredMatrix) else self._x.nnz
        self.bytes_per_row = 8.0 + stored * (4 + self.dtype.itemsize) / max(self.n, 1)

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Some rows."""
        if isinstance(self._x, StoredMatrix):
            return self._x.read(start, stop)
        return self._x[start:stop]


class _Bucket:
    """Rows on their way, in three flat files: how many values each row has, the columns, the values."""

    def __init__(self, folder: Path, number: int, dtype: np.dtype) -> None:
        self._names = [folder / f"{number}.{part}" for part in ("rows", "lengths", "columns", "values")]
        self._dtypes: tuple[np.dtype[Any], ...] = (*map(np.dtype, (np.int64, np.int64, np.int32)), dtype)

    def add(self, place_m: np.ndarray, block: sparse.csr_array) -> None:
        """Put rows behind those that are there, with the place of each in the order to write."""
        parts = (place_m, np.diff(block.indptr), block.indices, block.data)
        for name, dtype, part in zip(self._names, self._dtypes, parts):
            with name.open("ab") as file:
                file.write(np.ascontiguousarray(part, dtype=dtype).tobytes())

    def rows(self, n_columns: int) -> sparse.csr_array:
        """All its rows, by their place."""
        place_m, length_m, columns, values = (
            np.fromfile(name, dtype=dtype) if name.exists() else np.empty(0, dtype)
            for name, dtype in zip(self._names, self._dtypes)
        )
        indptr = np.concatenate([[0], np.cumsum(length_m)])
        block = sparse.csr_array((values, columns, indptr), shape=(len(place_m), n_columns))
        for name in self._names:
            name.unlink(missing_ok=True)
        return block[np.argsort(place_m)]


def _deal(rows: _RowsOf, order_n: np.ndarray, per_bucket: int, folder: Path, progress: Progress) -> list[_Bucket]:
    place_n = np.empty(rows.n, np.int64)
    place_n[order_n] = np.arange(rows.n)
    buckets = [_Bucket(folder, number, rows.dtype) for number in range(-(-rows.n // per_bucket))]
    for start in range(0, rows.n, per_bucket):
        stop = min(start + per_bucket, rows.n)
        block, here_m = rows.read(start, stop), place_n[start:stop]
        bucket_m = here_m // per_bucket
        for number in np.unique(bucket_m):
            mine = np.flatnonzero(bucket_m == number)
            buckets[number].add(here_m[mine], block[mine])
        if progress is not None:
            progress(stop, 2 * rows.n)
    return buckets


def _write_csr(root: Any, rows: _RowsOf, buckets: list[_Bucket], progress: Progress) -> None:
    """Write the buckets one after the other as ``X``."""
    writer = CsrWriter(root, rows.n, rows.g)
    for bucket in buckets:
        writer.append(bucket.rows(rows.g))
        if progress is not None:
            progress(rows.n + writer.n_written, 2 * rows.n)
    writer.finish()
