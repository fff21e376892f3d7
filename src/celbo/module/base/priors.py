r"""Priors of latent variables, each with the divergence of a posterior from it.

.. math:: \mathrm{KL}(q \,\|\, p) = \mathrm{E}_{z \sim q}[\log q(z) - \log p(z)],

in closed form for a normal prior, from draws for mixtures.

Dims: n cells, k latents, m mixture components, s samples.
"""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence

from ...ops.draws import randn, rsample

__all__ = ["GaussianPrior", "MogPrior", "Prior", "mixture_kl", "normal_mixture"]

_CELL_TYPE_BIAS = 10.0
_MC_SAMPLES = 30


def normal_mixture(logits: Tensor, means: Tensor, scales: Tensor) -> MixtureSameFamily:
    """Mixture of normal distributions with independent dimensions.

    Parameters
    ----------
    logits
        Of the components, ``(..., m)``.
    means, scales
        ``(..., m, k)``.

    Returns
    -------
    Distribution over ``(k,)`` of batch shape ``(...)``.
    """
    component = Independent(Normal(means, scales, validate_args=False), 1)
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), component, validate_args=False)


def mixture_kl(qz: Normal, prior: Distribution, n_samples: int = _MC_SAMPLES) -> Tensor:
    """KL divergence of a normal posterior from a prior over vectors, by Monte Carlo.

    Parameters
    ----------
    qz
        ``(n, k)``.
    prior
        Distribution over ``(k,)``, of batch shape ``(n,)`` or ``()``.
    n_samples
        Draws for each cell.

    Returns
    -------
    ``(n,)``.
    """
    z_snk = rsample(qz, (n_samples,))
    return (qz.log_prob(z_snk).sum(-1) - prior.log_prob(z_snk)).mean(0)


class Prior(nn.Module):
    """Abstract prior: :meth:`kl` gives the divergence of a posterior from it, one value a cell."""

    @abstractmethod
    def get_prior(self, *args: Any, **kwargs: Any) -> Distribution:
        """The prior itself."""

    @abstractmethod
    def kl(self, qz: Normal, *args: Any, **kwargs: Any) -> Tensor:
        """KL divergence ``(n,)`` of a posterior ``(n, k)`` from the prior."""


class GaussianPrior(Prior):
    """The standard normal prior :math:`N(0, I)`. No parameters."""

    def get_prior(self, z: Tensor, **kwargs: Any) -> Normal:
        """Standard normal of the shape of ``z``."""
        return Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)

    def kl(self, qz: Normal, **kwargs: Any) -> Tensor:
        """KL divergence ``(n,)`` in closed form."""
        return kl_divergence(qz, self.get_prior(qz.loc)).sum(-1)


class MogPrior(Prior):
    """Mixture of normal distributions with learned means, scales and weights.

    Parameters
    ----------
    n_components
        Number of components.
    n_latent
        Size of the latent space.
    celltype_bias
        Whether a cell's label adds 10 to the logit of the component of that number, so that each cell type has a
        component of its own.
    """

    def __init__(self, n_components: int, n_latent: int, celltype_bias: bool = False) -> None:
        super().__init__()
        self.n_components = n_components
        self.celltype_bias = celltype_bias
        self.prior_means = nn.Parameter(randn(n_components, n_latent))
        self.prior_log_scales = nn.Parameter(torch.zeros(n_components, n_latent) - 1.0)
        self.prior_logits = nn.Parameter(torch.zeros(n_components))

    def get_prior(self, z: Tensor, y: Tensor | None = None, **kwargs: Any) -> MixtureSameFamily:
        """The mixture.

        Parameters
        ----------
        z
            Latents, ``(n, k)``; not looked at.
        y
            Codes of the labels, ``(n, 1)`` or ``(n,)``; looked at with ``celltype_bias``.

        Returns
        -------
        Distribution over ``(k,)``, of batch shape ``(n,)`` with ``celltype_bias`` and labels, ``()`` without.
        """
        logits: Tensor = self.prior_logits
        means: Tensor = self.prior_means
        scales = self.prior_log_scales.exp() + 1e-4
        if self.celltype_bias and y is not None:
            bias_nm = _CELL_TYPE_BIAS * F.one_hot(y.reshape(-1).long(), self.n_components)
            logits = logits + bias_nm
            means, scales = means.expand(len(bias_nm), -1, -1), scales.expand(len(bias_nm), -1, -1)
        return normal_mixture(logits, means, scales)

    def kl(self, qz: Normal, labels: Tensor | None = None, **kwargs: Any) -> Tensor:
        """KL divergence ``(n,)`` from 30 draws a cell."""
        return mixture_kl(qz, self.get_prior(qz.loc, labels))
