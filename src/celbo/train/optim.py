"""Optimizers: as a plan returns them, with their schedules, in one shape for the loop; and celbo's own Adam.

torch's optimizers import ``torch._dynamo`` when they are made and at each step, to tell a compiler that is not there
to leave them alone. That import takes a second, a sixth of a whole training on a few thousand cells.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .metrics import find_metric

__all__ = ["Adam", "AdamW", "SchedulerLink", "WithoutCompiler", "parameters_of", "unpack_optimizers"]


@dataclass(frozen=True)
class SchedulerLink:
    """A scheduler and when to step it.

    Attributes
    ----------
    scheduler
        The torch scheduler.
    interval
        ``"step"`` or ``"epoch"``.
    monitor
        Metric that a plateau scheduler reads; None for the others.
    """

    scheduler: Any
    interval: str = "epoch"
    monitor: str | None = None

    def step(self, metrics: Mapping[str, Tensor]) -> None:
        """Advance the schedule."""
        if self.monitor is None:
            self.scheduler.step()
        else:
            self.scheduler.step(float(find_metric(metrics, self.monitor, "lr_scheduler_metric")))


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters that an optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def unpack_optimizers(configured: object) -> tuple[list[torch.optim.Optimizer], list[SchedulerLink]]:
    """What ``configure_optimizers`` returned, as lists.

    Parameters
    ----------
    configured
        An optimizer; a dict with ``optimizer`` and ``lr_scheduler``; a list of either; or ``(optimizers, schedulers)``.

    Raises
    ------
    TypeError
        It returned anything else.
    """
    if isinstance(configured, torch.optim.Optimizer):
        return [configured], []
    if isinstance(configured, Mapping):
        link = configured.get("lr_scheduler")
        return [configured["optimizer"]], [] if link is None else [_link(link)]
    if isinstance(configured, tuple | list) and len(configured) == 2 and isinstance(configured[0], list):
        optimizers, schedulers = configured
        return list(optimizers), [_link(scheduler) for scheduler in schedulers]
    if isinstance(configured, tuple | list):
        pairs = [unpack_optimizers(part) for part in configured]
        return [o for optimizers, _ in pairs for o in optimizers], [s for _, links in pairs for s in links]
    raise TypeError(
        f"configure_optimizers() returned a {type(configured).__name__}; wanted an optimizer, "
        "a dict with 'optimizer' and 'lr_scheduler', or lists of them."
    )


def _link(scheduler: Any) -> SchedulerLink:
    config = dict(scheduler) if isinstance(scheduler, Mapping) else {"scheduler": scheduler}
    plateau = isinstance(config["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
    monitor = config.get("monitor", "validation_loss") if plateau else None
    return SchedulerLink(config["scheduler"], config.get("interval", "epoch"), monitor)


_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
_load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class WithoutCompiler(torch.optim.Optimizer):
    """An optimizer of torch's that does not load torch's compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take in further parameters."""
        _add_param_group(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        """Settings and moments, for a checkpoint."""
        return _state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put them back."""
        _load_state_dict(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients that the parameters have."""
        step: Any = inspect.unwrap(super().step)  # torch's, which is no method any more
        return step(self, closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero."""
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            parameter.grad = None if set_to_none else torch.zeros_like(parameter)


class Adam(WithoutCompiler, torch.optim.Adam):
    """Adam in one fused pass on weights of float precision: the numbers of ``torch.optim.Adam(fused=True)``.

    Reference: Kingma and Ba, *Adam: a method for stochastic optimization*, 2015.

    Parameters
    ----------
    params
        Parameters to train.
    lr, eps, weight_decay
        Learning rate; added to the denominator; factor of the weights in the gradient.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)


class AdamW(WithoutCompiler, torch.optim.AdamW):
    """Adam whose decay of the weights stays out of the moments: the numbers of ``torch.optim.AdamW(fused=True)``.

    Reference: Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019.

    Parameters
    ----------
    params
        Parameters to train.
    lr, eps, weight_decay
        Learning rate; added to the denominator; share of the weights, times the rate, that a step takes away.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)
