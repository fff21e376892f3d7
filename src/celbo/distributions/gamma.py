r"""Gamma: :math:`\beta^\alpha x^{\alpha-1} e^{-\beta x} / \Gamma(\alpha)` of positive numbers, and with added zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from .positive import PositiveDistribution, ZeroInflation

__all__ = ["Gamma", "ZeroInflatedGamma"]


class Gamma(PositiveDistribution):
    """Gamma distribution.

    Parameters
    ----------
    concentration
        Shape > 0, alpha.
    rate
        Rate > 0, beta; the mean is alpha / beta.
    scale
        Normalized mean, only carried for :meth:`get_normalized`.
    validate_args
        Check parameters (``ValueError``).
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}

    def __init__(
        self, concentration: Tensor, rate: Tensor, scale: Tensor | None = None, validate_args: bool = False
    ) -> None:
        super().__init__(scale, validate_args, concentration=concentration, rate=rate)

    concentration: Tensor
    rate: Tensor

    @property
    def mean(self) -> Tensor:
        r""":math:`\alpha / \beta`."""
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        r""":math:`\alpha / \beta^2`."""
        return self.concentration / self.rate.square()

    def _inside(self, value: Tensor) -> Tensor:
        powers = self.concentration * self.rate.log() + (self.concentration - 1) * value.log()
        return powers - self.rate * value - torch.lgamma(self.concentration)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return torch._standard_gamma(self.concentration.expand(shape), generator=generator) / self.rate


class ZeroInflatedGamma(ZeroInflation, Gamma):
    """Gamma distribution with added zeros.

    Parameters
    ----------
    concentration, rate, scale, validate_args
        As of :class:`Gamma`.
    zi_logits
        Log-odds of an added zero.
    """

    arg_constraints = Gamma.arg_constraints | {"zi_logits": constraints.real}

    def __init__(
        self,
        concentration: Tensor,
        rate: Tensor,
        zi_logits: Tensor,
        scale: Tensor | None = None,
        validate_args: bool = False,
    ) -> None:
        PositiveDistribution.__init__(
            self, scale, validate_args, concentration=concentration, rate=rate, zi_logits=zi_logits
        )
