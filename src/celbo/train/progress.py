"""One progress bar, or one line an epoch, or silence."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from .run_state import RunState

__all__ = ["SHOWN", "Progress", "make_progress", "say_summary", "speaking_at"]

logger = logging.getLogger("celbo")

SHOWN = {"train_loss": "loss", "elbo_train": "ELBO", "elbo_validation": "validation ELBO"}
"""Metrics that are shown -> what they are called there."""


# Of this thread alone: the level of the logger belongs to the process, and two trainings side by side that each lower
# it and put it back leave it low for good.
_is_silent: ContextVar[bool] = ContextVar("celbo_is_silent", default=False)


def _is_heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _is_silent.get()


logger.addFilter(_is_heard)


@contextmanager
def speaking_at(verbose: int) -> Iterator[None]:
    """With 0, celbo's remarks (that kernels are compiled, say) are not heard meanwhile; warnings are."""
    before = _is_silent.set(_is_silent.get() or not verbose)
    try:
        yield
    finally:
        _is_silent.reset(before)


class Progress(Protocol):
    """What the loop tells about itself."""

    def start(self, n_epochs: int) -> None:
        """Training begins."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch ended."""

    def close(self) -> None:
        """Training ended, however it did."""


class Silent:
    """Says nothing."""

    def start(self, n_epochs: int) -> None:
        """Nothing."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One line an epoch on stderr."""

    def start(self, n_epochs: int) -> None:
        """Note the number of epochs."""
        self.n_epochs = n_epochs

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Print the epoch's line."""
        print(f"epoch {epoch + 1}/{self.n_epochs}  {_figures(metrics)}", file=sys.stderr, flush=True)


class Bar(Silent):
    """A rich progress bar on stderr, gone from the screen's way when done."""

    def start(self, n_epochs: int) -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = ("Training", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar: Any = RichProgress(*columns, TextColumn("{task.fields[figures]}"), console=Console(stderr=True))
        self._task = self._bar.add_task("epochs", total=n_epochs, figures="")
        self._bar.start()

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=epoch + 1, figures=_figures(metrics))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{label} {metrics[name]:.1f}" for name, label in SHOWN.items() if name in metrics)


def make_progress(verbose: int) -> Progress:
    """The progress for a verbosity.

    Parameters
    ----------
    verbose
        0: silent. 1: a bar on a terminal or in a notebook, nothing where output is kept in a file. 2: one line an
        epoch.
    """
    if verbose >= 2:
        return Lines()
    return Bar() if verbose == 1 and (sys.stderr.isatty() or "ipykernel" in sys.modules) else Silent()


def say_summary(trainer: RunState, seconds: float) -> None:
    """One line at the end of a run."""
    elbo = trainer.callback_metrics.get("elbo_validation")
    rate = trainer.n_seen * trainer.world_size / max(seconds, 1e-9)
    parts = [f"{trainer.current_epoch} epochs in {seconds:.1f} s ({rate:,.0f} cells/s)"]
    parts += [] if elbo is None else [f"validation ELBO {elbo:.2f}"]
    parts += [f"stopped: {trainer.stop_reason}"] if trainer.stop_reason else []
    logger.info(f"Trained {', '.join(parts)}.")
