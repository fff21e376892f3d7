"""Rows shared out over a few threads: for compiled code that releases the interpreter lock."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

__all__ = ["for_row_ranges"]

SMALLEST_SHARE = 1 << 15
"""Entries a thread must have to be worth waking: about 0.1 ms of work."""

MOST_THREADS = 64


def for_row_ranges(work: Callable[[int, int], None], n_rows: int, row_size: int) -> None:
    """Call ``work(start, stop)`` for ranges that cover all rows, on at most ``torch.get_num_threads()`` threads.

    Parameters
    ----------
    work
        Handles the rows from ``start`` up to ``stop`` and writes to no others.
    n_rows, row_size
        Rows there are, entries in each. Little work stays on the calling thread.

    Raises
    ------
    What ``work`` raises, once every range is done.
    """
    shares = max(1, min(torch.get_num_threads(), MOST_THREADS, n_rows, n_rows * row_size // SMALLEST_SHARE))
    bounds = [n_rows * i // shares for i in range(shares + 1)]
    futures = [_pool.submit(work, start, stop) for start, stop in pairwise(bounds[1:])]
    try:
        work(bounds[0], bounds[1])
    finally:
        errors = [future.exception() for future in futures]  # waits
    for error in errors:
        if error is not None:
            raise error


def _new_pool() -> ThreadPoolExecutor:
    """A pool starts its threads one by one, when there is work for them."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celbo-ops")


def _renew_pool() -> None:
    """In a forked child the parent's pool has no threads."""
    global _pool
    _pool = _new_pool()


_pool = _new_pool()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_renew_pool)
