"""Callbacks with Lightning's hook names: early stopping, checkpoints, the learning rate's trace.

Callbacks written for Lightning work too: hooks are called by name, and only those that a callback defines.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor

from ..core import checked, settings
from ..core.kinds import Whole
from ..ops.draws import drawing_of
from .metrics import find_metric
from .nonfinite import Copy
from .run import Run
from .run_state import RunState

if TYPE_CHECKING:
    from .plans.base import Plan

__all__ = [
    "HOOKS",
    "Callback",
    "Hooks",
    "KeepBest",
    "LearningRateMonitor",
    "LoudEarlyStopping",
    "SaveCheckpoint",
    "refuse_without_validation",
]

logger = logging.getLogger("celbo")

HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
    "on_exception",
    "teardown",
)


class Callback:
    """Hooks of a training run; a subclass defines those it wants, by Lightning's names (:data:`HOOKS`).

    Every hook is called as ``hook(trainer, plan, ...)``: ``on_train_batch_start`` with ``(batch, batch_idx)``,
    ``on_train_batch_end`` with ``(outputs, batch, batch_idx)`` where ``outputs["loss"]`` is the loss of the step,
    ``on_exception`` with the exception, ``setup`` and ``teardown`` with ``stage="fit"``.
    """

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to resume exactly."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a kept state back."""


class _Best:
    """The best value of a metric so far."""

    def __init__(self, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}.")
        self.sign = 1.0 if mode == "min" else -1.0
        self.min_delta = abs(min_delta)
        self.value: float | None = None

    def improves(self, value: float) -> bool:
        """Whether ``value`` is better by more than ``min_delta``; it is the best from then on."""
        better = math.isfinite(value) and (
            self.value is None or self.sign * value < self.sign * self.value - self.min_delta
        )
        if better:
            self.value = value
        return better


