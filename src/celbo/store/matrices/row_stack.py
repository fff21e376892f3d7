"""Sparse rows that come piece by piece, put one behind another without a second copy of them.

Dims: u rows of the stack, g columns.
"""

import numpy as np
from scipy import sparse

__all__ = ["RowStack"]

_SPARE = 1.5
"""Room made over what is expected: pages that are never written to take no memory."""


class RowStack:
    """CSR rows in arrays that are made once.

    Parameters
    ----------
    n_rows, n_columns
        Shape of the stack.
    n_entries
        Stored values that are expected; more are taken too, by moving to larger arrays.
    dtype
        Of the values.
    """

    def __init__(self, n_rows: int, n_columns: int, n_entries: int, dtype: np.dtype) -> None:
        room = int(_SPARE * n_entries) + 1
        self._shape = (n_rows, n_columns)
        self._data, self._indices = np.empty(room, dtype), np.empty(room, np.int32)
        self._indptr = np.zeros(n_rows + 1, np.int64)
        self._n = 0

    def append(self, block: sparse.csr_matrix | sparse.csr_array) -> None:
        """Put rows, ``(m, g)``, behind those that are there."""
        first = int(self._indptr[self._n])
        last, stop = first + int(block.indptr[-1]), self._n + block.shape[0]
        if last > len(self._data):
            self._move(int(_SPARE * last))
        self._data[first:last], self._indices[first:last] = block.data[: last - first], block.indices[: last - first]
        self._indptr[self._n + 1 : stop + 1] = block.indptr[1:]
        self._indptr[self._n + 1 : stop + 1] += first
        self._n = stop

    def _move(self, room: int) -> None:
        used = int(self._indptr[self._n])
        for name in ("_data", "_indices"):
            old = getattr(self, name)
            new = np.empty(room, old.dtype)
            new[:used] = old[:used]
            setattr(self, name, new)

    def csr(self) -> sparse.csr_array:
        """The rows, ``(u, g)``; views of the stack's arrays."""
        n = int(self._indptr[-1])
        # scipy takes both index arrays in the wider of their types, by a copy
        indptr = self._indptr.astype(np.int32) if n < 2**31 else self._indptr
        return sparse.csr_array((self._data[:n], self._indices[:n], indptr), shape=self._shape, copy=False)
