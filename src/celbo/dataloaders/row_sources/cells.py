"""Rows of a modality as rows of the cells of a MuData: in another order, and zeros for cells that it lacks.

Dims: n cells asked for, m rows of the modality, g features.
"""

from abc import abstractmethod
from typing import cast

import numpy as np
from scipy import sparse

from .source import RowCost, RowSource, Streamed
from .sparse import CSRRows, SparseRows

__all__ = ["rows_of_cells"]


def rows_of_cells(source: RowSource, row_of_cell: np.ndarray | None) -> RowSource:
    """The row source of cells whose data are rows of another one.

    Parameters
    ----------
    source
        Rows of the modality.
    row_of_cell
        ``(n,)`` row of each cell, -1 for a cell of zeros; None: as they are.
    """
    if row_of_cell is None:
        return source
    if isinstance(source, CSRRows):
        return _reordered(source, row_of_cell)
    if isinstance(source, SparseRows):
        return (_StreamedSparse if isinstance(source, Streamed) else _Sparse)(source, row_of_cell)
    return (_StreamedDense if isinstance(source, Streamed) else _Dense)(source, row_of_cell)


def _reordered(source: CSRRows, row_of_cell: np.ndarray) -> CSRRows:
    """In memory, in CSR form: cells in the order of the rows share the memory of the matrix."""
    has_n = row_of_cell >= 0
    rows_n = row_of_cell[has_n]
    if not _ascends(rows_n, len(source)):
        source = CSRRows(source.stored_csr(rows_n), source.dtype, source.columns)
    n_stored = source.stored_csr(np.empty(0, np.int64)).shape[1]
    whole = _with_empty_rows((source.values, source.indices, source.indptr), has_n, n_stored)
    return CSRRows(whole, source.dtype, source.columns)


def _with_empty_rows(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray], has_n: np.ndarray, n_columns: int
) -> sparse.csr_array:
    """The matrix of ``parts`` (values, columns, row pointers) with rows of zeros where ``has_n`` is False."""
    values, indices, indptr = parts
    pointers = np.zeros(len(has_n) + 1, indptr.dtype)
    pointers[1:][has_n] = np.diff(indptr)
    return sparse.csr_array((values, indices, np.cumsum(pointers, dtype=indptr.dtype)), shape=(len(has_n), n_columns))


def _ascends(rows_n: np.ndarray, n_rows: int) -> bool:
    return len(rows_n) == n_rows and bool((rows_n == np.arange(n_rows)).all())


class _Dense(RowSource):
    """Dense rows; see :func:`rows_of_cells`."""

    def __init__(self, source: RowSource, row_of_cell: np.ndarray) -> None:
        super().__init__((len(row_of_cell), source.n_columns), source.dtype)
        self._source, self._row_of_cell = source, row_of_cell

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the rows ``rows_n`` over ``out_ng``."""
        place_n = self._row_of_cell[rows_n]
        has_n = place_n >= 0
        found_mg = np.empty((int(has_n.sum()), self.n_columns), self.dtype)
        self._source.fill(place_n[has_n], found_mg)
        out_ng[~has_n] = 0
        out_ng[has_n] = found_mg


class _Sparse(SparseRows):
    """Sparse rows; see :func:`rows_of_cells`."""

    def __init__(self, source: SparseRows, row_of_cell: np.ndarray) -> None:
        super().__init__((len(row_of_cell), source.n_columns), source.dtype)
        self._source, self._row_of_cell = source, row_of_cell

    def stored_csr(self, rows_n: np.ndarray) -> sparse.csr_array:
        """The rows ``rows_n`` in CSR form, in the order asked."""
        place_n = self._row_of_cell[rows_n]
        has_n = place_n >= 0
        found = self._source.csr(place_n[has_n])
        return _with_empty_rows((found.data, found.indices, found.indptr), has_n, self.n_columns)


class _StreamedCells(Streamed):
    """The part of both that are not in memory."""

    _row_of_cell: np.ndarray

    @property
    @abstractmethod
    def _stored(self) -> Streamed:
        """The modality's rows."""

    @property
    def cost(self) -> RowCost:
        """Of the modality's rows."""
        return self._stored.cost

    def load(self, ascending_u: np.ndarray) -> RowSource:
        """Rows in memory."""
        place_u = self._row_of_cell[ascending_u]
        needed = np.unique(place_u[place_u >= 0])
        loaded = self._stored.load(needed)
        return rows_of_cells(loaded, np.where(place_u >= 0, np.searchsorted(needed, place_u), -1))

    def check_unchanged(self, thorough: bool = False) -> None:
        """Raise when a file is no longer what was opened."""
        self._stored.check_unchanged(thorough)


class _StreamedDense(_StreamedCells, _Dense):
    """Dense rows that are not in memory."""

    @property
    def _stored(self) -> Streamed:
        return cast(Streamed, self._source)


class _StreamedSparse(_StreamedCells, _Sparse):
    """Sparse rows that are not in memory."""

    @property
    def _stored(self) -> Streamed:
        return cast(Streamed, self._source)
