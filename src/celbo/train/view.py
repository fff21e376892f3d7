"""What plans and callbacks see of their trainer: where the run is, by Lightning's names."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..module.base.randomness import drawing_of
from .callbacks import LoudEarlyStopping, SaveCheckpoint
from .engines.engine import Engine
from .history import History
from .loop import batches_in
from .optim import SchedulerLink
from .plans.base import Plan
from .progress import SHOWN

__all__ = ["TrainerFace"]


class TrainerFace:
    """State of a run, and what plans and callbacks may ask of it.

    Attributes
    ----------
    current_epoch, global_step
        Epochs and optimizer steps done.
    batches_done, epoch_is_trained
        Minibatches of the running epoch that are done, and whether those were all.
    epoch_kl_weight
        KL weight as the running epoch began.
    should_stop, stop_reason, interrupted
        Whether training ends after this epoch, why, and whether by hand.
    last_validated_epoch
        None before the first validation.
    callback_metrics
        Metrics by name, the newest of each, as float64 tensors of no dimension; a callback may add its own.
    train_loader, val_loader, datamodule
        What is trained and validated on; None before, and what is not there.
    """

    plan: Plan
    engine: Engine
    history: History
    model: Any
    loggers: list[Any]
    callbacks: list[Any]
    train_loader: Any = None
    val_loader: Any = None
    datamodule: Any = None
    sanity_checking = False
    """Whether validation is only tried out before training: never here."""
    max_epochs: int
    max_steps: int
    accumulate_grad_batches: int
    limit_train_batches: float | None
    limit_val_batches: float | None
    check_val_every_n_epoch: int
    _finish_batch: Any

    def reset(self) -> None:
        """Stand where a run begins."""
        self.current_epoch = 0
        self.global_step = 0
        self.batches_done = 0
        self.epoch_is_trained = False
        self.epoch_kl_weight: float | None = None
        self.should_stop = False
        self.stop_reason = ""
        self.interrupted = False
        self.last_validated_epoch: int | None = None
        self.callback_metrics: dict[str, Tensor] = {}
        self.optimizers: list[torch.optim.Optimizer] = []
        self.lr_links: list[SchedulerLink] = []

    def note(self, metrics: Mapping[str, float]) -> None:
        """Keep the newest metrics as tensors: callbacks written for Lightning call ``.item()``."""
        self.callback_metrics |= {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}

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
        """Minibatches trained on."""
        return self.train_loader

    @property
    def val_dataloaders(self) -> Any:
        """Minibatches validated on."""
        return self.val_loader

    @property
    def logger(self) -> Any:
        """The first logger; where there is none the history, which takes what others log (``log_metrics``)."""
        return self.loggers[0] if self.loggers else self.history

    @property
    def lightning_module(self) -> Plan:
        """The plan."""
        return self.plan

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes and speaks."""
        return self.engine.is_first

    @property
    def num_training_batches(self) -> int | None:
        """Minibatches an epoch; None where the loader has no length."""
        return batches_in(self.train_loader, self.limit_train_batches)

    @property
    def num_val_batches(self) -> list[float]:
        """Minibatches a validation, as a list of one; infinite where the loader has no length, empty without one."""
        if self.val_loader is None:
            return []
        n = batches_in(self.val_loader, self.limit_val_batches)
        return [math.inf if n is None else n]

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.engine.world_size

    @property
    def global_rank(self) -> int:
        """Number of this process."""
        return self.engine.rank

    @property
    def batches_left(self) -> int | None:
        """Minibatches of the running epoch that are still to do; None if unknown."""
        if self.epoch_is_trained or 0 < self.max_steps <= self.global_step:
            return 0
        n = self.num_training_batches
        return None if n is None else n - self.batches_done

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps of the whole run."""
        if self.num_training_batches is None:
            raise TypeError(
                "A one-cycle schedule must know the number of steps, but the training loader has no length: "
                "give it a __len__, or train with recipe='classic'."
            )
        steps = self.max_epochs * math.ceil(self.num_training_batches / self.accumulate_grad_batches)
        return min(steps, self.max_steps) if self.max_steps > 0 else steps

    @property
    def validates_now(self) -> bool:
        """Whether the running epoch ends with a validation."""
        return self.val_loader is not None and (self.current_epoch + 1) % self.check_val_every_n_epoch == 0

    def stop(self, reason: str) -> None:
        """End training after this epoch and say why."""
        self.should_stop, self.stop_reason = True, reason

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass under the run's precision and strategy."""
        self.engine.backward(loss, **kwargs)

    def to_device(self, batch: Any) -> Any:
        """Move a minibatch, and let the data module finish it there (sparse tensors are made dense)."""
        batch = self.engine.to_device(batch)
        if self._finish_batch is None:
            return batch
        with drawing_of(self.datamodule):
            if isinstance(batch, tuple | list):  # several minibatches at once, as (all cells, labelled cells)
                return type(batch)(self._finish_batch(part, 0) for part in batch)
            return self._finish_batch(batch, 0)

    def save_model(self, path: Path) -> None:
        """Write the model as it stands, trained up to here, as an archive; of several processes, the first one does."""
        if self.model is None:
            raise ValueError("Checkpoints are archives of a model: train through model.train, or set trainer.model.")
        if not self.engine.is_first:
            return
        before = self.model.is_trained_, self.model.history_
        try:
            history = History(self.history.frames())
            history.add(0, self.callback_metrics)  # of the running epoch, which ends only after the validation
            self.model.is_trained_, self.model.history_ = True, history.frames()
            self.model.save(str(path), overwrite=True)
        finally:
            self.model.is_trained_, self.model.history_ = before
