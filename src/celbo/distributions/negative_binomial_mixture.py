r"""Mixture of two negative binomials: background and foreground of a protein's counts.

.. math:: w\,\mathrm{NB}(x; \mu_1, \theta_1) + (1 - w)\,\mathrm{NB}(x; \mu_2, \theta_2),
          \qquad w = \mathrm{sigmoid}(\text{mixture\_logits})
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all, lazy_property

from ..ops import nb_mixture_log_prob_sum
from ..ops.elementwise import nb_mixture_log_prob
from ..ops.random import generator_or
from .base import CountDistribution, Shape, describe, normalized
from .negative_binomial import NegativeBinomial

__all__ = ["NegativeBinomialMixture"]


class NegativeBinomialMixture(CountDistribution):
    """Two negative binomials, the first with weight ``sigmoid(mixture_logits)``.

    Parameters
    ----------
    mu1, mu2
        Means >= 0 of the two components.
    theta1
        Inverse dispersion > 0 of the first component.
    mixture_logits
        Log-odds of the first component.
    theta2
        Inverse dispersion > 0 of the second component; that of the first when not given.
    validate_args
        Check parameters (``ValueError``) and, in :meth:`log_prob`, values (a warning).

    References
    ----------
    Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data with totalVI.
    """

    arg_constraints = {
        "mu1": constraints.nonnegative,
        "mu2": constraints.nonnegative,
        "theta1": constraints.nonnegative,
        "theta2": constraints.nonnegative,
        "mixture_logits": constraints.real,
    }

    def __init__(
        self,
        mu1: Tensor,
        mu2: Tensor,
        theta1: Tensor,
        mixture_logits: Tensor,
        theta2: Tensor | None = None,
        validate_args: bool = False,
    ) -> None:
        self._is_one_theta = theta2 is None or theta2 is theta1
        theta2 = theta1 if theta2 is None else theta2
        self.mu1, self.mu2, self.theta1, self.theta2, self.mixture_logits = broadcast_all(
            mu1, mu2, theta1, theta2, mixture_logits
        )
        super().__init__(self.mu1.shape, validate_args=validate_args)

    @lazy_property
    def mixture_probs(self) -> Tensor:
        """Weight of the first component."""
        return self.mixture_logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        r""":math:`w\mu_1 + (1 - w)\mu_2`."""
        return self.mixture_probs * self.mu1 + torch.sigmoid(-self.mixture_logits) * self.mu2

    @property
    def variance(self) -> Tensor:
        r""":math:`w\sigma_1^2 + (1 - w)\sigma_2^2 + w(1 - w)(\mu_1 - \mu_2)^2`."""
        weight, rest = self.mixture_probs, torch.sigmoid(-self.mixture_logits)
        within = weight * self._component(1).variance + rest * self._component(2).variance
        return within + weight * rest * (self.mu1 - self.mu2) ** 2

    def _component(self, number: int) -> NegativeBinomial:
        mu, theta = (self.mu1, self.theta1) if number == 1 else (self.mu2, self.theta2)
        return NegativeBinomial(mu=mu, theta=theta)

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``); a mixture has no scale."""
        return normalized(self, key, mu=self.mean)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Counts of one component each.

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
        weight = self.mixture_probs.expand(self._extended_shape(torch.Size(sample_shape or ())))
        generator = generator_or(generator, weight.device)
        is_first = torch.bernoulli(weight, generator=generator).bool()
        mu = torch.where(is_first, self.mu1, self.mu2)
        theta = torch.where(is_first, self.theta1, self.theta2)
        return NegativeBinomial(mu=mu, theta=theta).sample(generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of counts in nats, in the broadcast shape of ``value`` and ``batch_shape``."""
        self.warn_outside_support(value)
        return nb_mixture_log_prob(value, self.mu1, self.mu2, self.theta1, self.theta2, self.mixture_logits)

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over the last dimension; a value of NaN, which was not measured, adds nothing.

        Parameters
        ----------
        value
            Counts, ``(..., p)``.

        Returns
        -------
        Log-probabilities in nats, ``(...)``.
        """
        if not self._is_one_theta:
            return torch.where(value.isnan(), 0, self.log_prob(value.nan_to_num())).sum(-1)
        self.warn_outside_support(value.nan_to_num())
        return nb_mixture_log_prob_sum(value, self.mu1, self.mu2, self.theta1, self.mixture_logits)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        parameters = {name: parameter.expand(batch_shape) for name, parameter in self._parameters().items()}
        return type(self)(**parameters, validate_args=self._validate_args)  # type: ignore[arg-type]

    def _parameters(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.arg_constraints}

    def __repr__(self) -> str:
        return describe(self, **self._parameters())
