"""Rows shared out over torch's own threads: for compiled code that releases the interpreter lock.

torch's OpenMP threads wait busily for the next piece of work, so threads of another pool would have to share the
processors with them: measured, a second pool gained nothing. Where torch brings GNU's OpenMP (its Linux builds), the
work is therefore handed to that very team; elsewhere, and in a forked child, to a pool.
"""

import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    errors: list[BaseException] = []
    numbers = itertools.count()

    def take_shares() -> None:
        """Work through shares until none is left; which thread takes which does not matter."""
        while (i := next(numbers)) < shares:
            try:
                work(n_rows * i // shares, n_rows * (i + 1) // shares)
            except BaseException as error:  # raised below, in the calling thread
                errors.append(error)

    if shares == 1:
        take_shares()
    elif _start_team is not None:
        _start_team(take_shares, shares)
    else:
        futures = [_pool.submit(take_shares) for _ in range(shares - 1)]
        take_shares()
        for future in futures:
            future.result()
    if errors:
        raise errors[0]


def _gnu_openmp() -> Callable[[Callable[[], None], int], None] | None:
    """A function that runs another on every thread of torch's OpenMP team, where that is GNU's."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not found:
        return None
    parallel = ctypes.CDLL(str(found[0])).GOMP_parallel  # the library torch has loaded already
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel.argtypes = (callback, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None

    def start(function: Callable[[], None], n_threads: int) -> None:
        parallel(callback(lambda _: function()), None, n_threads, 0)

    return start


def _leave_parents_threads() -> None:
    """In a forked child the parent's threads are gone, and GNU's OpenMP waits for its own for ever."""
    global _pool, _start_team
    _pool, _start_team = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celbo-ops"), None


_start_team = _gnu_openmp()
_pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="celbo-ops")  # starts threads when there is work
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave_parents_threads)
