"""Where each row of a CSR matrix on disk begins, in two bytes a row instead of eight.

Dims: n rows.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["RowPointers"]

STRIDE = 512
"""Rows from one stored beginning to the next; those between are summed up."""

PIECE = 2**19
"""Pointers that are read at once."""


class RowPointers:
    """Row pointers of a CSR matrix, as the number of values in each row.

    Parameters
    ----------
    read
        Gives the pointers from one position to another (exclusive), ``(n + 1,)`` in all.
    n
        Number of rows.

    Attributes
    ----------
    n_entries
        Values of all rows.
    longest
        Values of the row that has most.

    Raises
    ------
    ValueError
        When the pointers do not begin at 0, or decrease.
    """

    def __init__(self, read: Callable[[int, int], np.ndarray], n: int) -> None:
        self._lengths = np.zeros(n, np.uint16)
        self._starts = np.zeros(n // STRIDE + 1, np.int64)
        self.n_entries = self.longest = 0
        for start in range(0, n, PIECE):
            self._add(start, np.asarray(read(start, min(start + PIECE, n) + 1)).astype(np.int64, copy=False))

    def _add(self, start: int, pointers: np.ndarray) -> None:
        length_m = np.diff(pointers)
        if pointers[0] != self.n_entries or length_m.min(initial=0) < 0:
            raise ValueError("row pointers that do not ascend from 0")
        self.longest = max(self.longest, int(length_m.max(initial=0)))
        if self.longest > np.iinfo(self._lengths.dtype).max:
            self._lengths = self._lengths.astype(np.uint32)
        self._lengths[start : start + len(length_m)] = length_m
        self._starts[start // STRIDE : (start + len(length_m)) // STRIDE + 1] = pointers[::STRIDE]
        self.n_entries = int(pointers[-1])

    def between(self, start: int, stop: int) -> np.ndarray:
        """Where the rows ``start`` to ``stop`` (exclusive) begin, and the last ends, ``(stop - start + 1,)`` int64."""
        known = start // STRIDE * STRIDE
        pointers = np.empty(stop - known + 1, np.int64)
        pointers[0] = self._starts[known // STRIDE]
        np.cumsum(self._lengths[known:stop], out=pointers[1:])
        pointers[1:] += pointers[0]
        return pointers[start - known :]

    def row_of(self, entry: int) -> int:
        """The row that a value belongs to, by the value's place."""
        known = max(0, int(np.searchsorted(self._starts, entry, side="right")) - 1) * STRIDE
        ends = self.between(known, min(known + STRIDE, len(self._lengths)))[1:]
        return known + int(np.searchsorted(ends, entry, side="right"))
