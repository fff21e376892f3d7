"""One style of progress for all that takes long: a bar with rate, time left and memory, where somebody sees it.

It comes after a second, so that what is soon done shows nothing, and it is gone at the end. Where one bar is on the
screen, a pass within it shows none of its own.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

from ..core import settings
from .memory import readable_bytes, resident_memory

__all__ = ["Bar", "Tell", "figures_of", "is_seen", "tracking"]

PATIENCE = 1.0
"""Seconds before a bar comes."""

_EVERY = 0.1
"""Seconds between two looks of a bar."""

_on_screen = threading.Lock()


class Tell(Protocol):
    """Takes how much is done, and how much there is in all (None: nobody knows); what to say behind it."""

    def __call__(self, done: float, total: float | None = None, further: str = "") -> None:
        """Move the bar."""


@contextmanager
def tracking(title: str, unit: str = "cells") -> Iterator[Tell | None]:
    """A bar to tell (done, total); None where nobody would see it, or another bar is on the screen.

    Parameters
    ----------
    title
        What goes on.
    unit
        What is counted.
    """
    if not is_seen() or not _on_screen.acquire(blocking=False):
        yield None
        return
    bar = Bar(title, unit)
    try:
        yield bar.tell
    finally:
        bar.close()
        _on_screen.release()


def is_seen() -> bool:
    """Whether progress is shown: on a terminal or in a notebook, but not in CI, nor where celbo is to be silent."""
    quiet = settings.verbosity > logging.INFO or os.environ.get("CI", "").lower() not in ("", "0", "false")
    return not quiet and (_in_notebook() or sys.stderr.isatty())


def _in_notebook() -> bool:
    """Whether a kernel shows what is displayed; some import ipykernel where none runs."""
    ipython = sys.modules.get("IPython")  # where it is not imported, no kernel runs
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Bar:
    """A bar on stderr, or in the output of a notebook's cell.

    Parameters
    ----------
    title
        What goes on.
    unit
        What is counted.
    """

    def __init__(self, title: str, unit: str = "cells") -> None:
        self._title, self._unit = title, unit
        self._since = time.perf_counter()
        self._first: tuple[float, float] | None = None
        self._looked = 0.0
        self._screen: _Screen | None = None

    def tell(self, done: float, total: float | None = None, further: str = "") -> None:
        """Move it.

        Parameters
        ----------
        done, total
            How much is done, and how much there is in all; None: nobody knows.
        further
            What to say behind.
        """
        now = time.perf_counter()
        if self._first is None:
            self._first = done, now  # a resumed training begins far from 0
        if now - self._since < PATIENCE or now - self._looked < _EVERY:
            return
        if self._screen is None:
            self._screen = _Notebook(self._title) if _in_notebook() else _Terminal(self._title)
        self._looked = now
        before, since = self._first
        figures = figures_of(done, total, now - since, self._unit, resident_memory(), before)
        self._screen.show(done, total, "  ".join(filter(None, (figures, further))))

    def close(self) -> None:
        """Leave the screen as it was."""
        if self._screen is not None:
            self._screen.close()


def figures_of(
    done: float, total: float | None, seconds: float, unit: str, memory: int | None, before: float = 0.0
) -> str:
    """What stands beside a bar: how much is done, the rate, the time left, and the memory of the process.

    The rate is that of what was done in these seconds, which does not count what was done before.

    Examples
    --------
    >>> figures_of(3000, 12000, 60.0, "cells", 1_300_000_000)
    '3,000/12,000 cells  50 cells/s  0:03:00 left  1.3 GB'
    >>> figures_of(2, 20, 60.0, "epochs", None)
    '2/20 epochs  30 s per epoch  0:09:00 left'
    """
    rate = (done - before) / max(seconds, 1e-9)
    parts = [f"{int(done):,}{'' if total is None else f'/{total:,.0f}'} {unit}"]
    if rate > 0:
        parts.append(f"{rate:,.3g} {unit}/s" if rate >= 1 else f"{1 / rate:,.3g} s per {unit.removesuffix('s')}")
        if total is not None:
            parts.append(f"{_clock(max(0.0, total - done) / rate)} left")
    if memory is not None:
        parts.append(readable_bytes(memory))
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Screen(Protocol):
    """Where a bar is drawn."""

    def show(self, done: float, total: float | None, figures: str) -> None:
        """Draw it."""

    def close(self) -> None:
        """Take it away."""


class _Terminal:
    """By rich, which is imported with the first bar."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        name = TextColumn("{task.description}", markup=False)
        behind = TextColumn("{task.fields[figures]}", markup=False, table_column=Column(ratio=1, no_wrap=True))
        columns = (name, BarColumn(bar_width=20), behind)
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, expand=True)
        self._task = self._bar.add_task(title, total=None, figures="")
        self._bar.start()

    def show(self, done: float, total: float | None, figures: str) -> None:
        self._bar.update(self._task, completed=done, total=total, figures=figures)

    def close(self) -> None:
        self._bar.stop()


class _Notebook:
    """HTML in the output of the cell."""

    def __init__(self, title: str) -> None:
        from IPython.display import display

        self._title = title
        self._handle: Any = display(self._page(0, None, ""), display_id=True)

    def show(self, done: float, total: float | None, figures: str) -> None:
        self._update(self._page(done, total, figures))

    def close(self) -> None:
        self._update(self._html(""))

    def _update(self, page: Any) -> None:
        if self._handle is not None:  # a shell that displays nothing gives none
            self._handle.update(page)

    def _page(self, done: float, total: float | None, figures: str) -> Any:
        value = "" if total is None else f' value="{done:g}" max="{total:g}"'
        return self._html(f"<div>{escape(self._title)} <progress{value}></progress> {escape(figures)}</div>")

    @staticmethod
    def _html(text: str) -> Any:
        from IPython.display import HTML

        return HTML(text)
