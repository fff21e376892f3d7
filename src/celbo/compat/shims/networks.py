"""``scvi.nn._utils`` and private names of ``scvi.nn._base_components``."""

from torch import Tensor

from ...nn.totalvi import ExpActivation

__all__ = ["ExpActivation", "_identity"]


def _identity(x: Tensor) -> Tensor:
    """``x``."""
    return x
