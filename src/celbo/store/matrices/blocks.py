"""Reading a matrix of any storage once, in pieces of bounded size.

Dense arrays, ``csr``/``csc`` matrices and arrays, the same lying in an h5ad or zarr file, and dask arrays.
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.abc import CSCDataset, CSRDataset

from ..damage import NoNumbersError
from .index_structure import check_sparse, check_stored_columns
from .masks import require_unmasked
from .matrix import stored_matrix

__all__ = ["CompressedBlock", "DenseBlock", "blocks", "shape_of"]

_ENTRIES = 2**18
"""Stored values a piece: few enough that they stay in the processor's cache between the passes over them."""

_ENTRIES_ON_DISK = 2**20
"""The same where every piece is a read of a file: a few milliseconds of reading, and 8 MB."""


class DenseBlock(NamedTuple):
    """Rows ``start`` to ``start + len(values)`` of a matrix, ``(rows, g)``."""

    start: int
    values: np.ndarray

    @property
    def stop(self) -> int:
        """Row after the last."""
        return self.start + len(self.values)


class CompressedBlock(NamedTuple):
    """Some rows of a CSR matrix, or some columns of a CSC one: scipy's three arrays, ``indptr`` beginning at 0."""

    start: int
    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    by_column: bool

    @property
    def stop(self) -> int:
        """Row (or column) after the last."""
        return self.start + len(self.indptr) - 1

    def row_of_entry(self) -> np.ndarray:
        """Row of each stored value, counted in the whole matrix, ``(entries,)``."""
        return self.indices if self.by_column else self._major()

    def column_of_entry(self) -> np.ndarray:
        """Column of each stored value, counted in the whole matrix, ``(entries,)``."""
        return self._major() if self.by_column else self.indices

    def _major(self) -> np.ndarray:
        return np.repeat(np.arange(self.start, self.stop), np.diff(self.indptr))


def shape_of(x: Any) -> tuple[int, int]:
    """Cells and genes of a matrix.

    Raises
    ------
    ValueError
        Unless it has two dimensions.
    """
    shape = tuple(int(length) for length in np.shape(x) or x.shape)
    if len(shape) != 2:
        raise ValueError(f"A matrix of cells by genes is wanted, got shape {shape}.")
    return shape


def blocks(x: Any, chunk_rows: int | None = None) -> Iterator[DenseBlock | CompressedBlock]:
    """Pieces of ``x``, in order, each entry in exactly one.

    Parameters
    ----------
    x
        ``(n, g)`` matrix: numpy array, DataFrame, scipy CSR or CSC, h5py or zarr array, anndata's sparse datasets
        on disk, dask array of dense or CSR pieces.
    chunk_rows
        Rows (columns of a CSC matrix) a piece. Default: as many as make about 2**18 stored values, 2**22 on disk.
        A dask array is read by its own row blocks, then cut as the block asks.

    Yields
    ------
    Blocks that view the memory of ``x`` where it lies in memory.

    Raises
    ------
    TypeError
        For a storage that is none of these, or values that are not real numbers.
    ValueError
        For a sparse matrix in memory with entries outside of it.
    """
    if isinstance(x, pd.DataFrame):
        x = x.to_numpy()
    require_unmasked(x, "The matrix")
    if sp.issparse(x):
        check_sparse(x)
        yield from _compressed_blocks(x if x.format in ("csr", "csc") else x.tocsr(), chunk_rows)
    elif isinstance(x, CSRDataset):
        yield from _stored_rows(x, chunk_rows)
    elif isinstance(x, CSCDataset):
        yield from _stored_columns(x, chunk_rows)
    elif isinstance(x, (np.ndarray, h5py.Dataset)) or _is_a(x, "zarr", "Array"):
        yield from _dense_blocks(x, chunk_rows)
    elif _is_a(x, "dask.array", "Array"):
        yield from _dask_blocks(x, chunk_rows)
    else:
        raise TypeError(
            f"Cannot read counts from {type(x).__module__}.{type(x).__qualname__}. Wanted: a numpy array, a scipy csr "
            "or csc matrix, a backed AnnData's matrix or a dask array."
        )


def _is_a(x: object, module: str, name: str) -> bool:
    """Whether ``x`` is of a class of an optional package: its instances exist only once the package is loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(x, getattr(loaded, name))


def _require_numbers(dtype: np.dtype) -> None:
    if dtype.kind not in "biuf":
        raise NoNumbersError(f"A matrix of counts must hold real numbers, this one is of dtype {dtype}.")


def _step(chunk_rows: int | None, n_major: int, n_entries: int, wanted: int) -> int:
    if chunk_rows is not None:
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}.")
        return chunk_rows
    return max(1, wanted * n_major // max(n_entries, 1))


def _dense_blocks(x: Any, chunk_rows: int | None) -> Iterator[DenseBlock]:
    _require_numbers(x.dtype)
    n, g = shape_of(x)
    step = _step(chunk_rows, n, n * g, _ENTRIES if isinstance(x, np.ndarray) else _ENTRIES_ON_DISK)
    for start in range(0, n, step):
        yield DenseBlock(start, np.asarray(x[start : start + step]))


def _compressed_blocks(x: Any, chunk_rows: int | None) -> Iterator[CompressedBlock]:
    _require_numbers(x.dtype)
    n_major = len(x.indptr) - 1
    step = _step(chunk_rows, n_major, int(x.indptr[-1]), _ENTRIES)
    for start in range(0, n_major, step):
        indptr = x.indptr[start : start + step + 1]
        entries = slice(indptr[0], indptr[-1])
        indices = x.indices[entries]
        yield CompressedBlock(start, x.data[entries], indices, indptr - indptr[0], x.format == "csc")


def _stored_rows(x: CSRDataset, chunk_rows: int | None) -> Iterator[CompressedBlock]:
    stored = stored_matrix(x)
    _require_numbers(stored.dtype)
    n = stored.shape[0]
    step = _step(chunk_rows, n, stored.n_entries, _ENTRIES_ON_DISK)
    for start in range(0, n, step):
        piece = stored.read(start, min(start + step, n))
        yield CompressedBlock(start, piece.data, piece.indices, piece.indptr, by_column=False)


def _stored_columns(x: CSCDataset, chunk_rows: int | None) -> Iterator[CompressedBlock]:
    _require_numbers(np.dtype(x.dtype))
    check_stored_columns(x.group, x.shape, f"The matrix stored by columns, {x.shape[0]} x {x.shape[1]},")
    step = _step(chunk_rows, x.shape[1], x.group["data"].shape[0], _ENTRIES_ON_DISK)
    for start in range(0, x.shape[1], step):
        piece = x[:, start : start + step]
        yield CompressedBlock(start, piece.data, piece.indices, piece.indptr, by_column=True)


def _dask_blocks(x: Any, chunk_rows: int | None) -> Iterator[DenseBlock | CompressedBlock]:
    start = 0
    for i in range(x.numblocks[0]):
        piece = x.blocks[i].compute()
        piece = piece.tocsr() if sp.issparse(piece) else piece
        for block in blocks(piece, chunk_rows):
            yield block._replace(start=start + block.start)
        start += piece.shape[0]
