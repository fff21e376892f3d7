"""Pieces of a computation that torch does not see, or must not look into, told to whoever writes it down.

Training does most minibatches again as a list of torch's operations (:mod:`celbo.train.engines.tape`). A compiled loop
is none of these, and a piece that looks at values may do something else for the next minibatch: both are one entry of
the list, as a call that is made again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["as_one", "listening"]

Result = TypeVar("Result")
Listener = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


class _OfThisThread(threading.local):
    listener: Listener | None = None


_local = _OfThisThread()


def as_one(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function, which whoever listens takes for one operation.

    Parameters
    ----------
    function
        Changes nothing but the tensors it is given, and has no gradient.
    *args
        Tensors, of the same shapes each time, and plain values.
    """
    listener = _local.listener
    return function(*args) if listener is None else listener(function, args)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener(function, args)`` make the calls of :func:`as_one` on this thread, throughout the block."""
    before, _local.listener = _local.listener, listener
    try:
        yield
    finally:
        _local.listener = before
