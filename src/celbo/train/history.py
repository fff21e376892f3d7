"""What a run tells of itself: its history, as scvi-tools' ``model.history``, loggers, and progress on the screen."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

import pandas as pd

from ..core import settings, unknown_name
from ..core.kinds import described
from ..store.progress import tracking

__all__ = ["SHOWN", "History", "Progress", "make_loggers", "make_progress", "speaking_at"]


class History:
    """Rows of metrics, gathered epoch by epoch.

    Parameters
    ----------
    before
        History of an earlier training that this one continues: ``{name: DataFrame}``.
    """

    def __init__(self, before: Mapping[str, pd.DataFrame] | None = None) -> None:
        self._index_name: dict[str, str] = {}
        self._index: dict[str, list[int]] = {}
        self._values: dict[str, list[float]] = {}
        for name, frame in (before or {}).items():
            self._index_name[name] = str(frame.index.name or "epoch")
            self._index[name] = [int(i) for i in frame.index]
            self._values[name] = [float(v) for v in frame.iloc[:, 0]]
        self.first_epoch = self.last_epoch + 1
        by_step = [index[-1] for name, index in self._index.items() if index and self._index_name[name] == "step"]
        self.first_step = max(by_step, default=-1) + 1

    @property
    def last_epoch(self) -> int:
        """The newest epoch that has a row; -1 before the first."""
        by_epoch = [index[-1] for name, index in self._index.items() if index and self._index_name[name] == "epoch"]
        return max(by_epoch, default=-1)

    def add(self, at: int, row: Mapping[str, SupportsFloat], index_name: str = "epoch") -> None:
        """Add a row of metrics at an epoch or step counted from the start of this training."""
        offset = self.first_epoch if index_name == "epoch" else self.first_step
        for name, value in row.items():
            self._index_name.setdefault(name, index_name)
            self._index.setdefault(name, []).append(at + offset)
            self._values.setdefault(name, []).append(float(value))

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """:meth:`frames`, by the name that scvi-tools' default logger has for it."""
        return self.frames()

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Add custom numbers, as a logger does: at a step, or at the next one of each that is not given.

        Parameters
        ----------
        metrics
            Numbers by name.
        step
            Where they belong, counted from the start of this training.
        """
        for name, value in metrics.items():
            index = self._index.get(name)
            following = index[-1] + 1 - self.first_step if index else 0
            self.add(following if step is None else step, {name: value}, "step")

    def state_dict(self) -> dict[str, Any]:
        """Every row, for a checkpoint."""
        return {
            "index_name": self._index_name,
            "index": self._index,
            "values": self._values,
            "first": [self.first_epoch, self.first_step],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put kept rows back in place of all there are."""
        self._index_name = dict(state["index_name"])
        self._index = {name: list(index) for name, index in state["index"].items()}
        self._values = {name: list(values) for name, values in state["values"].items()}
        self.first_epoch, self.first_step = state["first"]

    def frames(self) -> dict[str, pd.DataFrame]:
        """``{name: DataFrame}``, one column of that name, the index called ``epoch`` or ``step``."""
        return {
            name: pd.DataFrame({name: values}, index=pd.Index(self._index[name], name=self._index_name[name]))
            for name, values in self._values.items()
        }

    def table(self) -> pd.DataFrame:
        """All metrics by epoch as one table."""
        return epoch_table(self.frames())

    def write_csv(self, path: str | Path) -> None:
        """Write :meth:`table`."""
        self.table().to_csv(path)


def epoch_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The frames indexed by epoch, joined into one table."""
    by_epoch = [frame for frame in frames.values() if frame.index.name == "epoch"]
    return pd.concat(by_epoch, axis=1) if by_epoch else pd.DataFrame(index=pd.Index([], name="epoch"))


def make_loggers(chosen: object, folder: str | Path | None) -> list[Any]:
    """Loggers from what the user gave.

    Parameters
    ----------
    chosen
        None or False: none, the history is always kept. ``"csv"`` (or True), ``"tensorboard"``; a logger of Fabric or
        Lightning; a list of them.
    folder
        Where named loggers write; ``settings.logging_dir`` when not given.

    Raises
    ------
    ValueError, TypeError
        Anything else.
    """
    if chosen is None or chosen is False:
        return []
    if chosen is True or isinstance(chosen, str):
        from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

        named = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
        name = "csv" if chosen is True else chosen
        if name not in named:
            raise ValueError(unknown_name("logger", name, named))
        return [named[name](root_dir=str(folder or settings.logging_dir))]
    loggers = list(chosen) if isinstance(chosen, list | tuple) else [chosen]
    for one in loggers:
        if not hasattr(one, "log_metrics"):
            raise TypeError(
                f"logger must be None, True, 'csv', 'tensorboard' or objects with log_metrics(), got {described(one)}."
            )
    return loggers


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


class Reached(Protocol):
    """How far a run is."""

    current_epoch: int
    batches_done: int

    @property
    def num_training_batches(self) -> int | None:
        """Minibatches an epoch; None: nobody knows."""


class Progress(Protocol):
    """What the loop tells about itself."""

    def start(self, n_epochs: int) -> None:
        """Training begins."""

    def batch(self, run: "Reached") -> None:
        """A training minibatch is done."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch ended."""

    def close(self) -> None:
        """Training ended, however it did."""


class Silent:
    """Says nothing."""

    def start(self, n_epochs: int) -> None:
        """Nothing."""

    def batch(self, run: Reached) -> None:
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
    """A bar where somebody sees it, see :mod:`celbo.store.progress`; it moves within an epoch too."""

    def start(self, n_epochs: int) -> None:
        """Have the bar ready."""
        self._n_epochs, self._figures = n_epochs, ""
        self._shown = ExitStack()
        self._tell = self._shown.enter_context(tracking("Training", "epochs"))

    def batch(self, run: Reached) -> None:
        """Move the bar by a part of an epoch."""
        if self._tell is not None:
            n_batches = run.num_training_batches
            part = run.batches_done / n_batches if n_batches else 0
            self._tell(run.current_epoch + part, self._n_epochs, self._figures)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Move the bar to the end of an epoch, with its figures."""
        if self._tell is not None:
            self._figures = _figures(metrics)
            self._tell(epoch + 1, self._n_epochs, self._figures)

    def close(self) -> None:
        """Leave the screen as it was."""
        self._shown.close()


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{label} {metrics[name]:.1f}" for name, label in SHOWN.items() if name in metrics)


def make_progress(verbose: int) -> Progress:
    """The progress for a verbosity.

    Parameters
    ----------
    verbose
        0: silent. 1: a bar on a terminal or in a notebook, nothing in CI or where output is kept in a file. 2: one line
        an epoch.
    """
    if verbose >= 2:
        return Lines()
    return Bar() if verbose == 1 else Silent()
