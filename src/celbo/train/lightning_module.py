"""A plan as a LightningModule: every hook of Lightning's loop does what celbo's own loop does at that place."""

from typing import TYPE_CHECKING, Any

import torch

from .base import Plan
from .optim import SchedulerLink

if TYPE_CHECKING:
    from .lightning import LightningTrainer

__all__ = ["make_lightning_module"]


def make_lightning_module(base: type[Any], plan: Plan, view: "LightningTrainer") -> Any:
    """Wrap a plan.

    Parameters
    ----------
    base
        ``lightning.pytorch.LightningModule``; handed over, so that Lightning is imported only where it is used.
    plan
        The plan.
    view
        celbo's trainer: what plan and callbacks see.
    """

    class PlanModule(base):
        """Runs a plan of celbo's under Lightning."""

        def __init__(self) -> None:
            super().__init__()
            self.plan = plan
            self.automatic_optimization = plan.automatic_optimization
            self._validation: dict[str, float] = {}
            self._weight: dict[str, float] = {}

        def configure_optimizers(self) -> Any:
            return plan.configure_optimizers()

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return view.to_device(batch)

        # Training.

        def setup(self, stage: str) -> None:
            view.call("setup", stage="fit")

        def on_fit_start(self) -> None:
            view.call("on_fit_start")

        def on_train_start(self) -> None:
            optimizers = self.optimizers(use_pl_optimizer=not plan.automatic_optimization)
            view.optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            view.lr_links = [SchedulerLink(config.scheduler) for config in self.trainer.lr_scheduler_configs]
            plan.on_train_start()
            view.call("on_train_start")

        def on_train_epoch_start(self) -> None:
            view.follow()
            self._weight = {} if plan.kl_weight is None else {"kl_weight": float(plan.kl_weight)}
            self._validation = {}
            plan.train_epoch_metrics.reset()
            plan.enter_stage("train")
            view.guard.start_epoch()
            plan.on_train_epoch_start()
            view.call("on_train_epoch_start")

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            view.follow()
            view.call("on_train_batch_start", batch, batch_idx)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = plan.training_step(batch, batch_idx)
            if plan.automatic_optimization:
                loss = output["loss"] if isinstance(output, dict) else output
                rows = getattr(view.train_loader, "last_indices", None)
                where = f"epoch {view.current_epoch}, step {view.global_step}"
                view.guard.check(loss, plan.last_loss_output, batch, batch_idx, rows, where)
            return output

        def on_before_backward(self, loss: torch.Tensor) -> None:
            view.call("on_before_backward", loss)

        def on_after_backward(self) -> None:
            view.call("on_after_backward")

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            view.call("on_before_optimizer_step", optimizer)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            view.follow()
            view.call("on_train_batch_end", outputs, batch, batch_idx)
            if plan.step_values:
                view.record_step(plan.step_values)
                plan.step_values = {}

        def on_train_epoch_end(self) -> None:
            plan.on_train_epoch_end()
            view.call("on_train_epoch_end")
            train = self._metrics("train")
            view.record({**self._validation, **train, **self._weight})
            self._tell(train)
            if view.should_stop:
                self.trainer.should_stop = True

        def on_train_end(self) -> None:
            view.current_epoch = self.trainer.current_epoch
            plan.on_train_end()
            view.call("on_train_end")

        def on_fit_end(self) -> None:
            view.call("on_fit_end")

        def teardown(self, stage: str) -> None:
            view.call("teardown", stage="fit")

        # Validation.

        def on_validation_start(self) -> None:
            view.follow()
            view.callback_metrics |= self._metrics("train") | self._weight
            plan.validation_epoch_metrics.reset()
            plan.enter_stage("validation")
            view.call("on_validation_start")

        def on_validation_epoch_start(self) -> None:
            plan.on_validation_epoch_start()
            view.call("on_validation_epoch_start")

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return plan.validation_step(batch, batch_idx)

        def on_validation_epoch_end(self) -> None:
            view.callback_metrics |= self._metrics("validation")
            view.last_validated_epoch = view.current_epoch
            plan.on_validation_epoch_end()
            view.call("on_validation_epoch_end")
            self._validation = self._metrics("validation")
            self._tell(self._validation)

        def on_validation_end(self) -> None:
            view.call("on_validation_end")
            plan.enter_stage("train")

        # Metrics.

        def _metrics(self, stage: str) -> dict[str, float]:
            training = stage == "train"
            metrics = plan.train_epoch_metrics if training else plan.validation_epoch_metrics
            n_obs = plan.n_obs_training if training else plan.n_obs_validation
            return metrics.compute(n_obs, view.engine.sum_over_processes)

        def _tell(self, metrics: dict[str, float]) -> None:
            """To Lightning's callbacks and loggers."""
            self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)

    return PlanModule()
