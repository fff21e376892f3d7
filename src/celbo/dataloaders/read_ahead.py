"""Minibatches of data that stay on disk, read many at a time by a thread, ahead of whoever computes with them."""

import logging
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch import Tensor

from ..core.allocator import give_back_free_blocks
from .dataset import AnnTorchDataset, Window

__all__ = ["read_ahead"]

logger = logging.getLogger("celbo")


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
            try:
                window, last = coming.result()
            except MemoryError:
                most = _halved(most, len(batches[first]))
                coming = _begin(reader, tables, batches, first, most)
                continue
            coming = _begin(reader, tables, batches, last, most)
            for rows_n in batches[first:last]:
                yield window.fetch(rows_n)
            del window
            first = last


def _begin(
    reader: ThreadPoolExecutor, tables: AnnTorchDataset, batches: Sequence[np.ndarray], first: int, most: int
) -> Future[tuple[Window, int]] | None:
    """Have the window that begins with a minibatch read; None when there is none."""
    if first >= len(batches):
        return None
    last, n = first + 1, len(batches[first])
    while last < len(batches) and n + len(batches[last]) <= most:
        n += len(batches[last])
        last += 1
    return reader.submit(_read, tables, batches[first:last], last)


def _read(tables: AnnTorchDataset, batches: Sequence[np.ndarray], last: int) -> tuple[Window, int]:
    tables.check_unchanged()
    return tables.window(np.unique(np.concatenate(batches))), last


def _halved(most: int, least: int) -> int:
    if most <= least:
        raise MemoryError(f"There is no memory for the rows of one minibatch ({least}): take a smaller batch_size.")
    half = max(least, most // 2)
    logger.warning(
        f"Not enough memory to read {most:,} rows ahead: reading {half:,} at a time, which is slower. The minibatches "
        "are the same."
    )
    return half
