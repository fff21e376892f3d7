"""Density of RNA over the states that a gene may be in."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import MixtureSameFamily

__all__ = ["OfStates"]

_LOG_ROOT = math.log(2 * math.pi) / 2


class _LogOfStates(torch.autograd.Function):
    """Log-density of a mixture of normals, which keeps nothing of its own for the way back.

    Summed state by state: torch's softmax over rows of four is slow.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, *moments: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(value, *moments)
        parts = [_of_state(value, *one)[0] for one in _each_state(moments)]
        return _log_sum(parts).sub_(_LOG_ROOT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        value, *moments = ctx.saved_tensors
        found = [_of_state(value, *one) for one in _each_state(moments)]
        total = _log_sum([part for part, _ in found])
        d_share, d_mean, d_spread = (torch.empty_like(moments[0]) for _ in moments)
        for k, (part, z) in enumerate(found):
            spread = moments[2][..., k]
            weight = part.sub_(total).exp_().mul_(d_out)
            d_share[..., k] = weight
            weight.div_(spread)
            torch.mul(weight, z, out=d_mean[..., k])
            torch.mul(weight, z.square_().sub_(1), out=d_spread[..., k])
        return None, d_share, d_mean, d_spread


def _each_state(moments: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Log share, mean and standard deviation of each state."""
    return list(zip(*(moment.unbind(-1) for moment in moments), strict=True))


def _of_state(value: Tensor, share: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Log-density of one state but for a constant, and the standardized value."""
    z = (value - mean).div_(spread)
    return z.square().mul_(-0.5).add_(share).sub_(spread.log()), z


def _log_sum(parts: list[Tensor]) -> Tensor:
    most = functools.reduce(torch.maximum, parts)
    return functools.reduce(torch.add, [(part - most).exp_() for part in parts]).log_().add_(most)


class OfStates(MixtureSameFamily):
    """Mixture over the states of a gene."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of RNA, ``(..., n, g)``, in nats."""
        normal: Any = self.component_distribution
        return _LogOfStates.apply(value, self.mixture_distribution.logits, normal.loc, normal.scale)
