"""Minibatches of data that stay on disk, read many at a time by a thread, ahead of whoever computes with them."""

import logging
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from torch import Tensor

from ..core.allocator import give_back_free_blocks
from .dataset import AnnTorchDataset, Window

__all__ = ["RowsOf", "read_ahead"]

logger = logging.getLogger("celbo")


class RowsOf(Sequence[np.ndarray]):
    """Rows of minibatches, worked out when they are asked for.

    Parameters
    ----------
    indices
        Row of each position.
    positions
        Of each minibatch.
    """

    def __init__(self, indices: np.ndarray, positions: Sequence[np.ndarray]) -> None:
        self._indices, self._positions = indices, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, batch: Any) -> Any:
        """One minibatch, ``(batch_size,)`` int64, or a list of them for a slice."""
        if isinstance(batch, slice):
            return [self[one] for one in range(len(self))[batch]]
        return self._indices[self._positions[batch]].astype(np.int64, copy=False)


def read_ahead(
    tables: AnnTorchDataset, batches: Sequence[np.ndarray], most_rows: int
) -> Generator[dict[str, Tensor], None, None]:
    """Minibatches of the rows asked for, in the order asked.

    The rows of as many minibatches as make up ``most_rows`` are read together, in ascending order, while those before
    them are used: two such windows are held at a time. Where memory does not suffice for a window it is halved, which
    is said; the minibatches are the same.

    Parameters
    ----------
    tables
        What to read from.
    batches
        Rows of each minibatch, int64, in range.
    most_rows
        Rows a window.

    Raises
    ------
    ChangedFileError
        When a file is no longer what it was when it was opened.
    DamagedDataError
        When rows cannot be read; names file and rows.
    MemoryError
        When there is no memory for the rows of one minibatch.
    """
    tables.check_unchanged(thorough=True)
    try:
        yield from _windows(tables, batches, most_rows)
    finally:
        give_back_free_blocks()  # each reading thread has a heap of its own: what it freed would stay with the process


def _windows(
    tables: AnnTorchDataset, batches: Sequence[np.ndarray], most_rows: int
) -> Generator[dict[str, Tensor], None, None]:
    with ThreadPoolExecutor(1, "celbo-read-ahead") as reader:
        first, most = 0, most_rows
        coming = _begin(reader, tables, batches, first, most)
        while coming is not None:
            mine, reading = coming
            try:
                window = reading.result()
            except MemoryError:
                most = _halved(most, len(mine[0]))
                coming = _begin(reader, tables, batches, first, most)
                continue
            first += len(mine)
            del reading  # it holds the window
            coming = _begin(reader, tables, batches, first, most)
            for rows_n in mine:
                yield window.fetch(rows_n)
            del window


def _begin(
    reader: ThreadPoolExecutor, tables: AnnTorchDataset, batches: Sequence[np.ndarray], first: int, most: int
) -> tuple[list[np.ndarray], Future[Window]] | None:
    """Have the window that begins with a minibatch read; None when there is none."""
    mine: list[np.ndarray] = []
    n = 0
    for batch in range(first, len(batches)):
        rows_n = batches[batch]
        if mine and n + len(rows_n) > most:
            break
        mine.append(rows_n)
        n += len(rows_n)
    return (mine, reader.submit(_read, tables, mine)) if mine else None


def _read(tables: AnnTorchDataset, batches: Sequence[np.ndarray]) -> Window:
    tables.check_unchanged()
    return tables.window(np.unique(np.concatenate(batches)))


def _halved(most: int, least: int) -> int:
    if most <= least:
        raise MemoryError(f"There is no memory for the rows of one minibatch ({least}): take a smaller batch_size.")
    half = max(least, most // 2)
    logger.warning(
        f"Not enough memory to read {most:,} rows ahead: reading {half:,} at a time, which is slower. The minibatches "
        "are the same."
    )
    return half
