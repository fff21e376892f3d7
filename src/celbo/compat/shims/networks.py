"""``scvi.nn._utils`` and private names of ``scvi.nn._base_components``."""

import torch
from torch import Tensor, nn

__all__ = ["ExpActivation", "_identity"]


class ExpActivation(nn.Module):
    """Exponential as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """``exp(x)``."""
        return torch.exp(x)


def _identity(x: Tensor) -> Tensor:
    """``x``."""
    return x
