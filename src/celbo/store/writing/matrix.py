"""Results as large as the data, written block by block: an AnnData file that is there whole or not at all.

Dims: n cells, g genes.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from ...core import optional
from ...core.replacing import building
from ..mapped import is_mapped, stretches
from ..progress import Tell, tracking
from ..tables.columns import forget_column
from .csr import CsrWriter
from .writable import writable_column, writable_names

__all__ = ["MatrixWriter", "matrix_writer", "new_anndata", "write_table"]

logger = logging.getLogger("celbo")

CHUNK_BYTES = 2**20
"""Size of the pieces in which the file keeps the matrix."""


@contextmanager
def new_anndata(path: Path, overwrite: bool) -> Iterator[Any]:
    """An empty AnnData file to fill: its root group, of h5py or zarr.

    It takes its place when the context ends without an error; otherwise nothing of it is left.

    Raises
    ------
    FileExistsError
        When something is there and may not be replaced.
    ModuleNotFoundError
        For a ``.zarr``, when zarr is not installed.
    ValueError
        For a suffix but ``.h5ad`` and ``.zarr``.
    """
    if path.suffix.lower() not in (".h5ad", ".zarr"):
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; write to .h5ad or .zarr.")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} is there already: choose another name, or have it overwritten.")
    with building(path.absolute()) as partial, _root(partial) as root:
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            write_table(root, name, {})
        yield root


@contextmanager
def matrix_writer(
    path: str | Path, obs: pd.DataFrame, var: pd.DataFrame, *, overwrite: bool = False, sparse: bool = False
) -> Iterator["MatrixWriter | CsrWriter"]:
    """A new AnnData file whose ``X`` comes in blocks of rows; see :func:`new_anndata`.

    Parameters
    ----------
    path
        File to write, ``.h5ad`` or ``.zarr``.
    obs, var
        Tables of the cells and the genes, ``n`` and ``g`` rows.
    overwrite
        Whether a file that is there may be replaced.
    sparse
        Store ``X`` in CSR form instead of dense.

    Raises
    ------
    ValueError
        When other than as many rows came as ``obs`` has.
    """
    with new_anndata(Path(path), overwrite) as root, tracking(f"Writing {Path(path).name}") as tell:
        writer = (CsrWriter if sparse else MatrixWriter)(root, len(obs), len(var))
        writer.tell = tell
        yield writer
        if writer.n_written != len(obs):
            raise ValueError(f"{path} is for {len(obs)} rows, and {writer.n_written} came.")
        writer.finish()
        write_table(root, "obs", obs)
        write_table(root, "var", var)


def write_table(root: Any, name: str, value: pd.DataFrame | dict[str, Any]) -> None:
    """Write an element in anndata's layout, without its remarks about versions of zarr.

    A column of a table that cannot be written, in whatever form, is left out with a warning: a table goes along with
    results, which would be lost with it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(value, pd.DataFrame):
            _write_by_columns(root.create_group(name), value)
        else:
            write_elem(root, name, value)


def _write_by_columns(group: Any, table: pd.DataFrame) -> None:
    """Write a table column by column: those that lie on disk are in memory one at a time."""
    index = "_index" if table.index.name is None else str(table.index.name)
    write_elem(group, index, writable_names(table.index))
    written: list[str] = []
    for place, name in enumerate(map(str, table.columns)):
        column = table.iloc[:, place]
        if name != index and name not in written and _write_if_possible(group, name, column._values):
            written.append(name)
        forget_column(column.array)
    layout = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": index}
    group.attrs.update(layout | {"column-order": written})


def _write_if_possible(group: Any, name: str, column: Any) -> bool:
    """Write a column; whether that went well."""
    try:
        _write_column(group, name, writable_column(column))
    except (MemoryError, OSError):
        raise
    except Exception as error:
        if name in group:
            del group[name]
        logger.warning("Column %r is left out of %s, it cannot be written: %s", name, group.name.lstrip("/"), error)
        return False
    return True


def _write_column(group: Any, name: str, column: Any) -> None:
    """Write a column, and what of it is mapped some cells at a time."""
    if isinstance(column, pd.Categorical) and is_mapped(column.codes):
        write_elem(group, name, column[:0])
        del group[name]["codes"]
        _write_mapped(group[name], "codes", column.codes)
    elif isinstance(column, np.ndarray) and is_mapped(column):
        _write_mapped(group, name, column)
    else:
        write_elem(group, name, column)


def _write_mapped(group: Any, name: str, values_n: np.ndarray) -> None:
    if isinstance(group, h5py.Group):
        stored = group.create_dataset(name, shape=values_n.shape, dtype=values_n.dtype)
    else:
        chunk = max(1, min(len(values_n), CHUNK_BYTES // values_n.itemsize))
        stored = group.create_array(name, shape=values_n.shape, dtype=values_n.dtype, chunks=(chunk,))
    stored.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for (some,) in stretches(values_n):
        stored[start : start + len(some)] = some
        start += len(some)


class MatrixWriter:
    """Writes a dense matrix block by block.

    Parameters
    ----------
    root
        Group of h5py or zarr to write it to.
    n, g
        Its rows and columns.
    name
        Of the matrix in the group.
    """

    def __init__(self, root: Any, n: int, g: int, name: str = "X") -> None:
        self._root, self._shape, self._name = root, (n, g), name
        self._x: Any = None
        self.n_written = 0
        self.tell: Tell | None = None

    def append(self, block_ng: np.ndarray) -> None:
        """Write the next rows, ``(rows, g)``, of one dtype throughout; a ``ValueError`` past the matrix's last row."""
        if self._x is None:
            self._x = self._dataset(block_ng.dtype)
        stop = self.n_written + len(block_ng)
        if stop > self._shape[0]:
            raise ValueError(f"The matrix has {self._shape[0]} rows, and {stop} came.")
        self._x[self.n_written : stop] = block_ng
        self.n_written = stop
        if self.tell is not None:
            self.tell(stop, self._shape[0])

    def finish(self) -> None:
        """Nothing waits."""

    def _dataset(self, dtype: np.dtype) -> Any:
        n, g = self._shape
        chunks = (min(n, max(1, CHUNK_BYTES // max(1, g * dtype.itemsize))), g)
        make = self._root.create_dataset if isinstance(self._root, h5py.Group) else self._root.create_array
        x = make(self._name, shape=self._shape, dtype=dtype, chunks=chunks)
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return x


@contextmanager
def _root(path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".h5ad":
        with h5py.File(path, "w") as file:
            yield file
    else:
        zarr = optional("zarr", extra="zarr", purpose="Writing .zarr")
        yield zarr.open_group(str(path), mode="w")
