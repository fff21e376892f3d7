"""What plans and callbacks see of their trainer: where the run is, by Lightning's names."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Plan
from .engine import Engine
from .history import History
from .loop import batches_in
from .optim import SchedulerLink

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
        Metrics by name, the newest of each.
    """

    plan: Plan
    engine: Engine
    history: History
    model: Any
    loggers: list[Any]
    train_loader: Any
    val_loader: Any
    max_epochs: int
    max_steps: int
    accumulate_grad_batches: int
    limit_train_batches: float | None
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
        self.callback_metrics: dict[str, float] = {}
        self.optimizers: list[torch.optim.Optimizer] = []
        self.lr_links: list[SchedulerLink] = []

    @property
    def logged_metrics(self) -> dict[str, float]:
        """Metrics of the last epoch."""
        return self.callback_metrics

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.loggers[0] if self.loggers else None

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
