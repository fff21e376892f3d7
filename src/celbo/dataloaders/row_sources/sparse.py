"""Rows of sparse matrices in memory.

Gathering rows of a CSR matrix of float32 into a dense minibatch is one compiled pass (``ops/native``). Other
types go through scipy's row gather and its ``toarray(out=)``. Both release the interpreter lock and add entries that
are stored twice.
"""

import logging
import warnings
from abc import abstractmethod
from functools import cache, cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...ops.native.machine_code import loop, works
from ...ops.native.threads import for_row_ranges
from ...store.dtypes import plain_values
from ...store.matrices.index_structure import check_sparse
from ...store.matrices.sparse_columns import moved_columns, place_of_columns
from .source import RowSource, as_indices, check_numeric

__all__ = ["CSCRows", "CSRRows", "SparseRows", "csc_rows"]

logger = logging.getLogger("celbo")

BLOCK = 65536
"""Rows summed at a time, so that row sums need no second copy of the matrix."""


class SparseRows(RowSource):
    """Rows of a sparse storage: dense by :meth:`take`, or still sparse by :meth:`take_sparse`."""

    def __init__(self, shape: tuple[int, ...], dtype: object, columns: np.ndarray | None = None) -> None:
        super().__init__(shape, dtype, columns)
        self._place_of_column = None if self.columns is None else place_of_columns(self.columns, shape[1])

    @property
    def may_repeat_entries(self) -> bool:
        """Whether a row may hold one column twice; True where nobody has looked."""
        return True

    @abstractmethod
    def stored_csr(self, rows_n: np.ndarray) -> sparse.csr_matrix | sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked, all stored columns, stored dtype."""

    def csr(self, rows_n: np.ndarray) -> sparse.csr_matrix | sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked, in this source's columns and dtype."""
        return self._converted(self.stored_csr(rows_n))

    def _converted(self, block: sparse.csr_matrix | sparse.csr_array) -> sparse.csr_matrix | sparse.csr_array:
        """Stored rows in this source's columns and dtype."""
        if block.dtype != self.dtype:
            block.data = block.data.astype(self.dtype)
        if self._place_of_column is None:
            return block
        return moved_columns(block, self._place_of_column, self.n_columns)

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``; zeros included."""
        self.csr(rows_n).toarray(out=out_ng)

    def take_sparse(self, indices: object) -> Tensor:
        """Rows in the order asked as a sparse tensor of torch, ``(n, g)``; repeated entries are added."""
        return self.gather_sparse(as_indices(indices, self.n_rows))

    def gather_sparse(self, rows_n: np.ndarray) -> Tensor:
        """As :meth:`take_sparse`, for int64 row numbers that were checked before."""
        block = self.csr(rows_n)
        _say_nothing_about_beta()
        if self.may_repeat_entries:
            block.sum_duplicates()  # torch takes them as they are and later disagrees with itself
        indptr, indices, values = (torch.from_numpy(part) for part in (block.indptr, block.indices, block.data))
        return torch.sparse_csr_tensor(indptr, indices, values, size=block.shape, check_invariants=False)


@cache
def _say_nothing_about_beta() -> None:
    """Keep out of sight what torch warns of once a process: that its CSR tensors are young."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        one = torch.ones(1, dtype=torch.int64)
        torch.sparse_csr_tensor(torch.tensor([0, 1]), one - 1, one, size=(1, 1), check_invariants=False)


