r"""Contrasts of target cells with background cells: minibatches, and what keeps two kinds of latents apart.

Dims: n cells, k latents.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributions import Normal, kl_divergence

__all__ = ["KINDS", "Pair", "missed", "squared_distance_from_zero"]

Pair = Mapping[str, Mapping[str, Any]]
"""Something of background cells and of as many target cells."""

KINDS = ("background", "target")


def squared_distance_from_zero(q: Normal) -> Tensor:
    """Expected squared distance of draws from 0, ``(n,)``."""
    return q.loc.square().sum(-1) + q.scale.square().sum(-1)


def missed(known: Normal, found: Normal) -> Tensor:
    """KL divergence of what an encoder finds from latents that are known, which get no gradient, ``(n,)``."""
    fixed = Normal(known.loc.detach(), known.scale.detach(), validate_args=False)
    return kl_divergence(fixed, found).sum(-1)
