"""A module under a strategy and a precision of Lightning Fabric, whose wrappers see nothing of its minibatches."""

from typing import Any

import torch
from torch import Tensor

from ...module.base import LossOutput

__all__ = ["FULL_PRECISION", "Placed"]

FULL_PRECISION = ("32-true", "32")
"""What Fabric calls float32 throughout."""


class _Sealed:
    """What passes Fabric's wrappers as it is: they would round counts to the precision and take records apart."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _SealedModule(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, sealed: Any) -> tuple[list[Tensor], _Sealed]:
        args, kwargs = sealed.content if isinstance(sealed, _Sealed) else sealed
        outputs = self.module(*args, **kwargs)
        # The loss is shown beside: strategies follow its graph to find the parameters that take no part.
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return [part.loss for part in parts if isinstance(part, LossOutput)], _Sealed(outputs)


class Placed(torch.nn.Module):
    """A module whose forward goes through the strategy and the precision; all else is the module's own."""

    def __init__(self, raw: torch.nn.Module, fabric: Any, seal: bool) -> None:
        super().__init__()
        self.raw, self.seal, self.fabric = raw, seal, fabric
        # Processes may have different numbers of validation minibatches: there nobody waits for the others.
        plain = fabric.strategy.precision.precision in FULL_PRECISION
        self.alone_without_gradient = fabric.world_size > 1 and (seal or plain)
        self.wrapped = fabric.setup_module(_SealedModule(raw), move_to_device=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Through the strategy, or past it where processes need not wait for each other."""
        if self.alone_without_gradient and not torch.is_grad_enabled():
            with self.fabric.autocast():
                return self.raw(*args, **kwargs)
        _, sealed = self.wrapped(_Sealed((args, kwargs)) if self.seal else (args, kwargs))
        return sealed.content

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("raw"), name)
