"""The trainer under Lightning's names: what callbacks and plans written for Lightning read of it."""

from typing import Any

from torch import Tensor

from .callbacks import LoudEarlyStopping, SaveCheckpoint
from .history import SHOWN
from .plans.base import Plan
from .run import Run

__all__ = ["TrainerView"]


class TrainerView(Run):
    """A run, by Lightning's names."""

    loggers: list[Any]
    callbacks: list[Any]

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """Metrics of the last epoch."""
        return self.callback_metrics

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """Metrics that the progress bar shows, as numbers."""
        return {name: float(self.callback_metrics[name]) for name in SHOWN if name in self.callback_metrics}

    @property
    def early_stopping_callbacks(self) -> list[LoudEarlyStopping]:
        """Callbacks that stop training early."""
        return [callback for callback in self.callbacks if isinstance(callback, LoudEarlyStopping)]

    @property
    def early_stopping_callback(self) -> LoudEarlyStopping | None:
        """The first of them."""
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def checkpoint_callbacks(self) -> list[SaveCheckpoint]:
        """Callbacks that save the best models."""
        return [callback for callback in self.callbacks if isinstance(callback, SaveCheckpoint)]

    @property
    def checkpoint_callback(self) -> SaveCheckpoint | None:
        """The first of them."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def train_dataloader(self) -> Any:
        """Minibatches trained on, as the user gave them."""
        return self.train_loader.given

    @property
    def val_dataloaders(self) -> Any:
        """Minibatches validated on, as the user gave them."""
        return None if self.val_loader is None else self.val_loader.given

    @property
    def logger(self) -> Any:
        """The first logger; where there is none the history, which takes what others log (``log_metrics``)."""
        return self.loggers[0] if self.loggers else self.history

    @property
    def lightning_module(self) -> Plan:
        """The plan."""
        return self.plan
