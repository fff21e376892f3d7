"""Where a run computes: one process on the CPU needs nothing but torch."""

from typing import Any

import torch
from torch import Tensor

from .base import Plan

__all__ = ["Engine"]


class Engine:
    """One process on the CPU in full precision, and what the loop asks of any engine."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return True

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return 1

    def place(self, plan: Plan) -> torch.nn.Module:
        """Put a plan on the device, wrap its module where needed, and return the bare module."""
        plan.to(self.device)
        return plan.module

    def release(self, raw: torch.nn.Module) -> None:
        """Give a module back as it came."""

    def set_up_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Let strategy and precision into the optimizers."""
        return optimizers

    def to_device(self, batch: Any) -> Any:
        """Move a minibatch."""
        return batch

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass."""
        loss.backward(**kwargs)

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        return tensor
