"""``scvi.train._logger``: the logger that keeps numbers in memory."""

from typing import Any

import pandas as pd

from ...train.history import History

__all__ = ["SimpleExperiment", "SimpleLogger"]


class SimpleExperiment(History):
    """Numbers by name."""

    @property
    def data(self) -> dict[str, pd.DataFrame]:
        """``{name: DataFrame}``, as :attr:`SimpleLogger.history`."""
        return self.frames()


class SimpleLogger:
    """Logger that keeps numbers in memory, as ``{name: DataFrame}``; celbo's history is there without one.

    Parameters
    ----------
    name, version
        What it calls itself.
    """

    def __init__(self, name: str = "lightning_logs", version: int | str | None = None) -> None:
        self.name, self.version = name, 0 if version is None else version
        self.experiment = SimpleExperiment()

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """One column of the name each, the index called ``epoch``; of single steps ``step``."""
        return self.experiment.data

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add numbers at an epoch; those of single steps (``..._step``) at a step."""
        for name, value in metrics.items():
            self.experiment.add(step or 0, {name: value}, "step" if name.endswith("_step") else "epoch")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model's archive holds its arguments."""

    def save(self) -> None:
        """Nothing: it is all in memory."""

    def finalize(self, status: str) -> None:
        """Nothing is open."""
