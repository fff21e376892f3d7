r"""Methylation: how many of a region's reads are methylated.

.. math:: x \sim \mathrm{Binomial}(N, \mu), \quad \text{or} \quad
          x \sim \mathrm{BB}\bigl(N,\; \mu\tfrac{1 - \gamma}{\gamma},\; (1 - \mu)\tfrac{1 - \gamma}{\gamma}\bigr)

with :math:`N` the reads, :math:`\mu` the share of them that is expected to be methylated, and :math:`\gamma` how much
that share varies. Both are kept as log-odds: :math:`1 - \mu` and :math:`(1 - \gamma)/\gamma` then lose no digits.

Dims: n cells, g regions.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from .. import ops
from ..ops.methylation import concentrations, methylation_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, describe, extended, joint_shape, normalized
from .beta_binomial import BetaBinomial

__all__ = ["Methylation"]


class Methylation(CountDistribution):
    """Binomial or beta-binomial of reads, by log-odds.

    Parameters
    ----------
    logits
        Log-odds of a read being methylated, ``(..., g)``.
    gamma_logits
        Log-odds of the dispersion, ``(g,)`` or as ``logits``; None: binomial.
    total_count
        Reads, ``(n, g)``, repeated over leading dimensions of ``logits``; 0 where the cell has none. None: not known,
        so there is a share of methylated reads and no number of them.

    Notes
    -----
    Arguments are not validated. Of no reads none is methylated: such entries have log-probability 0, and
    :meth:`log_prob_sum` does not compute them.
    """

    arg_constraints = {"logits": constraints.real, "total_count": constraints.nonnegative_integer}

    def __init__(self, logits: Tensor, gamma_logits: Tensor | None = None, total_count: Tensor | None = None) -> None:
        self.logits, self.gamma_logits, self._total_count = logits, gamma_logits, total_count
        given = [one for one in (logits, gamma_logits, total_count) if one is not None]
        super().__init__(joint_shape(*given), validate_args=False)

    @property
    def total_count(self) -> Tensor:
        """Number of reads; a ``ValueError`` where it is not known."""
        if self._total_count is None:
            raise ValueError("This distribution was made without total_count, the reads of each region.")
        return self._total_count

    @lazy_property
    def scale(self) -> Tensor:
        """Share of reads that is expected to be methylated."""
        return self.logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        """Expected number of methylated reads."""
        return self.total_count * self.scale

    @property
    def variance(self) -> Tensor:
        r""":math:`N\mu(1 - \mu)`, times :math:`1 + (N - 1)\gamma` if shares vary."""
        binomial = self.mean * (-self.logits).sigmoid()
        if self.gamma_logits is None:
            return binomial
        return binomial * (1 + (self.total_count - 1).clamp(min=0) * self.gamma_logits.sigmoid())

    def get_normalized(self, key: str) -> Tensor:
        """Expected number of methylated reads (``"mu"``), or their share (``"scale"``)."""
        return normalized(self, key, mu=lambda: self.mean, scale=lambda: self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Numbers of methylated reads.

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
        shape = extended(self, sample_shape)
        if self.gamma_logits is not None:
            alpha, beta = concentrations(self.logits, self.gamma_logits)
            return BetaBinomial(self.total_count, alpha, beta).sample(sample_shape, generator=generator)
        generator = generator_or(generator, self.logits.device)
        return torch.binomial(self.total_count.expand(shape), self.scale.expand(shape), generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        return methylation_log_prob(value, self.total_count, self.logits, self.gamma_logits)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over regions; those without reads are passed over."""
        return ops.methylation_log_prob_sum(value, self.total_count, self.logits, self.gamma_logits)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        others = (self.gamma_logits, self._total_count)
        repeated = (None if one is None else one.expand(batch_shape) for one in others)
        return type(self)(self.logits.expand(batch_shape), *repeated)

    def __repr__(self) -> str:
        return describe(self, logits=self.logits, gamma_logits=self.gamma_logits, total_count=self._total_count)
