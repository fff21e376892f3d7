r"""Negative binomial: the distribution of a gene's counts given its mean. Zero-inflated, some of them are lost.

.. math:: \mathrm{NB}(x; \mu, \theta) = \frac{\Gamma(x+\theta)}{\Gamma(\theta)\,x!}
          \left(\frac{\theta}{\theta+\mu}\right)^{\theta} \left(\frac{\mu}{\theta+\mu}\right)^{x},
          \qquad \mathrm{Var}\,x = \mu + \mu^2/\theta

.. math:: \mathrm{ZINB}(x) = \pi\,[x = 0] + (1 - \pi)\,\mathrm{NB}(x; \mu, \theta),
          \qquad \pi = \mathrm{sigmoid}(\text{zi\_logits})

Dims: n cells, g genes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all, lazy_property

from .. import ops
from ..ops.elementwise import nb_log_prob, zinb_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, covers, describe, extended, joint_shape, normalized, sum_rows

__all__ = ["NegativeBinomial", "ZeroInflatedNegativeBinomial"]

MAX_RATE = 1e8  # torch.poisson counts in float32 and hangs at rates far above


class NegativeBinomial(CountDistribution):
    r"""Negative binomial, by mean and inverse dispersion or by total count and success probability.

    Parameters
    ----------
    total_count
        Number of failures at which the trials end, > 0: the inverse dispersion :math:`\theta`.
        Needs ``logits`` or ``probs``.
    probs
        Positive. As in scvi-tools it is taken through a logarithm, not a logit: ``mu = probs * total_count``.
    logits
        ``mu = exp(logits) * total_count``.
    mu
        Mean >= 0. Needs ``theta``; excludes the three arguments above.
    theta
        Inverse dispersion > 0. Large values give the Poisson distribution.
    scale
        Mean normalized over genes, only carried for :meth:`get_normalized`. Made from ``mu`` with ``total_count``.
    validate_args
        Check parameters (``ValueError``) and, in :meth:`log_prob`, values (a warning).

    Raises
    ------
    ValueError
        If both parameterizations, neither, or half of one is given; for parameters out of range when ``validate_args``.

    Notes
    -----
    All parameters broadcast, and ``batch_shape`` is their common shape (in scvi-tools it is always ``()``).
    Log-probabilities have no epsilon inside the logarithms: they agree with scvi-tools' where that does not matter
    and are right where it does.

    Examples
    --------
    >>> NegativeBinomial(mu=torch.tensor([1.0, 2.0]), theta=torch.tensor(3.0)).variance
    tensor([1.3333, 3.3333])
    """

    arg_constraints = {"mu": constraints.nonnegative, "theta": constraints.nonnegative}

    scale_logits: Tensor = None  # type: ignore[assignment]  # None unless made from logits, as the following
    log_library: Tensor = None  # type: ignore[assignment]
    log_theta: Tensor = None  # type: ignore[assignment]

    def __init__(
        self,
        total_count: Tensor | None = None,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        mu: Tensor | None = None,
        theta: Tensor | None = None,
        scale: Tensor | None = None,
        validate_args: bool = False,
    ) -> None:
        mu, theta = mean_and_theta(type(self).__name__, total_count, probs, logits, mu, theta)
        self.mu, self.theta = broadcast_all(mu, theta)
        scale = normalize(self.mu) if scale is None and total_count is not None else scale
        self.scale = scale  # type: ignore[assignment]  # None where nobody gave one, as in scvi-tools
        super().__init__(self.mu.shape, validate_args=validate_args)

    @classmethod
    def from_logits(cls, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor) -> Self:
        r"""The distribution a decoder means: :math:`\mu = \ell\,\mathrm{softmax}(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits
            ``(n, g)``, normalized over genes by a softmax.
        log_library
            ``(n, 1)``, natural log of the total count :math:`\ell`; ``-inf`` for an empty cell.
        log_theta
            ``(g,)``, ``(1, g)`` or ``(n, g)``, natural log of the inverse dispersion.

        Returns
        -------
        A distribution that keeps the logits: ``mu``, ``theta`` and ``scale`` are computed when first asked for, and
        :meth:`log_prob_sum` never needs them.
        """
        self = cls.__new__(cls)
        self._keep_logits(scale_logits, log_library, log_theta)
        return self

    def _keep_logits(self, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, *others: Tensor) -> None:
        self.scale_logits, self.log_library, self.log_theta = scale_logits, log_library, log_theta
        parameters = (scale_logits, log_library, log_theta, *others)
        Distribution.__init__(self, joint_shape(*parameters), validate_args=False)

    @lazy_property
    def scale(self) -> Tensor:
        """Expected share of each gene in its cell."""
        return self.scale_logits.softmax(-1)

    @lazy_property
    def mu(self) -> Tensor:
        """Mean."""
        return (self.log_library.exp() * self.scale).expand(self.batch_shape)

    @lazy_property
    def theta(self) -> Tensor:
        """Inverse dispersion."""
        return self.log_theta.exp().expand(self.batch_shape)

    @property
    def mean(self) -> Tensor:
        r""":math:`\mu`."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        r""":math:`\mu + \mu^2/\theta`."""
        return self.mu + self.mu * (self.mu / self.theta)

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``) or the ``scale`` handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=lambda: self.mu, scale=lambda: self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        r"""Counts: :math:`x \sim \mathrm{Poisson}(w)`, :math:`w \sim \Gamma(\theta, \theta/\mu)`.

        Parameters
        ----------
        sample_shape
            Shape of the sample, put before ``batch_shape``.
        generator
            Source of randomness; the one of the running training or question, else PyTorch's, when not given.

        Returns
        -------
        ``(*sample_shape, *batch_shape)``. Rates above 1e8 are cut there.
        """
        shape = extended(self, sample_shape)
        generator = generator_or(generator, self.theta.device)
        gamma = torch._standard_gamma(self.theta.expand(shape), generator=generator)
        rate = gamma / (self.theta / self.mu)
        return torch.poisson(rate.clamp(max=MAX_RATE), generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of counts in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        self.warn_outside_support(value)
        return nb_log_prob(value, self.mu, self.theta)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over genes; one fused pass where the distribution is made :meth:`from_logits`."""
        if not covers(self.scale_logits, value):
            return super().log_prob_sum(value)
        return sum_rows(ops.nb_log_prob_sum, value, self.scale_logits, self.log_library, self.log_theta)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        scale = None if self.scale is None else self.scale.expand(batch_shape)
        mu, theta = self.mu.expand(batch_shape), self.theta.expand(batch_shape)
        return type(self)(mu=mu, theta=theta, scale=scale, validate_args=self._validate_args)

    def __repr__(self) -> str:
        if self.scale_logits is not None:
            return describe(self, **self._logits())
        return describe(self, mu=self.mu, theta=self.theta, scale=self.scale)

    def _logits(self) -> dict[str, Tensor | None]:
        return {"scale_logits": self.scale_logits, "log_library": self.log_library, "log_theta": self.log_theta}


def mean_and_theta(
    family: str,
    total_count: Tensor | None,
    probs: Tensor | None,
    logits: Tensor | None,
    mu: Tensor | None,
    theta: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Mean and inverse dispersion from whichever of the two parameterizations was given."""
    arguments = {"total_count": total_count, "probs": probs, "logits": logits, "mu": mu, "theta": theta}
    given = {name for name, argument in arguments.items() if argument is not None}
    if given == {"mu", "theta"}:
        return mu, theta  # type: ignore[return-value]
    if given == {"total_count", "logits"}:
        return logits.exp() * total_count, total_count  # type: ignore[union-attr, operator, return-value]
    if given == {"total_count", "probs"}:
        return probs * total_count, total_count  # type: ignore[operator, return-value]
    raise ValueError(
        f"{family} takes `mu` and `theta`, or `total_count` and one of `logits` and `probs`; it was given "
        f"{', '.join(f'`{name}`' for name in arguments if name in given) or 'none of them'}. Pass one of the two sets."
    )


def normalize(mu: Tensor) -> Tensor:
    """Means divided by their sum over genes."""
    return mu / mu.sum(-1, keepdim=True)


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
    _zi_logits: Callable[[], Tensor]

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
        cls, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor | Callable[[], Tensor]
    ) -> Self:
        r"""The distribution a decoder means: :math:`\mu = \ell\,\mathrm{softmax}(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits, log_library, log_theta
            As in :meth:`NegativeBinomial.from_logits`.
        zi_logits
            ``(n, g)``, log-odds of an added zero; or a function that computes them, called when they are asked for.

        Returns
        -------
        A distribution that keeps the logits and computes the rest when first asked for.
        """
        self = cls.__new__(cls)
        if callable(zi_logits):
            self._zi_logits = zi_logits
            self._keep_logits(scale_logits, log_library, log_theta)
        else:
            self.zi_logits = zi_logits
            self._keep_logits(scale_logits, log_library, log_theta, zi_logits)
        return self

    @cached_property  # and not torch's, which would record a graph
    def zi_logits(self) -> Tensor:
        """Log-odds of an added zero."""
        return self._zi_logits()

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
