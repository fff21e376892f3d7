"""TrainingPlan: one minibatch through the module, backward, metrics. Pure steps; the loop keeps the state."""

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ...core import UnknownArgumentError, checked, unknown_name
from ...core.kinds import Number
from ...module.base import BaseModuleClass, LossOutput
from ..metrics import ElboMetric, EpochMetrics
from ..optim import Adam, AdamW
from . import schedules
from .base import Plan
from .schedules import RunningMeans

__all__ = ["TrainingPlan"]

_DISPERSION = "px_r"

OptimizerCreator = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


class TrainingPlan(Plan):
    r"""Plan of every model whose module returns a :class:`~celbo.module.base.LossOutput`.

    Parameters
    ----------
    module
        The module to train.
    optimizer
        ``"Adam"``, ``"AdamW"``, or ``"Custom"`` with ``optimizer_creator``.
    optimizer_creator
        Function of the parameters that returns an optimizer.
    lr, eps, weight_decay
        Of the optimizer.
    update_only_decoder
        Train only the parameters under ``module.decoder``.
    n_steps_kl_warmup, n_epochs_kl_warmup
        Length of the linear KL warm-up; epochs win when both are set; 0 or None: no warm-up.
    kl_warmup_begins_at
        Share of the warm-up before which the KL weight stays at its minimum.
    reduce_lr_on_plateau, lr_factor, lr_patience, lr_threshold, lr_scheduler_metric, lr_min
        Multiply the learning rate by ``lr_factor`` once ``lr_scheduler_metric`` has not fallen for ``lr_patience``
        epochs.
    max_kl_weight, min_kl_weight
        Where the KL weight ends and begins.
    compile, compile_kwargs
        Run the module under ``torch.compile``.
    on_step, on_epoch
        ``on_step``: keep the training loss of single steps as ``train_loss_step``; both: also ``validation_loss_step``,
        and the numbers of epochs under ``..._epoch`` too.
    lr_schedule
        ``"constant"`` or ``"one_cycle"`` (:func:`~celbo.train.plans.schedules.one_cycle` over the whole run).
    lr_warmup_fraction
        Share of the run in which the one-cycle rate rises.
    dispersion_lr_factor
        Learning rate of the inverse dispersions (``px_r``) as a multiple of ``lr``. They are single numbers: a weight
        matrix, whose inputs all move at once, changes its output many times as fast at the same rate.
    batch_norm_momentum
        Weight of the newest minibatch in the running means of batch normalization
        (:class:`~celbo.train.plans.schedules.RunningMeans`); None: as the layers have it.
    **loss_kwargs
        Arguments of ``module.loss``.

    Raises
    ------
    TypeError
        A keyword that neither the plan nor ``module.loss`` has.
    ValueError
        An unknown optimizer or schedule, ``"Custom"`` without its creator, ``reduce_lr_on_plateau`` with
        ``"one_cycle"``, or ``min_kl_weight`` above ``max_kl_weight``.
    """

    _running_means: RunningMeans | None = None

    @checked
    def __init__(
        self,
        module: BaseModuleClass,
        *,
        optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam",
        optimizer_creator: OptimizerCreator | None = None,
        lr: float = 1e-3,
        update_only_decoder: bool = False,
        weight_decay: float = 1e-6,
        eps: float = 0.01,
        n_steps_kl_warmup: int | None = None,
        n_epochs_kl_warmup: int | None = 400,
        reduce_lr_on_plateau: bool = False,
        lr_factor: float = 0.6,
        lr_patience: int = 30,
        lr_threshold: float = 0.0,
        lr_scheduler_metric: Literal[
            "elbo_validation", "reconstruction_loss_validation", "kl_local_validation"
        ] = "elbo_validation",
        lr_min: float = 0,
        max_kl_weight: float = 1.0,
        min_kl_weight: float = 0.0,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        on_step: bool | None = False,
        on_epoch: bool | None = True,
        lr_schedule: Literal["constant", "one_cycle"] = "constant",
        lr_warmup_fraction: float = 0.1,
        dispersion_lr_factor: Annotated[float, Number(0, above=True)] = 1.0,
        batch_norm_momentum: Annotated[float | None, Number(0, 1, above=True)] = None,
        kl_warmup_begins_at: Annotated[float, Number(0, 1, below=True)] = 0.0,
        **loss_kwargs: Any,
    ) -> None:
        super().__init__()
        self.optimizer_name = _known_optimizer(optimizer, optimizer_creator)
        self.lr_schedule = _one_of("lr_schedule", lr_schedule, ("constant", "one_cycle"))
        if reduce_lr_on_plateau and lr_schedule == "one_cycle":
            raise ValueError(
                "reduce_lr_on_plateau needs recipe='classic': a one-cycle schedule fixes the learning rate."
            )
        schedules.kl_weight(0, 0, n_epochs_kl_warmup, n_steps_kl_warmup, max_kl_weight, min_kl_weight)
        self.module = torch.compile(module, **(compile_kwargs or {})) if compile else module
        self.optimizer_creator = optimizer_creator
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.update_only_decoder, self.kl_warmup_begins_at = update_only_decoder, kl_warmup_begins_at
        self.n_steps_kl_warmup, self.n_epochs_kl_warmup = n_steps_kl_warmup, n_epochs_kl_warmup
        self.max_kl_weight, self.min_kl_weight = max_kl_weight, min_kl_weight
        self.reduce_lr_on_plateau, self.lr_scheduler_metric = reduce_lr_on_plateau, lr_scheduler_metric
        self.lr_factor, self.lr_patience, self.lr_threshold, self.lr_min = lr_factor, lr_patience, lr_threshold, lr_min
        self.lr_warmup_fraction = lr_warmup_fraction
        self.dispersion_lr_factor, self.batch_norm_momentum = dispersion_lr_factor, batch_norm_momentum
        self._is_compiled = compile
        self.on_step, self.on_epoch, self.by_step_and_epoch = on_step, on_epoch, bool(on_step and on_epoch)
        self.loss_kwargs = dict(loss_kwargs)
        self._loss_args = _check_loss_kwargs(module, loss_kwargs)
        self._n_obs_training: int | None = None
        if "kl_weight" in self._loss_args:  # from the start: plans of others renew it only where they find it
            self.loss_kwargs["kl_weight"] = self.kl_weight
        self.initialize_train_metrics()
        self.initialize_val_metrics()

    def initialize_train_metrics(self) -> None:
        """Metric objects of the training split; kept for plans that fill them themselves."""
        self.train_metrics: dict[str, ElboMetric] | EpochMetrics = self.train_epoch_metrics

    def initialize_val_metrics(self) -> None:
        """Metric objects of the validation split; kept for plans that fill them themselves."""
        self.val_metrics: dict[str, ElboMetric] | EpochMetrics = self.validation_epoch_metrics

    @property
    def n_obs_training(self) -> int | None:  # type: ignore[override]
        """Observations of the training split; ``module.loss`` gets them as ``n_obs`` where it has that argument."""
        return self._n_obs_training

    @n_obs_training.setter
    def n_obs_training(self, n_obs: int | None) -> None:
        self._n_obs_training = n_obs
        if "n_obs" in self._loss_args and n_obs is not None:
            self.loss_kwargs["n_obs"] = n_obs

    @property
    def kl_weight(self) -> float:  # type: ignore[override]
        """KL weight of the current step."""
        return schedules.kl_weight(
            self.current_epoch,
            self.global_step,
            self.n_epochs_kl_warmup,
            self.n_steps_kl_warmup,
            self.max_kl_weight,
            self.min_kl_weight,
            self.kl_warmup_begins_at,
        )

    @property
    def kl_warmup_epochs(self) -> int:  # type: ignore[override]
        """Epochs until the KL weight is at its maximum, rounded up."""
        if self.n_epochs_kl_warmup:
            return self.n_epochs_kl_warmup
        steps_an_epoch = max(1, self.trainer.num_training_batches or 1)
        return -(-(self.n_steps_kl_warmup or 0) // steps_an_epoch)

    def on_train_start(self) -> None:
        """Forget how many minibatches the running means have seen: weights may have been put back since."""
        super().on_train_start()
        self._running_means = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Pass a minibatch through the module."""
        with self._keeping_up():
            return self.module(*args, **kwargs)

    def _keeping_up(self) -> AbstractContextManager[None]:
        if self.batch_norm_momentum is None or self._is_compiled or not self.training:
            return nullcontext()  # compiled code takes the momentum for fixed
        if self._running_means is None:
            self._running_means = RunningMeans(self.module, self.batch_norm_momentum)
        return self._running_means.keeping_up()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one minibatch under the current KL weight."""
        self.begin_step()
        loss_output = self._loss_output(batch)
        if self.on_step:
            self.step_values["train_loss"] = loss_output.loss.detach()
        self.compute_and_log_metrics(loss_output, self.train_metrics, "train")
        return loss_output.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Metrics of one minibatch, with the KL weight of the last training step."""
        loss_output = self._loss_output(batch)
        if self.by_step_and_epoch:
            self.step_values["validation_loss"] = loss_output.loss.detach()
        self.compute_and_log_metrics(loss_output, self.val_metrics, "validation")

    def begin_step(self) -> None:
        """Renew the KL weight."""
        if "kl_weight" in self._loss_args:
            self.loss_kwargs["kl_weight"] = self.kl_weight

    def numbers(self) -> dict[str, float]:
        """The KL weight, for losses that have one."""
        return {name: value for name, value in self.loss_kwargs.items() if name == "kl_weight"}

    def form(self) -> Hashable | None:
        """None until the running means have settled: before, each minibatch moves them by a part of its own."""
        paced = self.training and self.batch_norm_momentum is not None and not self._is_compiled
        return None if paced and (self._running_means is None or not self._running_means.are_settled) else ()

    def arguments_of_loss(self) -> dict[str, Any]:
        """What ``module.loss`` is given beside the minibatch."""
        return {name: self.on_device.get(name, value) for name, value in self.loss_kwargs.items()}

    def _passed(self, batch: Any) -> tuple[Any, LossOutput]:
        """What is encoded of a minibatch, and its record."""
        outputs, _, record = self.forward(batch, loss_kwargs=self.arguments_of_loss())
        return outputs, record

    def _loss_output(self, batch: Any) -> LossOutput:
        _, self.last_loss_output = self._passed(batch)
        return self.last_loss_output

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: object, mode: str) -> None:
        """Add a minibatch to the epoch's sums.

        Parameters
        ----------
        loss_output
            Record of the minibatch.
        metrics
            The split's metrics as made by :meth:`initialize_train_metrics`; celbo's own sums serve whatever is passed.
        mode
            ``"train"`` or ``"validation"``.
        """
        (self.train_epoch_metrics if mode == "train" else self.validation_epoch_metrics).update(loss_output)

    def resume_state(self) -> dict[str, Any]:
        """The learning rate, which attempts change, and the KL weight that validation takes from the last step."""
        return super().resume_state() | {"lr": self.lr, "kl_weight": self.loss_kwargs.get("kl_weight")}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        super().load_resume_state(state)
        self.lr = state["lr"]
        if "kl_weight" in self.loss_kwargs:
            self.loss_kwargs["kl_weight"] = state["kl_weight"]

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the learning rate of the optimizer to be made."""
        self.lr *= factor

    def get_optimizer_creator(self) -> OptimizerCreator:
        """The function of the parameters that makes the optimizer."""
        if self.optimizer_name == "Custom":
            assert self.optimizer_creator is not None
            return self.optimizer_creator
        settings: dict[str, Any] = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        if self.optimizer_name == "Adam":
            return lambda params: Adam(params, **settings)
        return lambda params: AdamW(params, **settings)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer of the parameters that require gradients, with the schedule in Lightning's form."""
        trained = self.module.decoder if self.update_only_decoder else self.module
        optimizer = self.get_optimizer_creator()(self._parameter_groups(trained))
        config: dict[str, Any] = {"optimizer": optimizer}
        if self.reduce_lr_on_plateau:
            config["lr_scheduler"] = {"scheduler": self._plateau(optimizer), "monitor": self.lr_scheduler_metric}
        elif self.lr_schedule == "one_cycle":
            n_steps = self.trainer.estimated_stepping_batches
            rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_at(step, n_steps))
            config["lr_scheduler"] = {"scheduler": rate, "interval": "step"}
        return config

    def rate_at(self, step: int, n_steps: int) -> float:
        """Learning rate after some of the steps of a run, as a share of ``lr``."""
        return schedules.one_cycle(step, n_steps, self.lr_warmup_fraction)

    def _parameter_groups(self, trained: torch.nn.Module) -> list[Any]:
        """The parameters that may move; those with a learning rate of their own in a second group.

        Of a query whose every weight is frozen there is one group, which is empty: torch takes no empty list.
        """
        moving = {name: p for name, p in trained.named_parameters() if p.requires_grad}
        dispersions = [p for name, p in moving.items() if name.rpartition(".")[2] == _DISPERSION]
        if not dispersions or self.dispersion_lr_factor == 1 or self.optimizer_name == "Custom":
            return list(moving.values()) or [{"params": []}]
        others = [p for name, p in moving.items() if name.rpartition(".")[2] != _DISPERSION]
        return [{"params": others}, {"params": dispersions, "lr": self.lr * self.dispersion_lr_factor}]

    def _plateau(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            patience=self.lr_patience,
            factor=self.lr_factor,
            threshold=self.lr_threshold,
            min_lr=self.lr_min,
            threshold_mode="abs",
        )


def _one_of(argument: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise ValueError(unknown_name(f"{argument} of the training plan", given, known))
    return given


def _known_optimizer(name: str, creator: OptimizerCreator | None) -> str:
    if name == "Custom" and creator is None:
        raise ValueError(
            "optimizer='Custom' needs optimizer_creator, a function of the parameters that returns an optimizer."
        )
    return _one_of("optimizer", name, ("Adam", "AdamW", "Custom"))


def _check_loss_kwargs(module: BaseModuleClass, loss_kwargs: dict[str, Any]) -> frozenset[str]:
    """Names that ``module.loss`` takes; an unknown plan keyword is refused here rather than at the first step."""
    parameters = inspect.signature(module.loss).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in loss_kwargs if name not in parameters and not takes_any]
    if unknown:
        own = [name for name in inspect.signature(TrainingPlan.__init__).parameters if name not in ("self", "module")]
        raise UnknownArgumentError.among(unknown[0], "the training plan (plan_kwargs)", [*own, *parameters])
    return frozenset(parameters)
