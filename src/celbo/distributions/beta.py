r"""Beta: shares between 0 and 1, :math:`x^{\alpha-1} (1-x)^{\beta-1} / B(\alpha, \beta)`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta as TorchBeta

from ..ops.random import generator_or
from .base import Shape, describe, extended, normalized

__all__ = ["Beta"]


class Beta(TorchBeta):
    """Beta distribution whose normalized value is its mean.

    Parameters
    ----------
    concentration1, concentration0
        Alpha and beta, both > 0.
    validate_args
        Check parameters and values (``ValueError``); PyTorch's default, on, when not given.

    Notes
    -----
    A subclass of :class:`torch.distributions.Beta`, so that ``kl_divergence`` knows it. At 0 and 1 themselves the
    log-probability may be infinite: data must lie between.
    """

    def get_normalized(self, key: str) -> Tensor:
        """The mean, as ``"mu"`` and as ``"scale"``."""
        return normalized(self, key, mu=self.mean, scale=self.mean)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Numbers between 0 and 1, without gradient (``rsample`` has one).

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
        shape, generator = extended(self, sample_shape), generator_or(generator, self.concentration1.device)
        one, zero = (
            torch._standard_gamma(parameter.expand(shape), generator=generator)
            for parameter in (self.concentration1, self.concentration0)
        )
        least = torch.finfo(one.dtype).tiny
        return one / (one + zero).clamp(min=least)

    def __repr__(self) -> str:
        return describe(self, concentration1=self.concentration1, concentration0=self.concentration0)
