"""Optimizers and learning-rate schedules as a plan returns them, in one shape for the loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .metrics import find_metric

__all__ = ["SchedulerLink", "parameters_of", "unpack_optimizers"]


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


def unpack_optimizers(configured: Any) -> tuple[list[torch.optim.Optimizer], list[SchedulerLink]]:
    """What ``configure_optimizers`` returned, as lists.

    Parameters
    ----------
    configured
        An optimizer; a dict with ``optimizer`` and ``lr_scheduler``; a list of either; or ``(optimizers, schedulers)``.
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
