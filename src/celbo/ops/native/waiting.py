"""How torch's threads wait for one another: busily while the processors are theirs, asleep once others want them.

The threads of GNU's OpenMP spin for milliseconds before they sleep. On a quiet machine nothing is faster. Beside
another busy program a thread that spins keeps the one it waits for from running, and a training takes many times as
long. The library decides by one rule that can be used at any time, also when torch has been loaded long ago: where
there are more OpenMP threads than processors, it hardly spins at all (its manual, under ``GOMP_SPINCOUNT``). So while
others want the processors celbo keeps a *crowd*: threads of a team of their own that sleep, and are counted.

How much others want them the kernel says: the time that this process's threads were ready to run and did not. It is
looked at between minibatches. A crowd stays for a second, then the threads spin for a moment to find out whether
the others are still there; each time they are, the crowd stays twice as long.

The number of threads stays what it is, and with it every sum.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .openmp import OPENMP

__all__ = ["considerate", "crowded", "look_around"]

WINDOW = 0.012
"""Seconds over which waiting for processors is measured."""

TOO_MUCH, LEAST = 0.25, 0.004
"""Waiting above which others want the processors: seconds a second of work, and seconds (a turn of another program
is 3 ms). A quiet machine has 0.01 seconds a second, one with a busy process beside 0.8.
"""

SHORTEST, LONGEST = 2.0, 10.0
"""Seconds that a crowd stays."""

STALE = 0.25
"""Seconds after which a measurement begins again where nobody worked meanwhile."""

LARGEST_CROWD = 32

_TASKS = "/proc/self/task"


def seconds_waited() -> float | None:
    """Seconds that this process's present threads were ready and had no processor; None where nobody says."""
    waited = 0
    try:
        for task in os.listdir(_TASKS):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                waited += int(_read(f"{_TASKS}/{task}/schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return waited / 1e9


def _read(path: str) -> bytes:
    """A short file; in a third of the time that ``open`` takes."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 128)
    finally:
        os.close(file)


class _Crowd:
    """Sleeping threads that are counted; there from the moment this is made until :meth:`leave`."""

    def __init__(self, n_threads: int) -> None:
        self._over, self._n = threading.Event(), n_threads
        threading.Thread(target=self._stand, name="celbo-crowd", daemon=True).start()

    def _stand(self) -> None:
        assert OPENMP is not None
        OPENMP.start_team(self._n + 1)
        self._over.wait()

    def leave(self) -> None:
        self._over.set()


class _Watch:
    """What is known of the machine, and the crowd; one for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0
        self._crowd: _Crowd | None = None
        self._next_look = self._crowd_until = self._since = 0.0
        self._stays, self._waited = SHORTEST, 0.0

    def begin(self, n_threads: int) -> None:
        """Somebody begins to work on so many threads."""
        with self._lock:
            self._at_work += 1
            if self._at_work > 1:
                return
            self._n_threads, now = n_threads, time.monotonic()
            if now < self._crowd_until:
                self._gather()
                self._next_look = self._crowd_until
            elif now - self._since > STALE:
                self._measure_from(now)
            elif now >= self._next_look:  # many short answers in a row are measured together
                self._decide(now)

    def end(self) -> None:
        """Somebody is done; the last one leaves the library as it was found."""
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                self._disperse()

    def look(self) -> None:
        """Where it is time for that, see whether others want the processors."""
        now = time.monotonic()
        if now < self._next_look or not self._lock.acquire(blocking=False):
            return
        try:
            if self._at_work and now >= self._next_look:
                self._decide(now)
        finally:
            self._lock.release()

    @property
    def crowded(self) -> bool:
        """Whether threads sleep while they wait."""
        return self._crowd is not None

    def _decide(self, now: float) -> None:
        if self._crowd is not None:
            self._disperse()
            self._measure_from(now)
            return
        if self._others_waited_for(now):
            self._expect_others(now)
            self._gather()
        else:
            self._stays = SHORTEST
            self._measure_from(now)

    def _others_waited_for(self, now: float) -> bool:
        waited = seconds_waited()
        return waited is not None and waited - self._waited > max(TOO_MUCH * (now - self._since), LEAST)

    def _expect_others(self, now: float) -> None:
        self._next_look = self._crowd_until = now + self._stays
        self._stays = min(2 * self._stays, LONGEST)

    def _measure_from(self, now: float) -> None:
        waited = seconds_waited()
        self._since = time.monotonic()
        cost = self._since - now  # where there are many threads: looking takes a hundredth of the time at most
        self._waited = waited or 0.0
        self._next_look = float("inf") if waited is None else self._since + max(WINDOW, 100 * cost)

    def _gather(self) -> None:
        needed = 0 if OPENMP is None else OPENMP.n_processors() - self._n_threads + 1
        if OPENMP is not None and self._n_threads > 1 and needed <= LARGEST_CROWD:
            self._crowd = _Crowd(max(1, needed))

    def _disperse(self) -> None:
        if self._crowd is not None:
            self._crowd.leave()
            self._crowd = None


_watch = _Watch()


@contextmanager
def considerate(n_threads: int) -> Iterator[None]:
    """Work on so many threads inside, with waits that do not stand in the way of others."""
    if OPENMP is None:  # nothing is to be done about waits
        yield
        return
    watch = _watch  # a forked child has another
    watch.begin(n_threads)
    try:
        yield
    finally:
        watch.end()


def look_around() -> None:
    """See whether others want the processors, if it is time for that; to be called between minibatches."""
    _watch.look()


def crowded() -> bool:
    """Whether others wanted the processors when last looked at."""
    return _watch.crowded


def _forget() -> None:
    """In a forked child: the parent's threads are gone, and a lock may be held by one of them."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
