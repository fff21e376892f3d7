"""``scvi.distributions._utils`` and functions of ``scvi.distributions._negative_binomial``."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...ops import elementwise

__all__ = [
    "DistributionConcatenator",
    "_convert_counts_logits_to_mean_disp",
    "_convert_mean_disp_to_counts_logits",
    "log_mixture_nb",
    "log_nb_positive",
    "log_zinb_positive",
    "subset_distribution",
]


def log_nb_positive(x: Tensor, mu: Tensor, theta: Tensor, eps: float = 1e-8, **kwargs: Any) -> Tensor:
    """Log-probability of counts under the negative binomial; ``eps`` is not needed."""
    return elementwise.nb_log_prob(x, mu, theta)


def log_zinb_positive(x: Tensor, mu: Tensor, theta: Tensor, pi: Tensor, eps: float = 1e-8, **kwargs: Any) -> Tensor:
    """Log-probability under the zero-inflated negative binomial; ``pi`` are the logits of a dropout."""
    return elementwise.zinb_log_prob(x, mu, theta, pi)


def log_mixture_nb(
    x: Tensor,
    mu_1: Tensor,
    mu_2: Tensor,
    theta_1: Tensor,
    theta_2: Tensor | None,
    pi_logits: Tensor,
    eps: float = 1e-8,
    **kwargs: Any,
) -> Tensor:
    """Log-probability under a mixture of two negative binomials."""
    second = theta_1 if theta_2 is None else theta_2
    return elementwise.nb_mixture_log_prob(x, mu_1, mu_2, theta_1, second, pi_logits)


def _convert_mean_disp_to_counts_logits(mu: Tensor, theta: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Total count and logits in torch's form of the negative binomial."""
    return theta, torch.log(mu + eps) - torch.log(theta + eps)


def _convert_counts_logits_to_mean_disp(total_count: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse dispersion of the negative binomial in torch's form."""
    return logits.exp() * total_count, total_count


def _parameters(distribution: Distribution) -> dict[str, Any]:
    """The tensors a distribution was made of, by the names of its constructor."""
    given = {name: getattr(distribution, name, None) for name in distribution.arg_constraints}
    return {name: value for name, value in given.items() if isinstance(value, Tensor)}


def subset_distribution(my_distribution: Distribution, index: Tensor, dim: int = 0) -> Distribution:
    """The same distribution of some observations only."""
    parts: dict[str, Any] = {
        name: value.index_select(dim, index) for name, value in _parameters(my_distribution).items()
    }
    return type(my_distribution)(**parts)


class DistributionConcatenator:
    """Gathers the distributions of minibatches into one."""

    def __init__(self) -> None:
        self._cls: type[Distribution] | None = None
        self._parts: dict[str, list[Tensor]] = {}

    def store_distribution(self, dist: Distribution) -> None:
        """Add a minibatch's distribution.

        Raises
        ------
        TypeError
            It is of another family than the ones before.
        """
        if self._cls is not None and type(dist) is not self._cls:
            raise TypeError(f"Distributions of one family are wanted: {self._cls.__name__}, got {type(dist).__name__}.")
        self._cls = type(dist)
        for name, value in _parameters(dist).items():
            self._parts.setdefault(name, []).append(value.cpu())

    def get_concatenated_distributions(self, axis: int = 0) -> Distribution:
        """One distribution of all observations, in the order they came; a ``ValueError`` where none was stored."""
        if self._cls is None:
            raise ValueError("No distribution was stored.")
        joined: dict[str, Any] = {name: torch.cat(parts, axis) for name, parts in self._parts.items()}
        return self._cls(**joined)
