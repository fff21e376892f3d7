"""What the families share: how they print, how ``sample_shape`` is read, and the sum over features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..core import unknown_name

__all__ = ["CountDistribution", "Shape", "covers", "describe", "extended", "joint_shape", "normalized", "sum_rows"]

Shape: TypeAlias = torch.Size | list[int] | tuple[int, ...]


class CountDistribution(Distribution):
    """A distribution of counts, one entry a feature, that can be summed over features.

    Subclasses give ``log_prob``; those that can do better than summing it override :meth:`log_prob_sum`.
    """

    support: constraints.Constraint = constraints.nonnegative_integer

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Log-probability summed over the last dimension (the features).

        Parameters
        ----------
        value
            Counts, ``(..., g)``.

        Returns
        -------
        Log-probabilities in nats, ``(...)``.
        """
        return self.log_prob(value).sum(-1)

    def warn_outside_support(self, value: Tensor) -> None:
        """Warn, as scvi-tools does, when arguments are validated and ``value`` is no count."""
        if self._validate_args and not bool(self.support.check(value).all()):
            message = (
                "The value argument must be within the support of the distribution: "
                f"{type(self).__name__}.log_prob was given values that are not counts (integers >= 0)."
            )
            warnings.warn(message, UserWarning, stacklevel=3)


def joint_shape(*tensors: Tensor) -> torch.Size:
    """The shape that these broadcast to, as ``torch.broadcast_shapes`` says it; that loads a library of algebra."""
    return torch.broadcast_tensors(*tensors)[0].shape


def covers(scale_logits: Tensor | None, *others: Tensor) -> bool:
    """Whether logits are there, of at least two dimensions, to whose shape the others can be repeated."""
    if scale_logits is None or scale_logits.dim() < 2:
        return False
    shape = scale_logits.shape
    return all(tensor.dim() and tensor.shape[-1] == shape[-1] for tensor in others) and (
        joint_shape(scale_logits, *others) == shape
    )


def sum_rows(row_sum: Callable[..., Tensor], value: Tensor, scale_logits: Tensor, *parameters: Tensor) -> Tensor:
    """Apply a sum over features of matrices to operands with any leading dimensions.

    Parameters
    ----------
    row_sum
        A sum of :mod:`celbo.ops`, of ``(n, g)`` values and logits.
    value, *parameters
        Repeatable to the logits' shape (``log_library`` but for its last dimension); of one dimension: left as it is.
    scale_logits
        ``(..., g)``.

    Returns
    -------
    ``(...)``.
    """
    if scale_logits.dim() == 2 and value.shape == scale_logits.shape:
        return row_sum(value, scale_logits, *parameters)
    leading = scale_logits.shape[:-1]

    def rows(tensor: Tensor) -> Tensor:
        return tensor if tensor.dim() < 2 else tensor.expand(*leading, -1).reshape(-1, tensor.shape[-1])

    return row_sum(*map(rows, (value.expand_as(scale_logits), scale_logits, *parameters))).reshape(leading)


def describe(distribution: Distribution, **parameters: Tensor | None) -> str:
    """One line with the shape of every parameter that was given, or its value where it has one entry."""
    shown = {name: p for name, p in parameters.items() if p is not None}
    texts = (f"{name}: {p.item():.4g}" if p.numel() == 1 else f"{name}: {tuple(p.shape)}" for name, p in shown.items())
    return f"{type(distribution).__name__}({', '.join(texts)})"


def normalized(distribution: Distribution, key: str, **known: Tensor | Callable[[], Tensor] | None) -> Tensor:
    """The entry of ``known`` called ``key``; where it is a function, what that gives: a table is not made in vain.

    Raises
    ------
    ValueError
        If there is no such entry.
    """
    if key not in known:
        raise ValueError(unknown_name(f"normalized value of {type(distribution).__name__}", key, known))
    value = known[key]
    return value() if callable(value) else value  # type: ignore[return-value]  # None where nobody gave one


def extended(distribution: Distribution, sample_shape: Shape | None) -> torch.Size:
    """Shape of a sample."""
    return distribution._extended_shape(torch.Size(sample_shape or ()))
