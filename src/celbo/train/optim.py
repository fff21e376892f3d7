"""Optimizers: as a plan returns them, with their schedules, in one shape for the loop; and celbo's own Adam.

torch's optimizers import ``torch._dynamo`` when they are made and at each step, to tell a compiler that is not there
to leave them alone. That import takes a second, a sixth of a whole training on a few thousand cells.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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


class _FusedOnCPU(WithoutCompiler):
    """A fused Adam whose steps on the CPU, but for the first, skip what torch asks of every parameter beforehand.

    That takes torch three times as long as the pass over the weights of 500 genes.
    """

    _pass: ClassVar[Callable[..., None]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients that the parameters have."""
        scaled = vars(self).get("grad_scale") is not None  # a scaler's, which sets it for this step
        ready = [None] if scaled or closure else [_with_moments(group, self.state) for group in self.param_groups]
        if None in ready:
            return super().step(closure)
        for group, tensors in zip(self.param_groups, ready, strict=True):
            if tensors is not None and tensors[0]:
                _fused_step(type(self)._pass, group, tensors)
        return None


def _with_moments(group: Mapping[str, Any], state: Mapping[Tensor, Mapping[str, Tensor]]) -> list[list[Tensor]] | None:
    """Parameters with a gradient, gradients, both moments and numbers of steps; None where torch must do it."""
    moved = [parameter for parameter in group["params"] if parameter.grad is not None]
    kept = [state.get(parameter) for parameter in moved]
    alike = all(parameter.is_cpu and parameter.dtype is moved[0].dtype for parameter in moved)
    if not alike or not all(kept) or group["amsgrad"] or group["maximize"] or not group["fused"]:
        return None
    of_state = [[one[name] for one in kept if one] for name in ("exp_avg", "exp_avg_sq", "step")]
    return [moved, [parameter.grad for parameter in moved if parameter.grad is not None], *of_state]


def _fused_step(one_pass: Callable[..., None], group: Mapping[str, Any], tensors: Sequence[list[Tensor]]) -> None:
    *moments, steps = tensors
    torch._foreach_add_(steps, 1)
    beta1, beta2 = group["betas"]
    settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
    one_pass(*moments, [], steps, beta1=beta1, beta2=beta2, **settings)


class Adam(_FusedOnCPU, torch.optim.Adam):
    """Adam in one fused pass on weights of float precision: the numbers of ``torch.optim.Adam(fused=True)``.

    Reference: Kingma and Ba, *Adam: a method for stochastic optimization*, 2015.

    Parameters
    ----------
    params
        Parameters to train.
    lr, eps, weight_decay
        Learning rate; added to the denominator; factor of the weights in the gradient.
    """

    _pass = torch._fused_adam_

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)


class AdamW(_FusedOnCPU, torch.optim.AdamW):
    """Adam whose decay of the weights stays out of the moments: the numbers of ``torch.optim.AdamW(fused=True)``.

    Reference: Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019.

    Parameters
    ----------
    params
        Parameters to train.
    lr, eps, weight_decay
        Learning rate; added to the denominator; share of the weights, times the rate, that a step takes away.
    """

    _pass = torch._fused_adamw_

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)
