"""A progress bar for passes over data that lie on disk."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anndata.abc import CSRDataset

from ..core import settings

__all__ = ["counting", "tracking"]


@contextmanager
def counting(x: object, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Progress of a pass over a matrix, for :func:`~celbo.data.check_counts`; None for one in memory, soon done.

    Parameters
    ----------
    x
        The matrix.
    what
        How the bar calls it.
    """
    if not isinstance(x, CSRDataset):
        yield None
        return
    with tracking(f"Reading {what}") as tell:
        yield tell


@contextmanager
def tracking(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, told (done, total); None where nobody would see it (no terminal, or celbo is to be silent)."""
    if settings.verbosity > logging.INFO or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (title, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
