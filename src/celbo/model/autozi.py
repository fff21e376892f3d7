"""AUTOZI: which genes are zero-inflated.

Reference: Clivio, Lopez, Regier, Gayoso, Jordan and Yosef, *Detecting zero-inflated genes in single-cell
transcriptomics data*, bioRxiv 2019.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from .. import posterior
from ..core import REGISTRY_KEYS
from ..data.fields import bundles
from ..module import AutoZIVAE
from ..module.likelihoods import Dispersion, LatentDistribution
from ..posterior.passes import decode, encode, evaluating, on_device
from ..verbs.cells import asked
from .base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin, library_arguments, setup_method

__all__ = ["AUTOZI"]


class AUTOZI(VAEMixin, UnsupervisedTrainingMixin, RNASeqMixin, BaseModelClass):
    r"""Variational autoencoder of UMI counts that tells zero-inflated genes from others.

    .. math::
        \delta_g \sim \mathrm{Beta}(\alpha_0, \beta_0), \qquad
        x_{ng} \mid z_n, \delta_g \sim \delta_g\,\mathrm{NB}(\mu_{ng}, \theta_g)
            + (1 - \delta_g)\,\mathrm{ZINB}(\mu_{ng}, \theta_g, \pi_{ng})

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_latent, n_layers, dropout_rate, dispersion, latent_distribution, use_observed_lib_size
        See :class:`~celbo.model.SCVI`.
    alpha_prior, beta_prior, minimal_dropout, zero_inflation
        See :class:`~celbo.module.AutoZIVAE`.
    **model_kwargs
        Further arguments of :class:`~celbo.module.AutoZIVAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.AUTOZI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.model.AUTOZI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_alphas_betas()["alpha_posterior"].shape
    (100,)
    """

    _module_cls: ClassVar[type[AutoZIVAE]] = AutoZIVAE
    _sizes: ClassVar[Mapping[str, str]] = {"n_batch": "n_batch", "n_labels": "n_labels"}  # it hands them to VAE
    _computed_arguments = library_arguments
    # which genes are zero-inflated is learned late (AUC on three sets of 2,000 simulated cells: 0.93, 0.94, 0.91)
    _recipe = "long_cycle"

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        latent_distribution: LatentDistribution = "normal",
        alpha_prior: float | None = 0.5,
        beta_prior: float | None = 0.5,
        minimal_dropout: float = 0.01,
        zero_inflation: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
        use_observed_lib_size: bool = True,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def get_alphas_betas(
        self, as_numpy: bool = True, *, adata: AnnData | None = None, seed: int | None = None
    ) -> dict[str, Tensor | np.ndarray]:
        r"""Parameters of the Beta distributions of :math:`\delta`, the probability that a gene has no added zeros.

        ``scipy.stats.beta.cdf(0.5, alpha, beta)`` is the probability that a gene is zero-inflated.

        Parameters
        ----------
        as_numpy
            Whether to give numpy arrays instead of tensors.
        adata, seed
            For ``zero_inflation="gene-cell"`` only: the cells that are averaged over (None: the training data), and the
            seed of their latents.

        Returns
        -------
        ``alpha_posterior``, ``beta_posterior``: ``(g,)``; ``(g, b)`` for ``"gene-batch"``, ``(g, c)`` for
        ``"gene-label"``. For ``"gene-cell"``, where each count has a :math:`\delta` of its own, ``(g,)`` means over
        cells of :math:`\alpha_0 + r_{ng}` and :math:`\beta_0 + 1 - r_{ng}`, with :math:`r` the probability that a
        count came from the component without added zeros. ``alpha_prior``, ``beta_prior``: ``(1,)``.

        Examples
        --------
        >>> posterior = model.get_alphas_betas()
        >>> alpha_g, beta_g = posterior["alpha_posterior"], posterior["beta_posterior"]
        >>> mean_g = alpha_g / (alpha_g + beta_g)  # mean of each gene's Beta distribution
        >>> mean_g.shape
        (100,)
        """
        found = self.module.get_alphas_betas(as_numpy=False)
        if self.module.zero_inflation == "gene-cell":
            share_g = self._mean_nb_responsibility(adata, seed)
            found |= {"alpha_posterior": found["alpha_prior"] + share_g}
            found |= {"beta_posterior": found["beta_prior"] + 1 - share_g}
        return {name: p.detach().cpu().numpy() if as_numpy else p for name, p in found.items()}

    def _mean_nb_responsibility(self, adata: AnnData | None, seed: int | None) -> Tensor:
        cells = asked(self, adata)
        total_g: Any = 0
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                decoded = decode(self.module, tensors, encode(self.module, tensors))
                r_ng = self.module.nb_responsibility(
                    tensors[REGISTRY_KEYS.X_KEY], decoded["px"], decoded["bernoulli_params"]
                )
                total_g = total_g + r_ng.sum(0)
        return total_g / cells.n_cells

    def get_marginal_ll(  # type: ignore[override]  # one number for all cells, which share delta
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_mc_samples: int = 1000,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
    ) -> float:
        r"""Marginal log-likelihood of all the cells together, in nats for each of the N cells, by importance sampling.

        .. math:: \frac{\log p(X)}{N} \approx \frac{1}{N} \log \tfrac{1}{T} \sum_t \frac{p(\delta_t)}{q(\delta_t)}
                  \prod_n \tfrac{1}{S} \sum_s \frac{p(x_n \mid z_{ts}, \delta_t)\,p(z_{ts})}{q(z_{ts} \mid x_n)},
                  \qquad \delta_t \sim q(\delta),\; z_{ts} \sim q(z \mid x_n)

        Parameters
        ----------
        adata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.
        n_mc_samples
            Samples of each cell in all, ``T * S``; T is the root of it, rounded up.

        Returns
        -------
        A lower bound in expectation. scvi-tools 1.4.2 draws one z for each draw of :math:`\delta`, so that its bound is
        looser.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            ``n_mc_samples`` is below 1.

        Examples
        --------
        >>> model.get_marginal_ll(n_mc_samples=5, seed=0) < 0
        True
        """
        self._check_if_trained(warn=False)
        if n_mc_samples < 1:
            raise ValueError(f"At least one sample is needed, got {n_mc_samples=}.")
        n_delta = math.isqrt(n_mc_samples - 1) + 1
        cells = asked(self, adata, indices, batch_size)
        log_weights = []
        with evaluating(self.module, seed) as rng:
            for _ in range(n_delta):
                delta, log_ratio = self.module.draw_delta()
                ll_n = posterior.marginal_ll(
                    self.module,
                    ({**tensors, "delta": delta} for tensors in cells.batches),
                    n_mc_samples=-(-n_mc_samples // n_delta),
                    n_mc_samples_per_pass=25,
                    return_mean=False,
                    n_cells=cells.n_cells,
                    seed=int(rng.integers(2**31)),
                )
                log_weights.append(ll_n.double().sum() + log_ratio.double().cpu())  # type: ignore[union-attr]
        log_evidence = float(torch.stack(log_weights).logsumexp(0)) - math.log(n_delta)
        return log_evidence / cells.require_cells("get_marginal_ll").size

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        layer: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register an AnnData with counts."""
        return [*bundles.counts(layer, use_raw), *bundles.batch(batch_key), *bundles.labels(labels_key)]
