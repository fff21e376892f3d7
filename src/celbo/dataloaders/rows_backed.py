"""Rows of tables that lie on disk or come in blocks.

Every reader asks its storage for ascending rows without repeats, which is what files are quick at, and puts the rows
into the order asked afterwards. No reader opens a file, so none has one to close: the AnnData owns it.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from ..core import settings
from .row_source import RowSource, check_numeric, select_columns
from .rows_sparse import CSRRows, SparseRows

__all__ = ["BackedCSRRows", "DaskRows", "HDF5Rows", "SortedRows", "ZarrRows", "backed_csc_rows", "runs"]

GAP = 16
"""Rows not asked for that are read along rather than starting another read (measured on h5ad)."""


class SortedRows(RowSource):
    """Rows of a dense storage that is read in ascending order."""

    def __init__(self, array: Any, dtype: Any = np.float32, columns: np.ndarray | None = None) -> None:
        super().__init__(array.shape, dtype, columns)
        check_numeric(np.dtype(array.dtype), "The dataset")
        self._array = array

    @abstractmethod
    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Stored rows for ascending row numbers without repeats, ``(u, stored columns)``."""

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``."""
        ascending_u, place_n = np.unique(rows_n, return_inverse=True)
        if not len(ascending_u):
            return
        block_ug = self.read(ascending_u)
        out_ng[...] = select_columns(block_ug, self.columns)[place_n]


class HDF5Rows(SortedRows):
    """Rows of a dense HDF5 dataset (``.X`` of an AnnData read with ``backed="r"``)."""

    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Read stretch by stretch."""
        if not self._array:
            raise ValueError(
                "The h5ad file behind this AnnData was closed: read it again with `anndata.read_h5ad(..., backed='r')`."
            )
        block_ug = np.empty((len(ascending_u), self._array.shape[1]), self._array.dtype)
        first = 0
        for start, stop in runs(ascending_u, GAP):
            last = int(np.searchsorted(ascending_u, stop))
            block_ug[first:last] = self._array[start:stop][ascending_u[first:last] - start]
            first = last
        return block_ug


class ZarrRows(SortedRows):
    """Rows of a zarr array; each chunk is read once a minibatch."""

    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Read by orthogonal selection."""
        return np.asarray(self._array.oindex[ascending_u])


class BackedCSRRows(SparseRows):
    """Rows of a CSR matrix in an h5ad file or zarr store."""

    def __init__(self, dataset: CSRDataset, dtype: Any = np.float32, columns: np.ndarray | None = None) -> None:
        super().__init__(dataset.shape, dtype, columns)
        self._dataset = dataset
        self._empty = sparse.csr_array((0, dataset.shape[1]), dtype=self.dtype)

    def stored_csr(self, rows_n: np.ndarray) -> sparse.csr_matrix | sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked."""
        if not len(rows_n):
            return self._empty.copy()
        ascending_u, place_n = np.unique(rows_n, return_inverse=True)
        return self._read(ascending_u)[place_n]

    def _read(self, ascending_u: np.ndarray) -> sparse.csr_matrix | sparse.csr_array:
        first, last = int(ascending_u[0]), int(ascending_u[-1])
        together = last - first + 1 == len(ascending_u)
        try:
            return self._dataset[first : last + 1] if together else self._dataset[ascending_u]
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(
                f"Rows {first} to {last} of the backed sparse matrix could not be read ({error}). "
                "If its file was closed, read it again with `anndata.read_h5ad(..., backed='r')`."
            ) from error


def backed_csc_rows(dataset: CSCDataset, dtype: Any = np.float32, columns: np.ndarray | None = None) -> CSRRows:
    """Rows of a CSC matrix on disk: read whole, once, and warned about, since it then lies in memory."""
    message = (
        f"The backed matrix ({dataset.shape[0]} x {dataset.shape[1]}) is stored by columns (CSC), which has no rows to "
        "read: it is loaded into memory and converted to CSR. To keep it on disk, write it as CSR: "
        "`adata.X = adata.X.to_memory().tocsr()`, then `adata.write_h5ad(...)`."
    )
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)
    return CSRRows(dataset.to_memory().tocsr(), dtype, columns)


class DaskRows(RowSource):
    """Rows of a dask array, dense or of sparse blocks.

    Parameters
    ----------
    array
        Dask array; its row chunks are computed whole, and the last one stays in memory for the next minibatch.
    dtype, columns
        As in :class:`~celbo.dataloaders.RowSource`.
    open_block
        Makes a row source of one computed block, of whatever type that is.
    """

    def __init__(
        self,
        array: Any,
        dtype: Any = np.float32,
        columns: np.ndarray | None = None,
        *,
        open_block: Callable[..., RowSource],
    ) -> None:
        if any(np.isnan(size) for size in array.shape):
            raise ValueError("The dask array does not know its shape: call its compute_chunk_sizes() first.")
        super().__init__(array.shape, dtype, columns)
        self._array = array if array.numblocks[1] == 1 else array.rechunk({1: -1})
        self._starts = np.concatenate([[0], np.cumsum(array.chunks[0])]).astype(np.int64)
        self._open_block = open_block
        self._held: tuple[int, RowSource] | None = None

    def _block(self, number: int) -> RowSource:
        if self._held is None or self._held[0] != number:
            computed = self._array.blocks[number].compute()
            self._held = (number, self._open_block(computed, dtype=self.dtype, columns=self.columns))
        return self._held[1]

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``, block by block."""
        block_n = np.searchsorted(self._starts, rows_n, side="right") - 1
        for number in np.unique(block_n):
            here = np.flatnonzero(block_n == number)
            out_ng[here] = self._block(int(number)).gather(rows_n[here] - self._starts[number]).numpy()


def runs(ascending_u: np.ndarray, gap: int = 0) -> list[tuple[int, int]]:
    """Half-open stretches that cover ascending row numbers.

    Parameters
    ----------
    ascending_u
        Row numbers, ascending, no repeats, at least one.
    gap
        Two rows with at most this many others between them go into the same stretch.
    """
    breaks = np.flatnonzero(np.diff(ascending_u) > gap + 1)
    starts = ascending_u[np.concatenate([[0], breaks + 1])]
    stops = ascending_u[np.concatenate([breaks, [-1]])] + 1
    return [(int(start), int(stop)) for start, stop in zip(starts, stops)]
