r"""Priors of latent variables, each with the divergence of a posterior from it.

.. math:: \mathrm{KL}(q \,\|\, p) = \mathrm{E}_{z \sim q}[\log q(z) - \log p(z)],

in closed form for a normal prior, from draws for mixtures.

Dims: n cells, k latents, m mixture components, s samples.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence

from ...ops.draws import randn, rsample

__all__ = ["GaussianPrior", "MogPrior", "Prior", "VampPrior", "labelled_mixture", "mixture_kl", "normal_mixture"]

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


def labelled_mixture(logits: Tensor, means: Tensor, scales: Tensor, y: Tensor | None) -> MixtureSameFamily:
    """Mixture in which each cell's label has a component of its own: it adds 10 to the logit of that number.

    Parameters
    ----------
    logits
        Of the components, ``(m,)``.
    means, scales
        ``(m, k)``.
    y
        Codes of the labels, ``(n, 1)`` or ``(n,)``; None: there are none.

    Returns
    -------
    Distribution over ``(k,)``, of batch shape ``(n,)`` with labels, ``()`` without.
    """
    if y is None:
        return normal_mixture(logits, means, scales)
    bias_nm = _CELL_TYPE_BIAS * F.one_hot(y.reshape(-1).long(), len(logits))
    n = len(bias_nm)
    return normal_mixture(logits + bias_nm, means.expand(n, -1, -1), scales.expand(n, -1, -1))


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
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            codes = [weights_mc.argmax(-1, keepdim=True) for weights_mc in self.u_cat.buffers()]
            q: Normal = self.encoder(self.u, *codes, cont=self.u_cont)
        finally:
            self.encoder.train(was_training)
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
