"""Minibatches of data that stay on disk, read many at a time by a thread, ahead of whoever computes with them."""

import logging
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from ..core.process import give_back_free_blocks
from ..store.mapped import taken
from .dataset import AnnTorchDataset, Window

__all__ = ["read_ahead"]

logger = logging.getLogger("celbo")


def read_ahead(
    tables: AnnTorchDataset, indices: np.ndarray, batches: Sequence[np.ndarray], most_rows: int
) -> Generator[tuple[np.ndarray, dict[str, Tensor]], None, None]:
    """Minibatches of the rows asked for, in the order asked, each with its row numbers (int64).

    The rows of as many minibatches as make up ``most_rows`` are read together, in ascending order, while those before
    them are used: two such windows are held at a time. Where memory does not suffice for a window it is halved, which
    is said; the minibatches are the same.

    Parameters
    ----------
    tables
        What to read from.
    indices
        Row of each position.
    batches
        Positions of each minibatch.
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
        yield from _windows(_Reader(tables, indices, batches), most_rows)
    finally:
        give_back_free_blocks()  # each reading thread has a heap of its own: what it freed would stay with the process


class _Reader:
    """Reads windows; its :meth:`read` is called by a thread.

    Parameters
    ----------
    tables, indices, batches
        As in :func:`read_ahead`.
    """

    def __init__(self, tables: AnnTorchDataset, indices: np.ndarray, batches: Sequence[np.ndarray]) -> None:
        self._tables, self._indices, self._batches = tables, indices, batches

    def positions(self, first: int, most: int) -> list[np.ndarray]:
        """Those of the window that begins with a minibatch, one array a minibatch; none behind the last."""
        mine: list[np.ndarray] = []
        n = 0
        for batch in range(first, len(self._batches)):
            positions_n = self._batches[batch]
            if mine and n + len(positions_n) > most:
                break
            mine.append(positions_n)
            n += len(positions_n)
        return mine

    def read(self, positions: list[np.ndarray]) -> tuple[list[np.ndarray], Window]:
        """Row numbers of each minibatch, and a window with the rows of all."""
        self._tables.check_unchanged()
        rows_n = taken(self._indices, np.concatenate(positions)).astype(np.int64, copy=False)
        window = self._tables.window(np.unique(rows_n))
        return np.split(rows_n, np.cumsum([len(one) for one in positions[:-1]])), window


def _windows(reader: _Reader, most: int) -> Generator[tuple[np.ndarray, dict[str, Tensor]], None, None]:
    first = 0
    with ThreadPoolExecutor(1, "celbo-read-ahead") as thread:
        mine = reader.positions(first, most)
        reading = thread.submit(reader.read, mine) if mine else None
        while reading is not None:
            try:
                rows, window = reading.result()
                first += len(mine)
            except MemoryError:
                most, rows, window = _halved(most, len(mine[0])), [], None
            del reading  # it holds the window
            mine = reader.positions(first, most)
            reading = thread.submit(reader.read, mine) if mine else None
            for rows_n in rows:
                assert window is not None
                yield rows_n, window.fetch(rows_n)
            del rows, window


def _halved(most: int, least: int) -> int:
    if most <= least:
        raise MemoryError(f"There is no memory for the rows of one minibatch ({least}): take a smaller batch_size.")
    half = max(least, most // 2)
    logger.warning(
        f"Not enough memory to read {most:,} rows ahead: reading {half:,} at a time, which is slower. The minibatches "
        "are the same."
    )
    return half
