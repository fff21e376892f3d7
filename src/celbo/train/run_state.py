"""RunState: where a run is, and what plans and callbacks may ask of it, by Lightning's names."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dataloaders.base import DataModule, Loader
from .history import History
from .nonfinite import FiniteGuard
from .optim import SchedulerLink

__all__ = ["RunState", "batches_in"]


def batches_in(loader: Loader, limit: float | None) -> int | None:
    """Minibatches an epoch: the loader's length cut to ``limit``, a number or a share; None if unknown.

    Raises a ``TypeError`` for a share of an unknown length.
    """
    try:
        n = len(loader)  # type: ignore[arg-type]  # a TypeError where it has no length
    except TypeError:
        if isinstance(limit, float) and limit != 1.0:
            raise TypeError(
                f"limit_train_batches={limit} (or limit_val_batches) is a share, but the loader has no length: "
                "give a number of minibatches."
            ) from None
        return limit if isinstance(limit, int) else None
    if limit is None:
        return n
    return min(n, limit) if isinstance(limit, int) else max(1, int(n * limit))


class RunState:
    """Where a run is.

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
    kept_epoch
        The epoch whose weights a callback put back at the end; None: the weights are those of the last one.
    callback_metrics
        Metrics by name, the newest of each, as float64 tensors of no dimension; a callback may add its own.
    history
        Metrics of all epochs.
    optimizers, lr_links
        What the plan configured.
    guard
        Stops a run whose loss is not finite.
    n_seen
        Cells trained on.
    model
        The model; None for a plan that is trained without one.
    raw_module
        The module, without what an engine wraps around it.
    train_loader, val_loader
        Minibatches to train and to validate on; None: there are none.
    data, datamodule
        Who gave the loaders, and the same as the user gave it; None: they were given by themselves.
    """

    history: History
    model: Any
    raw_module: torch.nn.Module
    train_loader: Loader
    val_loader: Loader | None = None
    data: DataModule | None = None
    datamodule: Any = None
    sanity_checking = False
    """Whether validation is only tried out before training: never here."""
    guard: FiniteGuard
    max_epochs: int
    max_steps: int
    accumulate_grad_batches: int
    limit_train_batches: float | None
    limit_val_batches: float | None
    check_val_every_n_epoch: int
    gradient_clip_val: float | None
    verbose: int
    n_seen: int

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
        self.kept_epoch: int | None = None
        self.callback_metrics: dict[str, Tensor] = {}
        self.optimizers: list[torch.optim.Optimizer] = []
        self.lr_links: list[SchedulerLink] = []

    def note(self, metrics: Mapping[str, float]) -> None:
        """Keep the newest metrics as tensors: callbacks written for Lightning call ``.item()``."""
        self.callback_metrics |= {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}

    def stop(self, reason: str) -> None:
        """End training after this epoch and say why."""
        self.should_stop, self.stop_reason = True, reason

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
    def batches_left(self) -> int | None:
        """Minibatches of the running epoch that are still to do; None if unknown."""
        if self.epoch_is_trained or 0 < self.max_steps <= self.global_step:
            return 0
        n = self.num_training_batches
        return None if n is None else n - self.batches_done

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps of the whole run; a ``TypeError`` where the training loader has no length."""
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

    # What an engine answers.

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes and speaks."""
        raise NotImplementedError

    @property
    def world_size(self) -> int:
        """Number of processes."""
        raise NotImplementedError

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass under the run's precision and strategy."""
        raise NotImplementedError

    def save_model(self, path: Path) -> None:
        """Write the model as it stands, trained up to here, as an archive; of several processes, the first one does."""
        raise NotImplementedError
