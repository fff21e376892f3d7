r"""Zero-inflated negative binomial: counts some of which are lost.

.. math:: \mathrm{ZINB}(x) = \pi\,[x = 0] + (1 - \pi)\,\mathrm{NB}(x; \mu, \theta),
          \qquad \pi = \mathrm{sigmoid}(\text{zi\_logits})

Dims: n cells, g genes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all, lazy_property

from .. import ops
from ..ops.elementwise import zinb_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, covers, describe, sum_rows
from .negative_binomial import NegativeBinomial

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Negative binomial whose counts are set to zero with probability :math:`\pi`.

    Parameters
    ----------
    total_count, probs, logits, mu, theta, scale, validate_args
        As in :class:`NegativeBinomial`; ``mu`` is the mean of the counts that are not lost.
    zi_logits
        Log-odds of an added zero. Required.

    Raises
    ------
    ValueError
        As in :class:`NegativeBinomial`; also without ``zi_logits``.

    Notes
    -----
    Unlike scvi-tools' it has the right ``batch_shape``, keeps the shape of values when ``theta`` has one dimension,
    and warns of values that are no counts only when ``validate_args``.
    """

    arg_constraints = {**NegativeBinomial.arg_constraints, "zi_logits": constraints.real}

    def __init__(
        self,
        total_count: Tensor | None = None,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        mu: Tensor | None = None,
        theta: Tensor | None = None,
        zi_logits: Tensor | None = None,
        scale: Tensor | None = None,
        validate_args: bool = False,
    ) -> None:
        if zi_logits is None:
            raise ValueError(
                "ZeroInflatedNegativeBinomial needs `zi_logits`, the log-odds of an added zero; it was given none. "
                "Pass it, or use NegativeBinomial for no added zeros."
            )
        super().__init__(total_count, probs, logits, mu, theta, scale)
        self.mu, self.theta, self.zi_logits = broadcast_all(self.mu, self.theta, zi_logits)
        CountDistribution.__init__(self, self.mu.shape, validate_args=validate_args)

    @classmethod
    def from_logits(  # type: ignore[override]
        cls, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor
    ) -> Self:
        r"""The distribution a decoder means: :math:`\mu = \ell\,\mathrm{softmax}(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits, log_library, log_theta
            As in :meth:`NegativeBinomial.from_logits`.
        zi_logits
            ``(n, g)``, log-odds of an added zero.

        Returns
        -------
        A distribution that keeps the logits and computes the rest when first asked for.
        """
        self = cls.__new__(cls)
        self.zi_logits = zi_logits
        self._keep_logits(scale_logits, log_library, log_theta, zi_logits)
        return self

    @lazy_property
    def zi_probs(self) -> Tensor:
        r"""Probability of an added zero, :math:`\pi`."""
        return self.zi_logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        r""":math:`(1 - \pi)\,\mu`."""
        return torch.sigmoid(-self.zi_logits) * self.mu

    @property
    def variance(self) -> Tensor:
        r""":math:`(1 - \pi)\,(\mu + \mu^2/\theta + \pi\mu^2)`."""
        return torch.sigmoid(-self.zi_logits) * (super().variance + self.zi_probs * self.mu**2)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Counts, as in :meth:`NegativeBinomial.sample`, some of them set to zero."""
        generator = generator_or(generator, self.zi_logits.device)
        counts = super().sample(sample_shape, generator=generator)
        uniform = torch.rand(counts.shape, dtype=counts.dtype, device=counts.device, generator=generator)
        return torch.where(uniform <= self.zi_probs, 0, counts)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of counts in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        self.warn_outside_support(value)
        return zinb_log_prob(value, self.mu, self.theta, self.zi_logits)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over genes; one fused pass where the distribution is made :meth:`from_logits`."""
        if not covers(self.scale_logits, value) or self.zi_logits.shape != self.scale_logits.shape:
            return CountDistribution.log_prob_sum(self, value)
        parameters = (self.scale_logits, self.log_library, self.log_theta, self.zi_logits)
        return sum_rows(ops.zinb_log_prob_sum, value, *parameters)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        scale = None if self.scale is None else self.scale.expand(batch_shape)
        mu, theta, zi_logits = (p.expand(batch_shape) for p in (self.mu, self.theta, self.zi_logits))
        return type(self)(mu=mu, theta=theta, zi_logits=zi_logits, scale=scale, validate_args=self._validate_args)

    def __repr__(self) -> str:
        if self.scale_logits is not None:
            return describe(self, **self._logits(), zi_logits=self.zi_logits)
        return describe(self, mu=self.mu, theta=self.theta, zi_logits=self.zi_logits, scale=self.scale)
