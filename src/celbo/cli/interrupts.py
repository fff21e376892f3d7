"""Ctrl-C on the command line: one line and exit code 130, whatever runs at that moment."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "Interrupts", "while_loading"]

INTERRUPTED = 128 + signal.SIGINT
"""Exit code."""

_LINE = "celbo: interrupted; nothing was written.\n"


@contextmanager
def while_loading() -> Iterator[None]:
    """Leave the process at once on Ctrl-C: a library that was loaded by half cannot be used, and nothing was made."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, _LINE.encode())
        os._exit(INTERRUPTED)

    with _answering(leave):
        yield


class Interrupts:
    """Notes Ctrl-C: an error that follows one, of whatever kind, is its consequence.

    Attributes
    ----------
    seen
        Whether there was one.
    """

    def __init__(self) -> None:
        self.seen = False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` on Ctrl-C, as Python does, and note it."""

        def note(number: int, frame: FrameType | None) -> None:
            self.seen = True
            raise KeyboardInterrupt

        with _answering(note):
            yield


def ignore() -> None:
    """Let Ctrl-C pass: the command is done, and the interpreter only has to leave."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _answering(handler: object) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # ignored in a background job of a shell, or not ours to answer
        return
    signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
