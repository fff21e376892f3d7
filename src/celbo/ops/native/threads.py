"""torch's own threads: how many it works on, and compiled loops shared out over them.

Sums of floats depend on the number. A run therefore chooses it once (:func:`working_threads`): the user's, whoever
changed it since. A checkpoint keeps it.

torch's OpenMP threads wait busily for the next piece of work, so threads of another pool would have to share the
processors with them: measured, a second pool gained nothing. Where torch brings GNU's OpenMP (its Linux builds), the
work of compiled code, which releases the interpreter lock, is handed to that very team; elsewhere to a pool. There are
more shares than threads, so that a thread that another program keeps from running holds up a small one.
"""

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from .openmp import OPENMP
from .waiting import considerate, look_around

__all__ = ["allowed_threads", "between_batches", "fill_rows", "for_row_ranges", "working_threads"]


class _OfThisThread(threading.local):
    """What a thread works on: the number of the run, if it is in one, and what was last asked on it."""

    chosen: int | None = None
    known: tuple[int, bool, int] | None = None


_local = _OfThisThread()
_team_is_gone = False


def allowed_threads(afresh: bool = True) -> int:
    """Threads that the user lets torch have on the calling thread.

    That is what ``OMP_NUM_THREADS``, ``MKL_NUM_THREADS``, ``torch.set_num_threads`` or ``celbo.settings.num_threads``
    says, whichever spoke last, or torch's own choice. A smaller number on the calling thread counts as well
    (threadpoolctl sets it there) unless it is numba's: its OpenMP layer sets the thread that starts it to a number of
    numba's own. 1 in a forked child whose parent had threads: they are gone, and OpenMP would wait for them for ever.

    Parameters
    ----------
    afresh
        Ask in any case, which may take a millisecond. If not, what was last asked on this thread serves as long as
        nothing has changed on it.
    """
    if _team_is_gone:
        return 1
    chosen = _local.chosen
    if chosen is not None:  # asked in the middle of a run
        return int(chosen)
    here = torch.get_num_threads()
    numbas = _is_numbas(here)
    if here == 1 and not numbas:
        return 1
    known = _local.known
    if afresh or known is None or known[:2] != (here, numbas):
        _local.known = known = here, numbas, _number_of_a_new_thread()
    asked = known[2]
    return asked if here > asked or numbas else here


def _number_of_a_new_thread() -> int:
    """What torch takes on a thread where nothing but the user's word has been heard."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()), name="celbo-asks")
    thread.start()
    thread.join()
    return found[0]


def _is_numbas(count: int) -> bool:
    layer, config = sys.modules.get("numba.np.ufunc.parallel"), sys.modules.get("numba.core.config")
    if layer is None or config is None:
        return False
    return bool(vars(layer).get("_is_initialized")) and vars(config).get("NUMBA_NUM_THREADS") == count


@contextmanager
def working_threads(stored: int | None = None, *, afresh: bool = True) -> Iterator[int]:
    """Let torch work on the same number of threads throughout the block, on the calling thread only.

    Parameters
    ----------
    stored
        The number of the run that is gone on with. The user's is not exceeded for its sake.
    afresh
        See :func:`allowed_threads`.

    Yields
    ------
    The number. Afterwards the calling thread has the user's again.
    """
    allowed, outer = allowed_threads(afresh), _local.chosen
    chosen = allowed if stored is None else max(1, min(stored, allowed))
    _local.chosen = chosen
    _set(chosen)
    try:
        with considerate(chosen) if chosen > 1 else nullcontext():  # one thread waits for nobody
            yield chosen
    finally:
        _local.chosen = outer
        _set(allowed)


def between_batches() -> None:
    """To be called between minibatches: undo what others did to the number, make way for who wants the processors."""
    chosen = _local.chosen
    if chosen is not None:
        _set(chosen)
        if chosen > 1:
            look_around()


def _set(n: int) -> None:
    n = 1 if _team_is_gone else n  # the block may have begun before the fork
    if torch.get_num_threads() == n:
        return
    if OPENMP is None:
        torch.set_num_threads(n)
    else:
        OPENMP.set_threads(n)


_threads_at_fork = True


def _count_threads() -> None:
    global _threads_at_fork
    try:
        _threads_at_fork = len(os.listdir("/proc/self/task")) > 1
    except OSError:  # another system: nobody says
        _threads_at_fork = True


def _leave_the_team() -> None:
    """In a forked child only the thread that forked lives on; torch must not wait for the others."""
    global _team_is_gone
    if _threads_at_fork:
        _team_is_gone = True
        _local.__dict__.clear()
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_count_threads, after_in_child=_leave_the_team)


class RowLoop(Protocol):
    """A compiled loop over rows, as of :mod:`.machine_code`."""

    def bind(self, tables: list[Tensor], g: int) -> Callable[[int, int], None]:
        """The loop over these tables."""


def fill_rows(loop: RowLoop, g: int, n_rows: int, row_size: int, *tables: Tensor) -> None:
    """Run a compiled loop over all rows, see :func:`for_row_ranges`.

    Parameters
    ----------
    loop
        The loop.
    g
        Entries of a row of the tables.
    n_rows, row_size
        Rows the loop goes over, entries it reads in each.
    *tables
        What it reads and what it fills.
    """
    for_row_ranges(loop.bind(list(tables), g), n_rows, row_size)


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
