r"""Priors of latent variables, each with the divergence of a posterior from it.

.. math:: \mathrm{KL}(q \,\|\, p) = \mathrm{E}_{z \sim q}[\log q(z) - \log p(z)],

in closed form for a normal prior, from draws for mixtures.

Dims: n cells, k latents, m mixture components, s samples.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence

from ...ops.draws import randn, rsample

__all__ = [
    "GaussianPrior",
    "MogPrior",
    "NormalMixture",
    "Prior",
    "VampPrior",
    "labelled_mixture",
    "mixture_kl",
    "normal_mixture",
]

_CELL_TYPE_BIAS = 10.0
_MC_SAMPLES = 30


class NormalMixture(MixtureSameFamily):
    r"""Mixture of normal distributions with independent dimensions, the same components for all cells.

    .. math:: \log N(z; \mu_m, \sigma_m) = -\tfrac12 \sum_k z_k^2 / \sigma_{mk}^2
              + \sum_k z_k \mu_{mk} / \sigma_{mk}^2 + c_m

    are two matrix products, in float64, which forgives the difference of large squares; a table of cells by components
    by dimensions is never made.

    Parameters
    ----------
    logits
        Of the components, ``(m,)``, or of each cell, ``(n, m)``.
    means, scales
        ``(m, k)``.
    """

    def __init__(self, logits: Tensor, means: Tensor, scales: Tensor) -> None:
        self.means, self.scales = means, scales
        shape = (*logits.shape, means.shape[-1])
        component = Independent(Normal(means.expand(shape), scales.expand(shape), validate_args=False), 1)
        super().__init__(Categorical(logits=logits, validate_args=False), component, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``(..., k)`` in nats, ``(...)``."""
        z, means_mk, precision_mk = value.double(), self.means.double(), self.scales.double().pow(-2)
        weights = torch.cat([-0.5 * precision_mk, means_mk * precision_mk], dim=1).T
        constant_m = -0.5 * (means_mk.square() * precision_mk - (precision_mk / (2 * math.pi)).log()).sum(1)
        log_p = torch.cat([z.square(), z], dim=-1) @ weights + constant_m
        return (log_p + self.mixture_distribution.logits).logsumexp(-1).to(value.dtype)


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
    if means.dim() == 2:
        return NormalMixture(logits, means, scales)
    component = Independent(Normal(means, scales, validate_args=False), 1)
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), component, validate_args=False)


def labelled_mixture(
    logits: Tensor, means: Tensor, scales: Tensor, y: Tensor | None, weight: float = _CELL_TYPE_BIAS
) -> MixtureSameFamily:
    """Mixture in which each cell's label has a component of its own: it adds to the logit of that number.

    Parameters
    ----------
    logits
        Of the components, ``(m,)``.
    means, scales
        ``(m, k)``.
    y
        Codes of the labels, ``(n, 1)`` or ``(n,)``; one beyond the components means no label. None: there are none.
    weight
        What a label adds.

    Returns
    -------
    Distribution over ``(k,)``, of batch shape ``(n,)`` with labels, ``()`` without.
    """
    if y is None:
        return normal_mixture(logits, means, scales)
    bias_nm = weight * (y.reshape(-1, 1) == torch.arange(len(logits), device=y.device))
    return NormalMixture(logits + bias_nm, means, scales)


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
        scales = self.prior_log_scales.exp() + 1e-4
        return labelled_mixture(self.prior_logits, self.prior_means, scales, y if self.celltype_bias else None)

    def kl(self, qz: Normal, labels: Tensor | None = None, **kwargs: Any) -> Tensor:
        """KL divergence ``(n,)`` from 30 draws a cell."""
        return mixture_kl(qz, self.get_prior(qz.loc, labels))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a moment. ``train`` and ``eval`` search every part's parameters for each flag that they set,
    which takes a tenth of a training step.
    """
    training = [part for part in network.modules() if part.training]
    for part in training:
        vars(part)["training"] = False
    try:
        yield
    finally:
        for part in training:
            vars(part)["training"] = True


class VampPrior(Prior):
    r"""Mixture of the posteriors of learned pseudo-inputs.

    .. math:: p(z) = \sum_m \mathrm{softmax}(w)_m\, q(z \mid u_m, c_m)

    Parameters
    ----------
    n_components
        Number of components, m.
    encoder
        The network of the posterior, ``(x, *codes, cont=...) -> Normal`` over ``(n, k)``; it is shared, not copied.
    x
        Where the pseudo-inputs begin, ``(m, g)``: what ``encoder`` sees of m cells.
    n_cat_list
        Number of categories of each categorical covariate.
    cat_list
        Codes of the pseudo-inputs for each of them, ``(m, 1)``. A code is no number to learn: they stay.
    cont
        Continuous covariates of the pseudo-inputs, ``(m, c)``, or None.
    trainable_priors
        Whether pseudo-inputs are learned, or stay where they begin.

    Raises
    ------
    ValueError
        Another number of pseudo-inputs than of components.

    Notes
    -----
    Reference: Tomczak and Welling, *VAE with a VampPrior*, AISTATS 2018. The encoder is in evaluation mode here: the
    few pseudo-inputs are no minibatch that its normalizations could learn from.
    """

    def __init__(
        self,
        n_components: int,
        encoder: nn.Module,
        x: Tensor,
        n_cat_list: Sequence[int] = (),
        cat_list: Sequence[Tensor] = (),
        cont: Tensor | None = None,
        trainable_priors: bool = True,
    ) -> None:
        super().__init__()
        if len(x) != n_components:
            raise ValueError(f"There are {len(x)} pseudo-inputs for {n_components} components: one is wanted for each.")
        self.encoder = encoder
        self.u = nn.Parameter(x.detach().clone().float(), requires_grad=trainable_priors)
        self.u_cont: nn.Parameter | None = None
        if cont is not None:
            self.u_cont = nn.Parameter(cont.detach().clone().float(), requires_grad=trainable_priors)
        self.w = nn.Parameter(torch.zeros(n_components, 1, 1))
        self.u_cat = nn.Module()
        for i, (codes, n_cat) in enumerate(zip(cat_list, n_cat_list, strict=True)):
            self.u_cat.register_buffer(str(i), F.one_hot(codes.reshape(-1).long(), n_cat).float())

    def components(self) -> Normal:
        """Posteriors of the pseudo-inputs, ``(m, k)``."""
        codes = [weights_mc.argmax(-1, keepdim=True) for weights_mc in self.u_cat.buffers()]
        with _evaluating(self.encoder):
            q: Normal = self.encoder(self.u, *codes, cont=self.u_cont)
        return q

    def get_prior(self, *args: Any, **kwargs: Any) -> Distribution:
        """The mixture, a distribution over ``(k,)``."""
        q = self.components()
        return normal_mixture(self.w.flatten(), q.loc, q.scale)

    def kl(self, qz: Normal, z: Tensor | None = None, **kwargs: Any) -> Tensor:
        """KL divergence ``(n,)`` from one draw a cell.

        Parameters
        ----------
        qz
            Posteriors, ``(n, k)``.
        z
            The draw, where there is one already, ``(n, k)``.
        """
        z_nk = rsample(qz) if z is None else z
        return qz.log_prob(z_nk).sum(-1) - self.get_prior().log_prob(z_nk)
