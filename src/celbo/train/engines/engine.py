"""Where a run computes: one process on the CPU needs nothing but torch."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..plans.base import Plan
from .graphs import Graphs

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

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0

    def place(self, plan: Plan) -> torch.nn.Module:
        """Put a plan on the device, wrap its module where needed, and return the bare module."""
        plan.to(self.device)
        return plan.module

    def computing(self) -> AbstractContextManager[None]:
        """The block in which a run computes."""
        return nullcontext()

    def graphs(self) -> Graphs | None:
        """What records steps on the device, where something does."""
        return None

    def release(self, raw: torch.nn.Module) -> None:
        """Give a module back as it came."""

    def set_up_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Let strategy and precision into the optimizers."""
        return optimizers

    def to_device(self, batch: object) -> Any:
        """Move a minibatch."""
        return batch

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass."""
        loss.backward(**kwargs)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average over the processes the gradients that no strategy averages: of parameters beside the module."""

    @property
    def holds_all_weights(self) -> bool:
        """Whether each process has the whole module."""
        return True

    def gather(self, value: object) -> list[Any]:
        """What each process has, by rank; in all processes."""
        return [value]

    def any_process(self, flag: bool) -> bool:
        """Whether a flag is set in one process at least; in all processes."""
        return flag

    def agree_on_buffers(self, raw: torch.nn.Module) -> None:
        """Give all processes the first one's running means, before they look at validation data."""

    def precision_state(self) -> dict[str, Any]:
        """What reduced precision keeps from step to step (the loss scale)."""
        return {}

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Put it back."""
