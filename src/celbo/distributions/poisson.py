r"""Poisson: counts with no dispersion beyond their mean, :math:`\mathrm{Pois}(x; r) = r^x e^{-r}/x!`.

Dims: n cells, g genes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import Poisson as TorchPoisson
from torch.distributions.utils import lazy_property

from .. import ops
from ..ops.elementwise import poisson_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, covers, describe, extended, joint_shape, normalized, sum_rows

__all__ = ["Poisson"]


class Poisson(TorchPoisson, CountDistribution):  # type: ignore[misc]  # same support, narrower type
    """Poisson distribution that carries the mean normalized over genes.

    Parameters
    ----------
    rate
        Mean >= 0. At 0 all mass is at 0.
    validate_args
        Check parameters and values (``ValueError``); PyTorch's default, on, when not given.
    scale
        Mean normalized over genes, only carried for :meth:`get_normalized`.

    Notes
    -----
    A subclass of :class:`torch.distributions.Poisson`, so that ``kl_divergence`` knows it.
    """

    scale_logits: Tensor = None  # type: ignore[assignment]  # None unless made from logits, as the following
    log_library: Tensor = None  # type: ignore[assignment]

    def __init__(self, rate: Tensor, validate_args: bool | None = None, scale: Tensor | None = None) -> None:
        self.scale = scale  # type: ignore[assignment]  # None where nobody gave one, as in scvi-tools
        super().__init__(rate, validate_args=validate_args)

    @classmethod
    def from_logits(cls, scale_logits: Tensor, log_library: Tensor) -> Self:
        r"""The distribution a decoder means: rate :math:`\ell\,\mathrm{softmax}(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits
            ``(n, g)``, normalized over genes by a softmax.
        log_library
            ``(n, 1)``, natural log of the total count :math:`\ell`; ``-inf`` for an empty cell.

        Returns
        -------
        A distribution that keeps the logits and computes ``rate`` and ``scale`` when first asked for.
        Arguments are not validated.
        """
        self = cls.__new__(cls)
        self.scale_logits, self.log_library = scale_logits, log_library
        Distribution.__init__(self, joint_shape(scale_logits, log_library), validate_args=False)
        return self

    @lazy_property
    def scale(self) -> Tensor:
        """Expected share of each gene in its cell."""
        return self.scale_logits.softmax(-1)

    @lazy_property
    def rate(self) -> Tensor:
        """Mean."""
        return self.log_library.exp() * self.scale

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``) or the ``scale`` handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=lambda: self.rate, scale=lambda: self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Counts.

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
        rate = self.rate.expand(extended(self, sample_shape))
        return torch.poisson(rate, generator=generator_or(generator, rate.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of counts in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        if self._validate_args:
            self._validate_sample(value)
        return poisson_log_prob(value, self.rate)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over genes; one fused pass where the distribution is made :meth:`from_logits`."""
        if not covers(self.scale_logits, value):
            return CountDistribution.log_prob_sum(self, value)
        return sum_rows(ops.poisson_log_prob_sum, value, self.scale_logits, self.log_library)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        scale = None if self.scale is None else self.scale.expand(batch_shape)
        return type(self)(self.rate.expand(batch_shape), validate_args=self._validate_args, scale=scale)

    def __repr__(self) -> str:
        if self.scale_logits is not None:
            return describe(self, scale_logits=self.scale_logits, log_library=self.log_library)
        return describe(self, rate=self.rate, scale=self.scale)
