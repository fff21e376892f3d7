r"""Variational autoencoder of counts whose latents stay where they are when a cell has fewer counts.

.. math::

    \tilde x_{ng} &\sim \mathrm{Binomial}(x_{ng}, t_n / \ell_n), \qquad
    \log t_n \sim U(\log \ell_{\min}, \log \ell_n) \\
    C_{jk} &= \tfrac{1}{N} \sum_n \hat z_{nj} \hat{\tilde z}_{nk} \\
    \mathcal{L} &= w_r \tfrac1N \sum_n [-\log p(x_n \mid z_n)] + w\,\mathrm{KL}
        + w_c \Bigl[ \sum_k (1 - C_{kk})^2 + \lambda \sum_{j \ne k} C_{jk}^2 \Bigr]
        + w_v \tfrac1K \sum_k (1 - s_k)_+

with the latents :math:`z` of the cells and :math:`\tilde z` of their thinned counts, both standardized over the
minibatch, and the standard deviation :math:`s_k` of each latent (the mean over both views). In evaluation the loss is
that of :class:`~celbo.module.VAE`.

Dims: n cells, g genes, j and k latents.
Reference: Svensson, 2026; the objective is that of Zbontar, Jing, Misra, LeCun and Deny, *Barlow twins: self-supervised
learning via redundancy reduction*, ICML 2021.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...core import REGISTRY_KEYS, checked
from ...module import VAE
from ...module.base import LossOutput
from ...ops.random import generator_for

__all__ = ["JointEmbeddingVAE", "cross_correlation_terms", "thinned"]

_NO_DIVISION_BY_0 = 1e-8


def thinned(x: Tensor, min_library_size: float) -> Tensor:
    """Counts of each cell drawn without replacement, so that on average a random total is left.

    Parameters
    ----------
    x
        Counts, ``(n, g)``.
    min_library_size
        Least total on average; the total is log-uniform between this and the cell's own. A cell of fewer counts stays.

    Returns
    -------
    ``(n, g)``.
    """
    generator = generator_for(x.device)
    library_n1 = x.sum(-1, keepdim=True)
    span_n1 = (library_n1 / min_library_size).clamp(min=1).log()
    share_n1 = torch.rand(library_n1.shape, dtype=x.dtype, device=x.device, generator=generator)
    return torch.binomial(x, (-share_n1 * span_n1).exp().expand_as(x), generator=generator)


def cross_correlation_terms(z: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """How far two views' latents are from the same numbers, and how much dimensions say the same.

    Parameters
    ----------
    z, other
        Latents of the same cells, ``(n, k)`` each.

    Returns
    -------
    Sum over dimensions of the square of one less the correlation; sum of squared correlations of different ones.
    """
    correlation_kk = _standardized(z).T @ _standardized(other) / len(z)
    diagonal_k = correlation_kk.diagonal()
    return (1 - diagonal_k).square().sum(), correlation_kk.square().sum() - diagonal_k.square().sum()


def _standardized(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.std(0, correction=0) + _NO_DIVISION_BY_0)


class JointEmbeddingVAE(VAE):
    """:class:`~celbo.module.VAE` that also embeds thinned counts of each cell in training.

    Parameters
    ----------
    n_input, n_batch, n_labels, n_continuous_cov, n_cats_per_cov
        As in :class:`~celbo.module.VAE`.
    joint_embedding_weight, lambda_off_diag
        Weights of the cross-correlation, and of different dimensions in it.
    min_library_size
        Least total on average that counts are thinned to.
    reconstruction_weight
        Weight of the likelihood; 0: the latents are learnt from the two views alone.
    variance_weight
        Weight of a penalty on latents of a standard deviation below 1.
    use_joint_embedding
        False: a plain :class:`~celbo.module.VAE`.
    **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        ``gene_likelihood="normal"``: what is not a count cannot be thinned.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        joint_embedding_weight: float = 100.0,
        lambda_off_diag: float = 0.01,
        min_library_size: float = 10.0,
        reconstruction_weight: float = 1.0,
        variance_weight: float = 0.0,
        use_joint_embedding: bool = True,
        **kwargs: Any,
    ) -> None:
        sizes: dict[str, Any] = {"n_batch": n_batch, "n_labels": n_labels, "n_continuous_cov": n_continuous_cov}
        super().__init__(n_input, n_cats_per_cov=n_cats_per_cov, **sizes, **kwargs)
        if use_joint_embedding and self.gene_likelihood == "normal":
            raise ValueError(
                "The joint embedding thins counts, and gene_likelihood='normal' is not for counts: take another "
                "likelihood, or use_joint_embedding=False."
            )
        self.joint_embedding_weight, self.lambda_off_diag = joint_embedding_weight, lambda_off_diag
        self.min_library_size, self.reconstruction_weight = min_library_size, reconstruction_weight
        self.variance_weight, self.use_joint_embedding = variance_weight, use_joint_embedding

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """That of :class:`~celbo.module.VAE`; in training, of two cells or more, with the terms of the thinned view.

        Returns
        -------
        ``extra_metrics`` has ``cco_loss`` and its parts ``cco_invariance`` and ``cco_redundancy``, and
        ``variance_loss``, none of them weighted.
        """
        record = super().loss(tensors, inference_outputs, generative_outputs, kl_weight)
        z_nk = inference_outputs["z"]
        if not (self.training and self.use_joint_embedding) or len(z_nk) < 2:
            return record
        view = {**tensors, REGISTRY_KEYS.X_KEY: thinned(tensors[REGISTRY_KEYS.X_KEY], self.min_library_size)}
        other_nk = self.inference(**self._get_inference_input(view))["z"]
        invariance, redundancy = cross_correlation_terms(z_nk, other_nk)
        cco = invariance + self.lambda_off_diag * redundancy
        hinges = [(1 - z.std(0, correction=0)).relu().mean() for z in (z_nk, other_nk)]
        variance = (hinges[0] + hinges[1]) / 2
        nll = LossOutput.dict_sum(record.reconstruction_loss).mean()
        loss = record.loss + (self.reconstruction_weight - 1) * nll
        loss = loss + self.joint_embedding_weight * cco + self.variance_weight * variance
        parts = {"cco_loss": cco, "cco_invariance": invariance, "cco_redundancy": redundancy, "variance_loss": variance}
        extra = record.extra_metrics | {name: part.detach() for name, part in parts.items()}
        return record.replace(loss=loss, extra_metrics=extra)
