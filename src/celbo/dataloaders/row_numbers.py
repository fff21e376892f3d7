"""Which cells a loader reads: row numbers, in memory, or mapped from a temporary file where the cells are many.

Dims: n cells, k of them.
"""

from collections.abc import Callable, Iterable

import numpy as np

from ..store.mapped import is_mapped, put, stretches
from .row_sources.source import as_indices

__all__ = ["MANY", "all_rows", "from_bits", "in_order", "kept", "row_numbers", "to_bits"]

MANY = 2**22
"""Cells from which on sets of row numbers lie in a file: 4,194,304, of which one in memory takes 32 MiB."""

PIECE = 2**20


def kept(pieces: Callable[[], Iterable[np.ndarray]], n: int) -> np.ndarray:
    """Row numbers of up to ``n`` cells that come in pieces, mapped; they cannot be changed."""
    rows_k = put(pieces, np.int32 if n < 2**31 else np.int64)
    rows_k.flags.writeable = False
    return rows_k


def all_rows(n: int) -> np.ndarray:
    """``0 .. n - 1``."""
    if n < MANY:
        return np.arange(n, dtype=np.int64)
    return kept(lambda: (np.arange(start, min(start + PIECE, n)) for start in range(0, n, PIECE)), n)


def row_numbers(indices: object, n: int) -> np.ndarray:
    """As :func:`~celbo.dataloaders.row_sources.source.as_indices` for cells; mapped numbers are read in place.

    Returns
    -------
    ``(k,)`` int64, or as they were given where they are mapped.
    """
    if not (isinstance(indices, np.ndarray) and is_mapped(indices)) or indices.dtype.kind not in "iu":
        return as_indices(indices, n, what="cell")
    for (some,) in stretches(indices):
        as_indices(some, n, what="cell")
    return indices


def in_order(rows_k: np.ndarray) -> np.ndarray:
    """Row numbers in ascending order; themselves where they are mapped and have it."""
    if is_mapped(rows_k) and _ascends(rows_k):
        return rows_k
    return np.sort(rows_k)


def to_bits(rows_k: np.ndarray) -> np.ndarray:
    """Ascending row numbers as one bit for each row up to the last of them, uint8."""
    last = int(rows_k[-1]) if len(rows_k) else -1
    bits = np.zeros(last // 8 + 1, np.uint8)
    for (some,) in stretches(rows_k):
        first, end = int(some[0]) // 8, int(some[-1]) // 8 + 1
        is_in = np.zeros(8 * (end - first), bool)
        is_in[some - 8 * first] = True
        bits[first:end] |= np.packbits(is_in)
    return bits


def from_bits(bits: np.ndarray) -> np.ndarray:
    """The row numbers of :func:`to_bits`, mapped."""
    steps = range(0, len(bits), PIECE)
    return kept(lambda: (8 * i + np.flatnonzero(np.unpackbits(bits[i : i + PIECE])) for i in steps), 8 * len(bits))


def _ascends(rows_k: np.ndarray) -> bool:
    last = -1
    for (some,) in stretches(rows_k):
        if some[0] < last or (np.diff(some) < 0).any():
            return False
        last = int(some[-1])
    return True
