"""Rows of tables that lie on disk or come in blocks.

Every reader asks its storage for ascending rows without repeats, which is what files are quick at, and puts the rows
into the order asked afterwards. No reader opens a file, so none has one to close: the AnnData owns it. Loaders read
many minibatches' rows at once by :meth:`~celbo.dataloaders.row_sources.source.Streamed.load`, ahead of the model.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from ...core import settings
from ...store.matrices.index_structure import check_sparse
from ...store.matrices.matrix import GAP, PIECE_BYTES, pieces, stored_matrix
from .source import DenseRows, RowCost, RowSource, Streamed, check_numeric, select_columns
from .sparse import CSRRows, SparseRows

__all__ = ["BackedCSRRows", "DaskRows", "HDF5Rows", "SortedRows", "ZarrRows", "backed_csc_rows"]


class SortedRows(RowSource, Streamed):
    """Rows of a dense storage that is read in ascending order."""

    def __init__(self, array: Any, dtype: Any = np.float32, columns: np.ndarray | None = None) -> None:
        super().__init__(array.shape, dtype, columns)
        check_numeric(np.dtype(array.dtype), "The dataset")
        self._array = array

    @abstractmethod
    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Stored rows for ascending row numbers without repeats, ``(u, stored columns)``."""

    @property
    def cost(self) -> RowCost:
        """Of dense rows."""
        chunks = self._array.chunks
        return RowCost(float(self.n_columns * self.dtype.itemsize), int(chunks[0]) if chunks else 1)

    def load(self, ascending_u: np.ndarray) -> DenseRows:
        """Rows in memory."""
        block_ug = np.empty((len(ascending_u), self.n_columns), self.dtype)
        most = max(1, PIECE_BYTES // max(1, self._array.shape[1] * self._array.dtype.itemsize))
        done = 0
        for _, _, rows_r in pieces(ascending_u, GAP, most):
            block_ug[done : done + len(rows_r)] = select_columns(self.read(rows_r), self.columns)
            done += len(rows_r)
        return DenseRows(block_ug, self.dtype)

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``."""
        ascending_u, place_n = np.unique(rows_n, return_inverse=True)
        if len(ascending_u):
            out_ng[...] = select_columns(self.read(ascending_u), self.columns)[place_n]


class HDF5Rows(SortedRows):
    """Rows of a dense HDF5 dataset (``.X`` of an AnnData read with ``backed="r"``)."""

    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Read stretch by stretch; a ``ValueError`` where the file was closed."""
        if not self._array:
            raise ValueError(
                "The h5ad file behind this AnnData was closed: read it again with `anndata.read_h5ad(..., backed='r')`."
            )
        block_ug = np.empty((len(ascending_u), self._array.shape[1]), self._array.dtype)
        done = 0
        for start, stop, rows_r in pieces(ascending_u, GAP, len(self)):
            block_ug[done : done + len(rows_r)] = self._array[start:stop][rows_r - start]
            done += len(rows_r)
        return block_ug


class ZarrRows(SortedRows):
    """Rows of a zarr array; each chunk is read once a minibatch."""

    def read(self, ascending_u: np.ndarray) -> np.ndarray:
        """Read by orthogonal selection."""
        return np.asarray(self._array.oindex[ascending_u])


class BackedCSRRows(SparseRows, Streamed):
    """Rows of a CSR matrix in an h5ad file or zarr store, or in many of them (:class:`~celbo.data.StoredMatrix`)."""

    def __init__(self, dataset: CSRDataset, dtype: object = np.float32, columns: np.ndarray | None = None) -> None:
        self.stored = stored_matrix(dataset)
        super().__init__(self.stored.shape, dtype, columns)

    @property
    def cost(self) -> RowCost:
        """Of rows in CSR form."""
        return RowCost(self.stored.bytes_per_row, self.stored.chunk_rows)

    def load(self, ascending_u: np.ndarray) -> CSRRows:
        """Rows in memory, still CSR."""
        return CSRRows(self._converted(self.stored.take(ascending_u)), self.dtype)

    def check_unchanged(self, thorough: bool = False) -> None:
        """Raise when a file is no longer what was opened."""
        self.stored.check_unchanged(thorough)

    def stored_csr(self, rows_n: np.ndarray) -> sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked."""
        ascending_u, place_n = np.unique(rows_n, return_inverse=True)
        return self.stored.take(ascending_u)[place_n]


def backed_csc_rows(dataset: CSCDataset, dtype: object = np.float32, columns: np.ndarray | None = None) -> CSRRows:
    """Rows of a CSC matrix on disk: read whole, once, and warned about, since it then lies in memory."""
    message = (
        f"The backed matrix ({dataset.shape[0]} x {dataset.shape[1]}) is stored by columns (CSC), which has no rows to "
        "read: it is loaded into memory and converted to CSR. To keep it on disk, write it as CSR: "
        "`adata.X = adata.X.to_memory().tocsr()`, then `adata.write_h5ad(...)`."
    )
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)
    matrix = dataset.to_memory()
    check_sparse(matrix, "The backed matrix")
    return CSRRows(matrix.tocsr(), dtype, columns)


class DaskRows(RowSource, Streamed):
    """Rows of a dask array, dense or of sparse blocks.

    Parameters
    ----------
    array
        Dask array; its row chunks are computed whole, and the last one stays in memory for the next minibatch.
    dtype, columns
        As in :class:`~celbo.dataloaders.RowSource`.
    open_block
        Makes a row source of one computed block, of whatever type that is.

    Raises
    ------
    ValueError
        The array does not know its shape.
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

    @property
    def cost(self) -> RowCost:
        """As of dense rows: what the blocks are is known when they are computed."""
        return RowCost(float(self.n_columns * self.dtype.itemsize), int(np.diff(self._starts).max(initial=1)))

    def load(self, ascending_u: np.ndarray) -> DenseRows:
        """Rows in memory, each block computed once."""
        return DenseRows(self.gather(ascending_u).numpy(), self.dtype)

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