class LoudEarlyStopping(Callback):
    """Stop when a validation metric has not improved for a while, and say why.

    Parameters
    ----------
    monitor
        Name of the metric; the unweighted validation ELBO by default.
    min_delta
        Smallest change that counts as an improvement.
    patience
        Validations without improvement before training stops.
    mode
        ``"min"`` or ``"max"``.
    warmup_epochs
        Validations at the start that are not looked at.
    """

    @checked
    def __init__(
        self,
        monitor: str = "elbo_validation",
        min_delta: float = 0.0,
        patience: int = 45,
        mode: Literal["min", "max"] = "min",
        warmup_epochs: int = 0,
        verbose: bool = False,
        **kwargs: Any,
    ) -> None:
        self.monitor, self.patience, self.warmup_epochs = monitor, patience, warmup_epochs
        self.best = _Best(mode, min_delta)
        self.wait_count = 0
        self.n_checks = 0
        self.stopped_epoch: int | None = None

    @property
    def best_score(self) -> Tensor | None:
        """The best value seen, a tensor of no dimension; None before the first."""
        return None if self.best.value is None else torch.tensor(self.best.value, dtype=torch.float64)

    def on_validation_end(self, trainer: RunState, plan: "Plan") -> None:
        """Look at the metric."""
        self.n_checks += 1
        if self.n_checks <= self.warmup_epochs:
            return
        value = float(find_metric(trainer.callback_metrics, self.monitor, "early stopping"))
        self.wait_count = 0 if self.best.improves(value) else self.wait_count + 1
        if self.wait_count >= self.patience:
            self.stopped_epoch = trainer.current_epoch
            best = _short(self.best.value)
            trainer.stop(f"{self.monitor} did not improve in the last {self.wait_count} validations; best {best}")

    def on_train_epoch_end(self, trainer: RunState, plan: "Plan") -> None:
        """Where nothing is validated, every epoch is looked at."""
        if trainer.val_loader is None:
            self.on_validation_end(trainer, plan)

    def state_dict(self) -> dict[str, Any]:
        """Counters and best value."""
        counters = {"wait_count": self.wait_count, "n_checks": self.n_checks, "stopped_epoch": self.stopped_epoch}
        return {"best": self.best.value, **counters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        self.best.value = state_dict["best"]
        self.wait_count, self.n_checks = state_dict["wait_count"], state_dict["n_checks"]
        self.stopped_epoch = state_dict["stopped_epoch"]


def refuse_without_validation(callbacks: Iterable[Any]) -> None:
    """Raise ``ValueError`` for an early stopping that waits for a metric of a validation set that is not there."""
    if any(isinstance(callback, LoudEarlyStopping) and "validation" in callback.monitor for callback in callbacks):
        raise ValueError(
            "Can't run Early Stopping with validation monitor with no validation set: "
            "give validation_size, or early_stopping=False."
        )


class KeepBest(Callback):
    """Keep the weights of the epoch with the best metric and put them back at the end.

    Parameters
    ----------
    monitor
        Name of the metric.
    mode
        ``"min"`` or ``"max"``.
    from_share
        Share of the run before which no weights are kept. A few cells' ELBO can be best long before the latents
        separate types and mix batches. None are kept while the KL weight rises either, unless it does to the end.
    gives_up_after
        Share of the run without better weights after which it ends: the steps to come would be thrown away.
    """

    def __init__(
        self,
        monitor: str = "elbo_validation",
        mode: str = "min",
        from_share: float = 0.0,
        gives_up_after: float = 1.0,
    ) -> None:
        self.monitor = monitor
        self.from_share, self.gives_up_after = from_share, gives_up_after
        self.best = _Best(mode)
        self.best_epoch: int | None = None
        self.best_step = 0
        self._copy = Copy()

    def on_validation_end(self, trainer: RunState, plan: "Plan") -> None:
        """Copy the weights when the metric is the best so far; end a run that has not improved for long."""
        if self._is_too_early(trainer, plan):
            return
        if self.best.improves(float(find_metric(trainer.callback_metrics, self.monitor, "keeping the best weights"))):
            self.best_epoch, self.best_step = trainer.current_epoch, trainer.global_step
            self._copy.take(trainer.raw_module.state_dict())
        elif self.gives_up_after < 1 and self._waited_long(trainer):
            share = f"{self.gives_up_after:.0%} of the run"
            trainer.stop(f"{self.monitor} did not improve for {share}; best {_short(self.best.value)}")

    def _is_too_early(self, trainer: RunState, plan: "Plan") -> bool:
        """Before the share of the run, or while the KL weight rises to what the ELBO has, which is not trained yet.

        A few validation cells' ELBO can be best by chance then, long before the latents say anything. A run that ends
        within the warm-up has nothing else.
        """
        if self.from_share and trainer.global_step < self.from_share * trainer.estimated_stepping_batches:
            return True
        warmup = plan.kl_warmup_epochs
        return trainer.current_epoch + 1 < warmup < trainer.max_epochs

    def _waited_long(self, trainer: RunState) -> bool:
        return trainer.global_step - self.best_step >= self.gives_up_after * trainer.estimated_stepping_batches

    def state_dict(self) -> dict[str, Any]:
        """Best value, its epoch, step and weights."""
        where = {"best_epoch": self.best_epoch, "best_step": self.best_step}
        return {"best": self.best.value, **where, "weights": self._copy.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        self.best.value, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.best_step = state_dict.get("best_step", 0)  # runs that know no step are of a version that never gave up
        self._copy.take(state_dict["weights"])

    def on_train_end(self, trainer: RunState, plan: "Plan") -> None:
        """Put the best weights back, unless they are the last ones."""
        if self._copy.tensors and self.best_epoch not in (None, trainer.last_validated_epoch):
            trainer.raw_module.load_state_dict(self._copy.tensors)
            trainer.kept_epoch = self.best_epoch
            if trainer.verbose and trainer.is_global_zero:
                after = f" after the first {self.from_share:.0%} of the run" if self.from_share else ""
                best = f"best {self.monitor} {_short(self.best.value)}{after}"
                logger.info(f"Weights of epoch {trainer.history.first_epoch + self.best_epoch} kept: {best}.")


class SaveCheckpoint(Callback):
    """Save the model as an archive whenever a metric is the best so far.

    Parameters
    ----------
    dirpath
        Folder of the checkpoints; ``settings.logging_dir`` when not given.
    filename
        Template of a checkpoint's folder with ``{epoch}``, ``{step}`` and ``{monitor}``.
    monitor
        Metric to follow.
    load_best_on_end
        Put the best checkpoint's weights back when training ends.
    check_nan_gradients
        Accepted: celbo stops on a non-finite loss by itself.
    mode
        ``"min"`` or ``"max"``.
    save_top_k
        Checkpoints that are kept, the best ones.
    """

    @checked
    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str = "validation_loss",
        load_best_on_end: bool = False,
        check_nan_gradients: bool = False,
        mode: Literal["min", "max"] = "min",
        save_top_k: Annotated[int, Whole(1)] = 1,
        **kwargs: Any,
    ) -> None:
        self.dirpath = Path(dirpath) if dirpath is not None else settings.logging_dir / "checkpoints"
        self.filename = filename or "{epoch}-{step}-{monitor}"
        self.monitor, self.load_best_on_end, self.save_top_k = monitor, load_best_on_end, save_top_k
        self.sign = 1.0 if mode == "min" else -1.0
        self.saved: list[tuple[float, Path]] = []
        self._epoch_of: dict[str, int] = {}

    @property
    def best_model_path(self) -> str:
        """Folder of the best checkpoint; empty before the first."""
        return str(self.saved[0][1]) if self.saved else ""

    @property
    def best_model_score(self) -> Tensor | None:
        """Metric of the best checkpoint, a tensor of no dimension; None before the first."""
        return torch.tensor(self.sign * self.saved[0][0], dtype=torch.float64) if self.saved else None

    def on_validation_end(self, trainer: RunState, plan: "Plan") -> None:
        """Save when the metric is among the best."""
        value = float(find_metric(trainer.callback_metrics, self.monitor, "checkpointing"))
        score = self.sign * value
        if not math.isfinite(value) or (len(self.saved) >= self.save_top_k and score >= self.saved[-1][0]):
            return
        name = self.filename.format(
            epoch=f"epoch={trainer.current_epoch}",
            step=f"step={trainer.global_step}",
            monitor=f"{self.monitor}={value:.6g}",
            **trainer.callback_metrics,
        )
        path = self.dirpath / name
        trainer.save_model(path)
        self._epoch_of[str(path)] = trainer.current_epoch
        self.saved = sorted([*self.saved, (score, path)], key=lambda pair: pair[0])
        while len(self.saved) > self.save_top_k:
            path = self.saved.pop()[1]
            if trainer.is_global_zero:
                trainer.model.delete_archive(path)

    def on_train_epoch_end(self, trainer: RunState, plan: "Plan") -> None:
        """Where nothing is validated, every epoch is looked at."""
        if trainer.val_loader is None:
            self.on_validation_end(trainer, plan)

    def state_dict(self) -> dict[str, Any]:
        """Metrics and folders of the checkpoints."""
        return {"saved": [[score, str(path)] for score, path in self.saved]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        self.saved = [(score, Path(path)) for score, path in state_dict["saved"]]

    def on_train_end(self, trainer: RunState, plan: "Plan") -> None:
        """Put the best weights back, where asked for."""
        if self.load_best_on_end and self.saved:
            trainer.model.load_weights(self.saved[0][1])
            trainer.kept_epoch = self._epoch_of.get(self.best_model_path)


class LearningRateMonitor(Callback):
    """Trace of the learning rate in the history, as ``lr-Adam`` by step."""

    @checked
    def __init__(self, logging_interval: Literal["step", "epoch"] | None = None, **kwargs: Any) -> None:
        self.logging_interval = logging_interval

    def on_train_epoch_end(self, trainer: RunState, plan: "Plan") -> None:
        """Note the rate of every optimizer."""
        for i, optimizer in enumerate(trainer.optimizers):
            kind = type(optimizer).__name__.removeprefix("Fabric")  # which wraps it where there are several processes
            name = f"lr-{kind}" + (f"-{i}" if i else "")
            trainer.history.add(trainer.global_step, {name: float(optimizer.param_groups[0]["lr"])}, "step")


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


class Hooks:
    """Calls the callbacks of a run.

    Parameters
    ----------
    callbacks
        Objects with methods of the names in :data:`~celbo.train.callbacks.HOOKS`; each needs only those it wants.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._by_name: dict[str, list[tuple[Any, Callable[..., Any]]]] = {}
        for callback in callbacks:
            methods = dict(inspect.getmembers(callback, callable))
            for name in HOOKS:
                if name in methods:
                    self._by_name.setdefault(name, []).append((callback, methods[name]))

    def listens(self, *hooks: str) -> bool:
        """Whether a callback has one of these."""
        return any(hook in self._by_name for hook in hooks)

    def call(self, hook: str, trainer: Run, *args: Any, **kwargs: Any) -> None:
        """Call a hook of every callback that has it."""
        for callback, method in self._by_name.get(hook, ()):
            with drawing_of(callback):
                method(trainer, trainer.plan, *args, **kwargs)
