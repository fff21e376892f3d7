"""Plans of stochastic variational inference by Pyro, for modules of others."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ...core import checked
from ...core.kinds import Number
from ...module.base.pyro import pyro_for, tell_n_obs
from . import schedules
from .base import Plan

__all__ = [
    "LowLevelPyroTrainingPlan",
    "LowLevelPyroTrainingPlanConfig",
    "PyroTrainingPlan",
    "PyroTrainingPlanConfig",
]

_LR = 1e-3


class LowLevelPyroTrainingPlan(Plan):
    """Plan whose loss is an ELBO of Pyro's that is differentiated, and whose optimizer is torch's.

    The guide has to have its parameters before: :class:`~celbo.model.base.PyroModelGuideWarmup` sees to that.

    Parameters
    ----------
    pyro_module
        The module.
    loss_fn
        An ELBO of Pyro's; None: ``pyro.infer.Trace_ELBO()``.
    optim
        A class of torch's optimizers; None: ``torch.optim.Adam``.
    optim_kwargs
        Arguments of the optimizer; the learning rate is 0.001 unless it is among them.
    n_steps_kl_warmup, n_epochs_kl_warmup, max_kl_weight, min_kl_weight
        As in :class:`~celbo.train.TrainingPlan`, for models that have an argument ``kl_weight``.
    scale_elbo
        Factor of the ELBO.
    """

    @checked
    def __init__(
        self,
        pyro_module: Any,
        loss_fn: object = None,
        optim: object = None,
        optim_kwargs: dict[str, Any] | None = None,
        n_steps_kl_warmup: int | None = None,
        n_epochs_kl_warmup: int | None = 400,
        scale_elbo: Annotated[float, Number(0, above=True)] = 1.0,
        max_kl_weight: float = 1.0,
        min_kl_weight: float = 1e-6,
    ) -> None:
        super().__init__()
        self.module = pyro_module
        self.n_steps_kl_warmup, self.n_epochs_kl_warmup = n_steps_kl_warmup, n_epochs_kl_warmup
        self.max_kl_weight, self.min_kl_weight, self.scale_elbo = max_kl_weight, min_kl_weight, scale_elbo
        self.loss_fn: Any = pyro_for("This training plan", "pyro.infer").Trace_ELBO() if loss_fn is None else loss_fn
        self.optim, self.optim_kwargs = optim, {"lr": _LR} | (optim_kwargs or {})
        self._dummy = torch.nn.Parameter(torch.zeros(()), requires_grad=True)  # a guide may have none yet
        takes = inspect.signature(getattr(pyro_module.model, "forward", pyro_module.model)).parameters
        self.use_kl_weight = "kl_weight" in takes
        self._n_obs_training: int | None = None

    @property
    def n_obs_training(self) -> int | None:  # type: ignore[override]
        """Observations of the training split; the model gets them as ``n_obs`` where it has that attribute."""
        return self._n_obs_training

    @n_obs_training.setter
    def n_obs_training(self, n_obs: int | None) -> None:
        self._n_obs_training = n_obs
        if n_obs is not None:
            tell_n_obs(self.module.model, n_obs)

    def _scaled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.scale_elbo == 1:
            return function
        return pyro_for("This training plan", "pyro.poutine").scale(function, self.scale_elbo)

    @property
    def kl_weight(self) -> float:  # type: ignore[override]
        """KL weight of the current step."""
        warmup = (self.n_epochs_kl_warmup, self.n_steps_kl_warmup, self.max_kl_weight, self.min_kl_weight)
        return schedules.kl_weight(self.current_epoch, self.global_step, *warmup)

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = self.module._get_fn_args_from_batch(batch)
        return args, kwargs | ({"kl_weight": self.kl_weight} if self.use_kl_weight else {})

    def _loss_of(self, batch: Any) -> Tensor:
        args, kwargs = self._arguments(batch)
        return self.loss_fn.differentiable_loss(
            self._scaled(self.module.model), self._scaled(self.module.guide), *args, **kwargs
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """The loss; the history gets its mean over the epoch's minibatches as ``elbo_train``."""
        loss = self._loss_of(batch)
        self.log("elbo_train", loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Mean loss of the minibatches held out, as ``elbo_validation``."""
        self.log("elbo_validation", self._loss_of(batch).detach())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimizer of all parameters that there are."""
        make: Any = torch.optim.Adam if self.optim is None else self.optim
        return make(self.parameters(), **self.optim_kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self.module(*args, **kwargs)


class PyroTrainingPlan(LowLevelPyroTrainingPlan):
    """Plan that hands each minibatch to ``pyro.infer.SVI``, which takes the step by itself.

    Parameters
    ----------
    pyro_module, loss_fn, n_steps_kl_warmup, n_epochs_kl_warmup, scale_elbo, max_kl_weight, min_kl_weight
        See :class:`LowLevelPyroTrainingPlan`.
    optim
        An optimizer of Pyro's; None: ``pyro.optim.ClippedAdam``.
    optim_kwargs
        Arguments of that one; the learning rate is 0.001 unless it is among them.
    blocked
        Sites to leave out of the loss.
    """

    automatic_optimization = False

    @checked
    def __init__(
        self,
        pyro_module: Any,
        loss_fn: object = None,
        optim: object = None,
        optim_kwargs: dict[str, Any] | None = None,
        n_steps_kl_warmup: int | None = None,
        n_epochs_kl_warmup: int | None = 400,
        scale_elbo: Annotated[float, Number(0, above=True)] = 1.0,
        blocked: list[str] | None = None,
        max_kl_weight: float = 1.0,
        min_kl_weight: float = 1e-6,
    ) -> None:
        warmup = (n_steps_kl_warmup, n_epochs_kl_warmup, scale_elbo, max_kl_weight, min_kl_weight)
        super().__init__(pyro_module, loss_fn, None, optim_kwargs, *warmup)
        self.blocked = list(blocked or [])
        infer, optimizers = (pyro_for("This training plan", f"pyro.{part}") for part in ("infer", "optim"))
        self.svi = infer.SVI(
            model=self._scaled(self.module.model),
            guide=self._scaled(self.module.guide),
            optim=optimizers.ClippedAdam(self.optim_kwargs) if optim is None else optim,
            loss=self.loss_fn,
        )

    def _scaled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.blocked:
            function = pyro_for("This training plan", "pyro.poutine").block(function, hide=self.blocked)
        return super()._scaled(function)

    def training_step(self, batch: Any, batch_idx: int) -> Mapping[str, Tensor]:
        """Take a step; the history gets the mean loss of the epoch's minibatches as ``elbo_train``."""
        args, kwargs = self._arguments(batch)
        loss = torch.as_tensor(self.svi.step(*args, **kwargs), dtype=torch.float64)
        self.log("elbo_train", loss)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Mean loss of the minibatches held out, as ``elbo_validation``."""
        args, kwargs = self._arguments(batch)
        self.log("elbo_validation", float(self.svi.evaluate_loss(*args, **kwargs)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One that moves nothing: Pyro's own takes the steps."""
        return torch.optim.Adam([self._dummy])


@checked
@dataclass
class LowLevelPyroTrainingPlanConfig:
    """Arguments of :class:`LowLevelPyroTrainingPlan`, with scvi-tools' defaults; see there."""

    loss_fn: Any | None = None
    optim: Any | None = None
    optim_kwargs: dict[str, Any] | None = None
    n_steps_kl_warmup: int | None = None
    n_epochs_kl_warmup: int | None = 400
    scale_elbo: Annotated[float, Number(0, above=True)] = 1.0

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return dict(vars(self))


@checked
@dataclass
class PyroTrainingPlanConfig(LowLevelPyroTrainingPlanConfig):
    """Arguments of :class:`PyroTrainingPlan`, with scvi-tools' defaults; see there."""

    blocked: list[str] | None = None
