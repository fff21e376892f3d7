r"""Accessibility: whether a region is seen to be open, :math:`x \sim \mathrm{Bernoulli}(p\,d\,f)`.

:math:`p = \sigma(a)` is the probability that the region is open, :math:`d` a factor of the cell (its depth) and
:math:`f` one of the region. All three are kept as log-odds (:mod:`celbo.ops.accessibility`).

Dims: n cells, g regions.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from .. import ops
from ..ops.accessibility import accessibility_log_prob, accessibility_log_probs
from ..ops.random import generator_or
from .base import CountDistribution, Shape, describe, extended, joint_shape, normalized

__all__ = ["Accessibility"]


class Accessibility(CountDistribution):
    """Bernoulli distribution whose probability is a product of three.

    Parameters
    ----------
    logits
        Log-odds that a region is open, ``(..., g)``.
    depth_logits
        Log-odds of the cell's factor, ``(..., 1)``; None: 1.
    region_logits
        Log-odds of the regions' factors, ``(g,)``; None: 1.

    Notes
    -----
    Values are 0 and 1; any count above 0 is taken for 1. Arguments are not validated.
    """

    support = constraints.boolean
    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None) -> None:
        self.logits, self.depth_logits, self.region_logits = logits, depth_logits, region_logits
        given = [factor for factor in (depth_logits, region_logits) if factor is not None]
        super().__init__(joint_shape(logits, *given), validate_args=False)

    @lazy_property
    def scale(self) -> Tensor:
        """Probability that a region is open, without the factors."""
        return self.logits.sigmoid()

    @lazy_property
    def mean(self) -> Tensor:
        """Probability that a region is seen to be open."""
        return self.open_probability(cells=True, regions=True)

    @property
    def variance(self) -> Tensor:
        """Variance of the values 0 and 1."""
        return self.mean * (1 - self.mean)

    def open_probability(self, cells: bool = False, regions: bool = False) -> Tensor:
        """Probability that a region is open, times the cell's factor, the region's, or both.

        Parameters
        ----------
        cells, regions
            Which factors.
        """
        value = self.scale
        if cells and self.depth_logits is not None:
            value = value * self.depth_logits.sigmoid()
        if regions and self.region_logits is not None:
            value = value * self.region_logits.sigmoid()
        return value

    def get_normalized(self, key: str) -> Tensor:
        """Probability with the factors (``"mu"``) or without (``"scale"``)."""
        return normalized(self, key, mu=lambda: self.mean, scale=lambda: self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Zeros and ones.

        Parameters
        ----------
        sample_shape
            Shape of the sample, put before ``batch_shape``.
        generator
            Source of randomness; the one of the running training or question, else PyTorch's, when not given.

        Returns
        -------
        ``(*sample_shape, *batch_shape)``.
        """
        probability = self.mean.expand(extended(self, sample_shape))
        return torch.bernoulli(probability, generator=generator_or(generator, probability.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        return accessibility_log_prob(value, self.logits, self.depth_logits, self.region_logits)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over regions."""
        return ops.accessibility_log_prob_sum(value, self.logits, self.depth_logits, self.region_logits)

    def entropy(self) -> Tensor:
        """Entropy of each entry in nats."""
        opened, closed = accessibility_log_probs(self.logits, self.depth_logits, self.region_logits)
        return -(opened.exp() * opened + closed.exp() * closed)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        factors = (self.depth_logits, self.region_logits)
        return type(self)(
            self.logits.expand(batch_shape), *(None if one is None else one.expand(batch_shape) for one in factors)
        )

    def __repr__(self) -> str:
        return describe(self, logits=self.logits, depth_logits=self.depth_logits, region_logits=self.region_logits)
