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
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from ..ops.elementwise import log_gamma_ratio
from ..ops.random import generator_or
from .base import CountDistribution, Shape, describe, extended, normalized
from .beta_binomial import BetaBinomial

__all__ = ["Methylation"]

_SMALLEST = 1e-8
"""Smallest concentration of a beta-binomial, that of scvi-tools."""


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

    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, gamma_logits: Tensor | None = None, total_count: Tensor | None = None) -> None:
        self.logits, self.gamma_logits, self._total_count = logits, gamma_logits, total_count
        given = [one.shape for one in (logits, gamma_logits, total_count) if one is not None]
        super().__init__(torch.broadcast_shapes(*given), validate_args=False)

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
        return normalized(self, key, mu=self.mean if key == "mu" else None, scale=self.scale)

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
            alpha, beta = _concentrations(self.logits, self.gamma_logits)
            return BetaBinomial(self.total_count, alpha, beta).sample(sample_shape, generator=generator)
        generator = generator_or(generator, self.logits.device)
        return torch.binomial(self.total_count.expand(shape), self.scale.expand(shape), generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        return _log_prob(value, self.total_count, self.logits, self.gamma_logits)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over regions; those without reads are passed over, but on a GPU.

        To count them there would make the host wait at each step.
        """
        if value.is_cuda:
            return super().log_prob_sum(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape)
        covered = self.total_count.expand(shape).reshape(-1).nonzero().squeeze(-1)
        row, column = covered.div(shape[-1], rounding_mode="floor"), covered % shape[-1]

        def picked(table: Tensor) -> Tensor:
            by_column = table.dim() == 1
            return table[column] if by_column else table.expand(shape).reshape(-1)[covered]

        gamma = None if self.gamma_logits is None else picked(self.gamma_logits)
        entries = _log_prob(picked(value), picked(self.total_count), picked(self.logits), gamma)
        sums = entries.new_zeros(shape[:-1].numel()).index_add(0, row, entries)
        return sums.view(shape[:-1])

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        others = (self.gamma_logits, self._total_count)
        repeated = (None if one is None else one.expand(batch_shape) for one in others)
        return type(self)(self.logits.expand(batch_shape), *repeated)

    def __repr__(self) -> str:
        return describe(self, logits=self.logits, gamma_logits=self.gamma_logits, total_count=self._total_count)


def _concentrations(logits: Tensor, gamma_logits: Tensor) -> tuple[Tensor, Tensor]:
    size = (-gamma_logits).exp()
    return logits.sigmoid() * size, (-logits).sigmoid() * size


def _log_prob(value: Tensor, total: Tensor, logits: Tensor, gamma_logits: Tensor | None) -> Tensor:
    if gamma_logits is not None:
        return BetaBinomial(total, *_concentrations(logits, gamma_logits), eps=_SMALLEST).log_prob(value)
    failures = total - value
    ways = log_gamma_ratio(failures.clamp(min=0), value + 1) - torch.lgamma(failures.clamp(min=0) + 1)
    log_prob = ways + value * F.logsigmoid(logits) + failures * F.logsigmoid(-logits)
    return torch.where(failures < 0, -torch.inf, log_prob)
