"""Where each row of a CSR matrix on disk begins, in two bytes a row instead of eight.

Dims: n rows.
"""

from collections.abc import Callable, Iterator

import numpy as np

from .. import mapped as scratch

__all__ = ["RowPointers"]

STRIDE = 512
"""Rows from one stored beginning to the next; those between are summed up."""

PIECE = 2**19
"""Pointers that are read at once."""

KEPT_BYTES = 2**23
"""Memory that lengths which were asked for may take until it is let go."""


class RowPointers:
    """Row pointers of a CSR matrix, as the number of values in each row; in a temporary file where they are many.

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
        self._read, self._n, self._asked = read, n, 0
        self._starts = np.zeros(n // STRIDE + 1, np.int64)
        try:
            self._lengths = self._kept(np.uint16)
        except OverflowError:  # a row of 65,536 values
            self._lengths = self._kept(np.uint32)
        del self._read

    def _kept(self, dtype: type) -> np.ndarray:
        if self._n >= scratch.COMPACT_FROM:
            return scratch.put(lambda: self._checked(dtype), dtype)
        return np.concatenate([np.empty(0, dtype), *self._checked(dtype)])

    def _checked(self, dtype: type) -> Iterator[np.ndarray]:
        """How many values each row has, some rows at a time."""
        self.n_entries = self.longest = 0
        for start in range(0, self._n, PIECE):
            pointers = np.asarray(self._read(start, min(start + PIECE, self._n) + 1)).astype(np.int64, copy=False)
            length_m = np.diff(pointers)
            if pointers[0] != self.n_entries or length_m.min(initial=0) < 0:
                row = start + int((length_m < 0).argmax())
                raise ValueError(f"row pointers that do not ascend from 0 (row {row} begins or ends wrongly)")
            self.longest = max(self.longest, int(length_m.max(initial=0)))
            if self.longest > np.iinfo(dtype).max:
                raise OverflowError
            self._starts[start // STRIDE : (start + len(length_m)) // STRIDE + 1] = pointers[::STRIDE]
            self.n_entries = int(pointers[-1])
            yield length_m.astype(dtype)

    def between(self, start: int, stop: int) -> np.ndarray:
        """Where the rows ``start`` to ``stop`` (exclusive) begin, and the last ends, ``(stop - start + 1,)`` int64."""
        known = start // STRIDE * STRIDE
        pointers = np.empty(stop - known + 1, np.int64)
        pointers[0] = self._starts[known // STRIDE]
        np.cumsum(self._lengths[known:stop], out=pointers[1:])
        pointers[1:] += pointers[0]
        self._asked += scratch.REGION + (stop - known) * self._lengths.itemsize
        if self._asked > KEPT_BYTES:
            self._asked = 0
            scratch.forget(self._lengths)
        return pointers[start - known :]

    def row_of(self, entry: int) -> int:
        """The row that a value belongs to, by the value's place."""
        known = max(0, int(np.searchsorted(self._starts, entry, side="right")) - 1) * STRIDE
        ends = self.between(known, min(known + STRIDE, self._n))[1:]
        return known + int(np.searchsorted(ends, entry, side="right"))
