"""PyroTrainingPlan: stochastic variational inference by Pyro, for modules of others."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from ...core import checked
from ...core.kinds import Number
from ...module.base.pyro import pyro_for
from . import schedules
from .base import Plan

__all__ = ["PyroTrainingPlan"]

_LR = 1e-3


class PyroTrainingPlan(Plan):
    """Plan that hands each minibatch to ``pyro.infer.SVI``, which takes the step by itself.

    Parameters
    ----------
    pyro_module
        The module.
    loss_fn
        An ELBO of Pyro's; None: ``pyro.infer.Trace_ELBO()``.
    optim
        An optimizer of Pyro's; None: ``pyro.optim.ClippedAdam``.
    optim_kwargs
        Arguments of that one; the learning rate is 0.001 unless it is among them.
    n_steps_kl_warmup, n_epochs_kl_warmup, max_kl_weight, min_kl_weight
        As in :class:`~celbo.train.TrainingPlan`, for models that have an argument ``kl_weight``.
    scale_elbo
        Factor of the ELBO.
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
        super().__init__()
        self.module = pyro_module
        self.n_steps_kl_warmup, self.n_epochs_kl_warmup = n_steps_kl_warmup, n_epochs_kl_warmup
        self.max_kl_weight, self.min_kl_weight = max_kl_weight, min_kl_weight
        self.scale_elbo, self.blocked = scale_elbo, list(blocked or [])
        self._dummy = torch.nn.Parameter(torch.zeros(()), requires_grad=True)  # for the loop's optimizer
        takes = inspect.signature(getattr(pyro_module.model, "forward", pyro_module.model)).parameters
        self.use_kl_weight = "kl_weight" in takes
        self.svi = self._inference(loss_fn, optim, {"lr": _LR} | (optim_kwargs or {}))

    def _inference(self, loss_fn: object, optim: object, optim_kwargs: Mapping[str, Any]) -> Any:
        infer, optimizers = (pyro_for("This training plan", f"pyro.{part}") for part in ("infer", "optim"))
        return infer.SVI(
            model=self._scaled(self.module.model),
            guide=self._scaled(self.module.guide),
            optim=optimizers.ClippedAdam(dict(optim_kwargs)) if optim is None else optim,
            loss=infer.Trace_ELBO() if loss_fn is None else loss_fn,
        )

    def _scaled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        poutine = pyro_for("This training plan", "pyro.poutine")
        if self.blocked:
            function = poutine.block(function, hide=self.blocked)
        return function if self.scale_elbo == 1 else poutine.scale(function, self.scale_elbo)

    @property
    def kl_weight(self) -> float:  # type: ignore[override]
        """KL weight of the current step."""
        warmup = (self.n_epochs_kl_warmup, self.n_steps_kl_warmup, self.max_kl_weight, self.min_kl_weight)
        return schedules.kl_weight(self.current_epoch, self.global_step, *warmup)

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = self.module._get_fn_args_from_batch(batch)
        return args, kwargs | ({"kl_weight": self.kl_weight} if self.use_kl_weight else {})

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self.module(*args, **kwargs)
