"""What distributions of positive numbers share, and the zeros that some of them add."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..ops.random import generator_or
from .base import Shape, describe, extended, normalized

__all__ = ["PositiveDistribution", "ZeroInflation"]


class PositiveDistribution(Distribution):
    """A distribution over numbers of at least 0; its parameters are those of ``arg_constraints``.

    A subclass gives ``mean``, ``variance``, ``_inside`` (log-density of numbers above 0) and ``_draw``.

    Parameters
    ----------
    carried
        Normalized value, only kept for :meth:`get_normalized`.
    validate_args
        Check parameters (``ValueError``).
    **parameters
        The parameters, repeated to one shape.
    """

    support: constraints.Constraint = constraints.nonnegative

    def __init__(self, carried: Tensor | None, validate_args: bool | None, **parameters: Tensor) -> None:
        tensors = torch.broadcast_tensors(*parameters.values())
        for name, tensor in zip(parameters, tensors, strict=True):
            setattr(self, name, tensor)
        self._carried = carried
        super().__init__(tensors[0].shape, validate_args=validate_args)

    def _parameters(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.arg_constraints}

    def _inside(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``-inf`` for numbers of 0 or less."""
        is_inside = value > 0
        return torch.where(is_inside, self._inside(torch.where(is_inside, value, 1.0)), -torch.inf)

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``), or the value handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=lambda: self.mean, scale=self._carried)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Numbers of at least 0, without gradient.

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
        device = next(iter(self._parameters().values())).device
        return self._draw(extended(self, sample_shape), generator_or(generator, device))

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same distribution with more, repeated, entries."""
        parameters = {name: parameter.expand(batch_shape) for name, parameter in self._parameters().items()}
        carried = None if self._carried is None else self._carried.expand(batch_shape)
        return type(self)(**parameters, **{self._CARRIED: carried})  # type: ignore[arg-type]

    _CARRIED = "scale"

    def __repr__(self) -> str:
        return describe(self, **self._parameters())


class ZeroInflation(PositiveDistribution):
    r"""Zeros added to a positive distribution, before which it stands among the bases of a class.

    .. math:: p(0) = \sigma(\text{zi\_logits}), \qquad p(x) = (1 - \sigma(\text{zi\_logits}))\, f(x) \quad (x > 0)
    """

    zi_logits: Tensor

    @property
    def zi_probs(self) -> Tensor:
        """Probability of an added zero."""
        return self.zi_logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        r""":math:`(1 - \pi)\, \mu` with the mean :math:`\mu` of numbers above 0."""
        return torch.sigmoid(-self.zi_logits) * super().mean

    @property
    def variance(self) -> Tensor:
        r""":math:`(1 - \pi)\, (\sigma^2 + \pi \mu^2)`."""
        return torch.sigmoid(-self.zi_logits) * (super().variance + self.zi_probs * super().mean ** 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of a zero, log-density of all else, in nats."""
        return torch.where(
            value == 0, F.logsigmoid(self.zi_logits), F.logsigmoid(-self.zi_logits) + super().log_prob(value)
        )

    def get_normalized(self, key: str) -> Tensor:
        """The mean without the added zeros (``"mu"``), or the value handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=super().mean, scale=self._carried)

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        is_kept = torch.bernoulli(torch.sigmoid(-self.zi_logits).expand(shape), generator=generator)
        return is_kept * super()._draw(shape, generator)
