"""A plan as a LightningModule: every hook of Lightning's loop does what celbo's own loop does at that place."""

from collections.abc import Callable
from typing import Any

import torch

from ...module.base import LossOutput
from ...ops.native.threads import between_batches
from ..history import History
from ..optim import SchedulerLink, parameters_of
from ..plans.base import Plan
from ..trainer import Trainer

__all__ = ["PlanHooks", "make_history_logger", "make_lightning_module"]


class PlanHooks:
    """The hooks, to be put before ``lightning.pytorch.LightningModule``.

    Parameters
    ----------
    plan
        The plan.
    view
        celbo's trainer: what plan and callbacks see.
    follow
        Brings it to where Lightning's trainer is.
    """

    trainer: Any
    optimizers: Any
    log_dict: Any
    manual_backward: Any
    clip_gradients: Any

    def __init__(self, plan: Plan, view: Trainer, follow: Callable[[], None]) -> None:
        super().__init__()
        self.plan, self.view, self.follow = plan, view, follow
        self.by_hand = type(plan).steps is not Plan.steps  # Lightning knows one step a minibatch
        self.automatic_optimization = plan.automatic_optimization and not self.by_hand
        self._validation: dict[str, float] = {}
        self._weight: dict[str, float] = {}

    def configure_optimizers(self) -> Any:
        """The plan's."""
        return self.plan.configure_optimizers()

    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> Any:
        """Let the data module finish a minibatch."""
        return self.view.to_device(batch)

    # Training.

    def setup(self, stage: str) -> None:
        """Before everything else, with the stage."""
        self.view.call("setup", stage="fit")

    def on_fit_start(self) -> None:
        """Training is about to begin."""
        self.view.call("on_fit_start")

    def on_train_start(self) -> None:
        """Before the first epoch."""
        optimizers = self.optimizers(use_pl_optimizer=not self.automatic_optimization)
        self.view.optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        self.view.lr_links = [
            SchedulerLink(config.scheduler, config.interval) for config in self.trainer.lr_scheduler_configs
        ]
        self.plan.on_train_start()
        self.view.call("on_train_start")

    def on_train_epoch_start(self) -> None:
        """Before each epoch."""
        self.follow()
        self._weight = {} if self.plan.kl_weight is None else {"kl_weight": float(self.plan.kl_weight)}
        self._validation = {}
        self.plan.train_epoch_metrics.reset()
        self.plan.enter_stage("train")
        self.view.guard.start_epoch()
        self.plan.on_train_epoch_start()
        self.view.call("on_train_epoch_start")

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Before each minibatch."""
        self.follow()
        self.view.call("on_train_batch_start", batch, batch_idx)

    def training_step(self, batch: object, batch_idx: int) -> Any:
        """The plan's step, with a look at whether its loss is finite."""
        between_batches()
        if self.by_hand:
            return self._steps_by_hand(batch, batch_idx)
        output = self.plan.training_step(batch, batch_idx)
        if self.automatic_optimization:
            loss = output["loss"] if isinstance(output, dict) else output
            self._check(loss, self.plan.last_loss_output, batch, batch_idx)
        return output

    def _check(self, loss: torch.Tensor, record: LossOutput | None, batch: object, batch_idx: int) -> None:
        rows = self.view.train_loader.last_indices
        where = f"epoch {self.view.current_epoch}, step {self.view.global_step}"
        self.view.guard.check(loss, record, batch, batch_idx, rows, where)

    def _steps_by_hand(self, batch: object, batch_idx: int) -> torch.Tensor | None:
        first = None
        for step in self.plan.steps(batch, batch_idx):
            self._check(step.loss, step.record, batch, batch_idx)
            chosen = self.view.optimizers if step.optimizer is None else [self.view.optimizers[step.optimizer]]
            moved = [p for optimizer in chosen for p in parameters_of(optimizer)]
            self.manual_backward(step.loss, inputs=moved)
            for optimizer in chosen:
                self.clip_gradients(optimizer, self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm)
                optimizer.step()
                optimizer.zero_grad()
            first = step.loss.detach() if first is None else first
        for link in self.view.lr_links:
            if link.interval == "step":
                link.step(self.view.callback_metrics)
        return first

    def on_before_backward(self, loss: torch.Tensor) -> None:
        """Before the backward pass."""
        self.view.call("on_before_backward", loss)

    def on_after_backward(self) -> None:
        """After the backward pass."""
        self.view.call("on_after_backward")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Before each step of an optimizer."""
        self.view.call("on_before_optimizer_step", optimizer)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """After each minibatch."""
        self.follow()
        self.view.call("on_train_batch_end", outputs, batch, batch_idx)
        if self.plan.step_values:
            self.view.record_step(self.plan.step_values)
            self.plan.step_values = {}

    def on_train_epoch_end(self) -> None:
        """After each epoch."""
        self.plan.on_train_epoch_end()
        self.view.call("on_train_epoch_end")
        train = self._metrics("train")
        self.view.record({**self._validation, **train, **self._weight})
        self._tell(train)
        if self.view.should_stop:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """After the last epoch."""
        self.view.current_epoch = self.trainer.current_epoch
        self.plan.on_train_end()
        self.view.call("on_train_end")

    def on_fit_end(self) -> None:
        """After everything."""
        self.view.call("on_fit_end")

    def teardown(self, stage: str) -> None:
        """After everything, with the stage."""
        self.view.call("teardown", stage="fit")

    # Validation.

    def on_validation_start(self) -> None:
        """Validation begins."""
        self.follow()
        self.view.note(self._metrics("train") | self._weight)
        self.plan.validation_epoch_metrics.reset()
        self.plan.enter_stage("validation")
        self.view.call("on_validation_start")

    def on_validation_epoch_start(self) -> None:
        """Before each validation."""
        self.plan.on_validation_epoch_start()
        self.view.call("on_validation_epoch_start")

    def validation_step(self, batch: object, batch_idx: int) -> Any:
        """The plan's step."""
        between_batches()
        output = self.plan.validation_step(batch, batch_idx)
        self.view.record_validation_step()
        return output

    def on_validation_epoch_end(self) -> None:
        """After each validation."""
        self.view.note(self._metrics("validation"))
        self.view.last_validated_epoch = self.view.current_epoch
        self.plan.on_validation_epoch_end()
        self.view.call("on_validation_epoch_end")
        self._validation = self._metrics("validation")
        self._tell(self._validation)

    def on_validation_end(self) -> None:
        """Validation has ended."""
        self.view.call("on_validation_end")
        self.plan.enter_stage("train")

    # Metrics.

    def _metrics(self, stage: str) -> dict[str, float]:
        training = stage == "train"
        metrics = self.plan.train_epoch_metrics if training else self.plan.validation_epoch_metrics
        n_obs = self.plan.n_obs_training if training else self.plan.n_obs_validation
        return metrics.compute(n_obs, self.view.engine.gather)

    def _tell(self, metrics: dict[str, float]) -> None:
        """To Lightning's callbacks and loggers."""
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)


def make_lightning_module(base: type[Any], plan: Plan, view: Trainer, follow: Callable[[], None]) -> Any:
    """Wrap a plan.

    Parameters
    ----------
    base
        ``lightning.pytorch.LightningModule``; handed over, so that Lightning is imported only where it is used.
    plan, view, follow
        As in :class:`PlanHooks`.
    """
    return type("PlanModule", (PlanHooks, base), {})(plan, view, follow)


class _HistoryLogger:
    """A logger of Lightning that puts what Lightning's callbacks log (learning rates, times) into the history.

    Parameters
    ----------
    history
        The history.
    """

    name, version = "", ""  # a ModelCheckpoint makes folders of these

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers at a step; those with an epoch are the plan's own, which the history has already."""
        if "epoch" not in metrics:
            self.history.add(step or 0, metrics, "step")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model's archive holds its arguments."""


def make_history_logger(base: type[Any], history: History) -> Any:
    """A :class:`_HistoryLogger` over Lightning's ``Logger``, handed over as in :func:`make_lightning_module`."""
    return type("HistoryLogger", (_HistoryLogger, base), {})(history)
