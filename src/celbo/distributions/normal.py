r"""Normal: :math:`N(x; \mu, \sigma) = e^{-(x-\mu)^2/2\sigma^2} / \sqrt{2\pi\sigma^2}`."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import Normal as TorchNormal

from ..ops.random import generator_or
from .base import Shape, describe, extended, normalized

__all__ = ["Normal"]


class Normal(TorchNormal):
    """Normal distribution that carries a normalized mean.

    Parameters
    ----------
    mu
        Mean (``loc`` in PyTorch).
    scale
        Standard deviation > 0.
    validate_args
        Check parameters and values (``ValueError``); PyTorch's default, on, when not given.
    normal_mu
        Normalized mean, only carried for :meth:`get_normalized`.

    Notes
    -----
    A subclass of :class:`torch.distributions.Normal`, so that ``kl_divergence`` knows it.
    """

    def __init__(
        self, mu: Tensor, scale: Tensor, validate_args: bool | None = None, normal_mu: Tensor | None = None
    ) -> None:
        super().__init__(loc=mu, scale=scale, validate_args=validate_args)
        self.normal_mu = normal_mu

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``) or the ``normal_mu`` handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=self.loc, scale=self.normal_mu)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Real numbers, without gradient (:meth:`rsample` has one).

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
        generator = generator_or(generator, self.loc.device)
        return torch.normal(self.loc.expand(shape), self.scale.expand(shape), generator=generator)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        normal_mu = None if self.normal_mu is None else self.normal_mu.expand(batch_shape)
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return type(self)(loc, scale, validate_args=self._validate_args, normal_mu=normal_mu)

    def __repr__(self) -> str:
        return describe(self, loc=self.loc, scale=self.scale, normal_mu=self.normal_mu)
