"""Rows shared out over torch's own threads: for compiled code that releases the interpreter lock.

torch's OpenMP threads wait busily for the next piece of work, so threads of another pool would have to share the
processors with them: measured, a second pool gained nothing. Where torch brings GNU's OpenMP (its Linux builds), the
work is therefore handed to that very team; elsewhere to a pool. There are more shares than threads, so that a thread
that another program keeps from running holds up a small one.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from .openmp import OPENMP

__all__ = ["for_row_ranges"]

SMALLEST_SHARE = 1 << 15
"""Entries a thread must have to be worth waking: about 0.1 ms of work."""

MOST_THREADS = 64

SHARES_A_THREAD = 4


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
    most_shares = max(1, min(n_rows, n_rows * row_size // SMALLEST_SHARE))
    n_threads = min(torch.get_num_threads(), MOST_THREADS, most_shares)
    shares = 1 if n_threads == 1 else min(SHARES_A_THREAD * n_threads, most_shares)
    errors: list[BaseException] = []
    numbers = itertools.count()

    def take_shares() -> None:
        """Work through shares until none is left; which thread takes which does not matter."""
        while (i := next(numbers)) < shares:
            try:
                work(n_rows * i // shares, n_rows * (i + 1) // shares)
            except BaseException as error:  # raised below, in the calling thread
                errors.append(error)

    if n_threads == 1:
        take_shares()
    elif OPENMP is not None:
        OPENMP.run(take_shares, n_threads)
    else:
        futures = [_pool.submit(take_shares) for _ in range(n_threads - 1)]
        take_shares()
        for future in futures:
            future.result()
    if errors:
        raise errors[0]


def _leave_parents_threads() -> None:
    global _pool
    _pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celbo-ops")


_pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celbo-ops")  # starts threads when there is work
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parents_threads)