class CSRRows(SparseRows):
    """Rows of a CSR matrix in memory, which is held as it is (no copy) unless scipy cannot index its dtype.

    The arrays are there for whoever gathers elsewhere (a device): ``indptr`` ``(n + 1,)``, ``indices`` and ``values``
    ``(nonzeros,)``, all as stored, so before ``columns`` and ``dtype`` apply.
    """

    def __init__(
        self,
        matrix: sparse.csr_matrix | sparse.csr_array,
        dtype: object = np.float32,
        columns: np.ndarray | None = None,
    ) -> None:
        super().__init__(matrix.shape, dtype, columns)
        check_numeric(matrix.dtype, "The sparse matrix")
        check_sparse(matrix)  # scipy's compiled code does not look where it reads
        # a plain csr_array over the same memory: subclasses (views of AnnData) have their own ideas of indexing
        parts = (plain_values(part) for part in (matrix.data, matrix.indices, matrix.indptr))
        self._matrix = sparse.csr_array(tuple(parts), shape=matrix.shape, copy=False)
        self.indptr, self.indices, self.values = self._matrix.indptr, self._matrix.indices, self._matrix.data

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor] | None:
        """Columns and values as the compiled loop takes them; None where it does not."""
        kinds = (self.indices.dtype, self.values.dtype, self.dtype) == (np.int32, np.float32, np.float32)
        is_plain = self.columns is None and self.indices.flags.writeable and self.values.flags.writeable
        if not kinds or not is_plain or not works("dense_rows"):
            return None
        return torch.from_numpy(self.indices), torch.from_numpy(self.values)

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``; zeros included.

        scipy takes as long for the entries, and five times as long to look at what it is given: a tenth of a training
        step on 500 genes.
        """
        if self._entries is None or not out_ng.flags.c_contiguous:
            super().fill(rows_n, out_ng)
            return
        ends = (torch.from_numpy(self.indptr[where].astype(np.int64)) for where in (rows_n, rows_n + 1))
        tables = [*ends, *self._entries, torch.from_numpy(out_ng)]
        for_row_ranges(loop("dense_rows").bind(tables, out_ng.shape[1]), *out_ng.shape)

    def stored_csr(self, rows_n: np.ndarray) -> sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked."""
        return self._matrix[rows_n]

    @cached_property
    def may_repeat_entries(self) -> bool:
        """Whether a row holds one column twice. Looked at once: to sort every minibatch costs more than to use it."""
        if self._matrix.has_canonical_format:
            return False
        if self.indices.dtype == np.int32 and self.indices.flags.writeable and works("repeating_rows"):
            return self._repeats_by_compiled_loop()
        return any(_repeats_entries(self._matrix[start : start + BLOCK]) for start in range(0, self.n_rows, BLOCK))

    def _repeats_by_compiled_loop(self) -> bool:
        """A tenth of the time that scipy takes to put the entries in order."""
        repeats_n = torch.zeros(self.n_rows, dtype=torch.int32)
        tables = [torch.from_numpy(self.indptr.astype(np.int64)), torch.from_numpy(self.indices), repeats_n]
        for_row_ranges(loop("repeating_rows").bind(tables, self._matrix.shape[1]), *self._matrix.shape)
        return bool(repeats_n.any())

    @cached_property
    def row_sums_n(self) -> np.ndarray:
        """Sum of each row over this source's columns, ``(n_rows,)`` float64: the library sizes. Computed once."""
        blocks = (np.arange(start, min(start + BLOCK, self.n_rows)) for start in range(0, self.n_rows, BLOCK))
        sums = [np.asarray(self.csr(block).astype(np.float64).sum(axis=1)).reshape(-1) for block in blocks]
        return np.concatenate(sums) if sums else np.zeros(0)


def _repeats_entries(block: sparse.csr_array) -> bool:
    """Whether any row of a block holds one column twice, whatever the order of its columns."""
    return not block.tocsc().has_canonical_format  # puts the rows of a column in order, without adding them up


class CSCRows(CSRRows):
    """Rows of a CSC matrix, converted once to CSR: rows of the column form would read all of it for each minibatch.

    Rows that stay sparse are CSC tensors again.
    """

    def gather_sparse(self, rows_n: np.ndarray) -> Tensor:
        """As :meth:`take_sparse`, for int64 row numbers that were checked before."""
        block = self.csr(rows_n).tocsc()
        _say_nothing_about_beta()
        if self.may_repeat_entries:
            block.sum_duplicates()
        indptr, indices, values = (torch.from_numpy(part) for part in (block.indptr, block.indices, block.data))
        return torch.sparse_csc_tensor(indptr, indices, values, size=block.shape, check_invariants=False)


def csc_rows(
    matrix: sparse.csc_matrix | sparse.csc_array, dtype: object = np.float32, columns: np.ndarray | None = None
) -> CSCRows:
    """See :class:`CSCRows`."""
    check_sparse(matrix)
    logger.debug("A %s x %s matrix in CSC form is converted to CSR once, to read its rows.", *matrix.shape)
    parts = (plain_values(part) for part in (matrix.data, matrix.indices, matrix.indptr))
    return CSCRows(sparse.csc_array(tuple(parts), shape=matrix.shape, copy=False).tocsr(), dtype, columns)
