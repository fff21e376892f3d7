"""Rows of a matrix, wherever they lie: what a :class:`~celbo.data.StoredMatrix` is made of.

Dims: n cells, h features as stored, g features that come out.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import sparse

from .sparse_columns import moved_columns, place_of_columns

__all__ = ["MemoryRows", "Rows", "SomeColumns"]


class Rows(Protocol):
    """Rows of one matrix; :class:`~celbo.store.part.StoredPart` says what the attributes mean."""

    path: Path | None
    shape: tuple[int, int]
    dtype: np.dtype
    n_entries: int
    n_nonzero: int
    chunk_rows: int

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive) in CSR form."""


class MemoryRows:
    """Rows of a matrix in memory, of a file that cannot be read by rows.

    Parameters
    ----------
    matrix
        ``(n, g)`` in CSR form.
    """

    path: Path | None = None  # nothing of the file is read any more, so it may change
    chunk_rows = 1

    def __init__(self, matrix: sparse.csr_matrix | sparse.csr_array) -> None:
        self._matrix = sparse.csr_array(matrix)
        self.shape = (int(matrix.shape[0]), int(matrix.shape[1]))
        self.dtype = np.dtype(matrix.dtype)
        self.n_entries = self.n_nonzero = int(matrix.nnz)

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive) in CSR form."""
        return self._matrix[start:stop]


class SomeColumns:
    """The rows of another matrix with some of its columns.

    Parameters
    ----------
    rows
        ``(n, h)``.
    columns
        Which columns come out, ``(g,)``.
    """

    def __init__(self, rows: Rows, columns: np.ndarray) -> None:
        self._rows, self._place_h = rows, place_of_columns(columns, rows.shape[1])
        self.path, self.dtype, self.chunk_rows = rows.path, rows.dtype, rows.chunk_rows
        self.n_entries, self.n_nonzero = rows.n_entries, rows.n_nonzero
        self.shape = (rows.shape[0], len(columns))

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive) in CSR form."""
        return moved_columns(self._rows.read(start, stop), self._place_h, self.shape[1])
