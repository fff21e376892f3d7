r"""Numbers whose logarithm is normal: :math:`\log x` or :math:`\log(1 + x)`, and with added zeros."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from .positive import PositiveDistribution, ZeroInflation

__all__ = ["Log1pNormal", "LogNormal", "ZeroInflatedLogNormal"]


def _log_density(log_value: Tensor, mu: Tensor, sd: Tensor) -> Tensor:
    """Normal log-density of a logarithm."""
    return -0.5 * ((log_value - mu) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)


def _normal(mu: Tensor, sd: Tensor, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    return torch.normal(mu.expand(shape), sd.expand(shape), generator=generator)


class LogNormal(PositiveDistribution):
    """Log-normal distribution.

    Parameters
    ----------
    mu
        Mean of the logarithm.
    scale
        Standard deviation > 0 of the logarithm.
    normal_mu
        Normalized value, only carried for :meth:`get_normalized`.
    validate_args
        Check parameters (``ValueError``).
    """

    arg_constraints = {"mu": constraints.real, "scale": constraints.positive}
    _CARRIED = "normal_mu"

    def __init__(self, mu: Tensor, scale: Tensor, normal_mu: Tensor | None = None, validate_args: bool = False) -> None:
        super().__init__(normal_mu, validate_args, mu=mu, scale=scale)

    mu: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        r""":math:`e^{\mu + \sigma^2 / 2}`."""
        return (self.mu + 0.5 * self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        r""":math:`(e^{\sigma^2} - 1)\, e^{2 \mu + \sigma^2}`."""
        return self.scale.square().expm1() * (2 * self.mu + self.scale.square()).exp()

    def _inside(self, value: Tensor) -> Tensor:
        log_value = value.log()
        return _log_density(log_value, self.mu, self.scale) - log_value

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return _normal(self.mu, self.scale, shape, generator).exp()


class ZeroInflatedLogNormal(ZeroInflation, LogNormal):
    """Log-normal distribution with added zeros.

    Parameters
    ----------
    mu, scale, normal_mu, validate_args
        As of :class:`LogNormal`.
    zi_logits
        Log-odds of an added zero.
    """

    arg_constraints = LogNormal.arg_constraints | {"zi_logits": constraints.real}

    def __init__(
        self,
        mu: Tensor,
        scale: Tensor,
        zi_logits: Tensor,
        normal_mu: Tensor | None = None,
        validate_args: bool = False,
    ) -> None:
        PositiveDistribution.__init__(self, normal_mu, validate_args, mu=mu, scale=scale, zi_logits=zi_logits)


class Log1pNormal(PositiveDistribution):
    r"""Numbers whose :math:`\log(1 + x)` is normal.

    Parameters
    ----------
    mu
        Mean of the logarithm.
    sigma
        Standard deviation > 0 of the logarithm.
    scale
        Normalized value, only carried for :meth:`get_normalized`.
    validate_args
        Check parameters (``ValueError``).

    Notes
    -----
    The density is that of numbers above -1: it is no truncated one, so zeros have a finite density too.
    """

    arg_constraints = {"mu": constraints.real, "sigma": constraints.positive}
    support = constraints.greater_than(-1.0)

    def __init__(self, mu: Tensor, sigma: Tensor, scale: Tensor | None = None, validate_args: bool = False) -> None:
        super().__init__(scale, validate_args, mu=mu, sigma=sigma)

    mu: Tensor
    sigma: Tensor

    @property
    def mean(self) -> Tensor:
        r""":math:`e^{\mu + \sigma^2 / 2} - 1`."""
        return (self.mu + 0.5 * self.sigma.square()).expm1()

    @property
    def variance(self) -> Tensor:
        r""":math:`(e^{\sigma^2} - 1)\, e^{2 \mu + \sigma^2}`."""
        return self.sigma.square().expm1() * (2 * self.mu + self.sigma.square()).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``-inf`` for numbers of -1 or less."""
        is_inside = value > -1
        log_value = torch.where(is_inside, value, 0.0).log1p()
        return torch.where(is_inside, _log_density(log_value, self.mu, self.sigma) - log_value, -torch.inf)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return _normal(self.mu, self.sigma, shape, generator).expm1()
