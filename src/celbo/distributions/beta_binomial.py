r"""Beta-binomial: successes out of a known number of trials, with a success probability that varies.

.. math:: \mathrm{BB}(x; N, \alpha, \beta) = \binom{N}{x} \frac{B(x + \alpha, N - x + \beta)}{B(\alpha, \beta)}
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from ..ops.methylation import beta_binomial_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, describe, extended

__all__ = ["BetaBinomial"]


class BetaBinomial(CountDistribution):
    r"""Beta-binomial, by the two concentrations or by mean and dispersion.

    Parameters
    ----------
    total_count
        Number of trials :math:`N`, integers >= 0.
    alpha, beta
        Concentrations > 0 of successes and failures.
    mu, gamma
        Mean and dispersion of the success probability, both in (0, 1):
        :math:`\alpha = \mu(1-\gamma)/\gamma`, :math:`\beta = (1-\mu)(1-\gamma)/\gamma`.
    validate_args
        Check parameters and, in :meth:`log_prob`, values: a ``ValueError`` for what is out of range.
    eps
        Smallest concentration.

    Raises
    ------
    ValueError
        If not exactly one of the two parameterizations is given whole; for parameters out of range when
        ``validate_args``.

    Notes
    -----
    :meth:`log_prob` is computed without the three beta functions, which cancel (:mod:`celbo.ops.methylation`). More
    successes than trials have probability 0.
    """

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "alpha": constraints.positive,
        "beta": constraints.positive,
    }
    has_enumerate_support = True

    def __init__(
        self,
        total_count: Tensor,
        alpha: Tensor | None = None,
        beta: Tensor | None = None,
        mu: Tensor | None = None,
        gamma: Tensor | None = None,
        validate_args: bool = False,
        eps: float = 1e-8,
    ) -> None:
        if validate_args:
            check_open_interval(mu=mu, gamma=gamma)
        self.mu, self.gamma = mu, gamma
        alpha, beta = concentrations(alpha, beta, mu, gamma)
        self.total_count, self.alpha, self.beta = broadcast_all(total_count, alpha, beta)
        check = validate_args and mu is None
        super().__init__(self.alpha.shape, validate_args=check)  # before the floor: a negative concentration is refused
        self.alpha, self.beta = self.alpha.clamp(min=eps), self.beta.clamp(min=eps)
        self._validate_args = validate_args

    @property
    def concentration1(self) -> Tensor:
        """Concentration of successes, ``alpha``."""
        return self.alpha

    @property
    def concentration0(self) -> Tensor:
        """Concentration of failures, ``beta``."""
        return self.beta

    @property
    def mean(self) -> Tensor:
        r""":math:`N\alpha/s`."""
        return self.total_count * (self.alpha / (self.alpha + self.beta))

    @property
    def variance(self) -> Tensor:
        r""":math:`N \frac{\alpha\beta}{s^2} \frac{s + N}{s + 1}`."""
        total = self.alpha + self.beta
        return self.mean * (self.beta / total) * ((total + self.total_count) / (total + 1))

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Numbers of successes.

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
        concentrations = torch.stack([self.alpha.expand(shape), self.beta.expand(shape)], -1)
        generator = generator_or(generator, concentrations.device)
        probs = torch._sample_dirichlet(concentrations, generator=generator)[..., 0]
        return torch.binomial(self.total_count.expand(shape), probs, generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        if self._validate_args:
            self._validate_sample(value)
        return beta_binomial_log_prob(value, self.total_count, self.alpha, self.beta)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All numbers of successes, ``(N + 1, *batch_shape)``; one number of trials only."""
        trials = int(self.total_count.max())
        if not bool((self.total_count == trials).all()):
            raise NotImplementedError("BetaBinomial.enumerate_support needs one `total_count` for all entries.")
        values = torch.arange(trials + 1, dtype=self.alpha.dtype, device=self.alpha.device)
        values = values.view(-1, *(1,) * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        trials, alpha, beta = (p.expand(batch_shape) for p in (self.total_count, self.alpha, self.beta))
        return type(self)(trials, alpha, beta, validate_args=self._validate_args, eps=0.0)

    def __repr__(self) -> str:
        return describe(self, total_count=self.total_count, alpha=self.alpha, beta=self.beta)


def concentrations(
    alpha: Tensor | None, beta: Tensor | None, mu: Tensor | None, gamma: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The two concentrations from whichever parameterization was given."""
    arguments = {"alpha": alpha, "beta": beta, "mu": mu, "gamma": gamma}
    given = {name for name, argument in arguments.items() if argument is not None}
    if given == {"alpha", "beta"}:
        return alpha, beta  # type: ignore[return-value]
    if given == {"mu", "gamma"}:
        size = (1 - gamma) / gamma  # type: ignore[operator]
        return mu * size, (1 - mu) * size  # type: ignore[operator, return-value]
    raise ValueError(
        "BetaBinomial takes `alpha` and `beta`, or `mu` and `gamma`; it was given "
        f"{', '.join(f'`{name}`' for name in arguments if name in given) or 'none of them'}. Pass one of the two pairs."
    )


def check_open_interval(**parameters: Tensor | None) -> None:
    """Refuse parameters outside (0, 1)."""
    for name, parameter in parameters.items():
        if parameter is not None and not bool(((parameter > 0) & (parameter < 1)).all()):
            low, high = parameter.min().item(), parameter.max().item()
            raise ValueError(f"BetaBinomial: `{name}` must lie in (0, 1); it reaches from {low:.4g} to {high:.4g}.")
