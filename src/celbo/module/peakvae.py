r"""Variational autoencoder of open chromatin (PeakVI).

.. math::

    z_n &\sim N(0, I), \qquad p_n = \sigma(h(z_n, b_n, \dots)), \qquad d_n = \sigma(\text{network}(x_n)), \qquad
    f_g = \sigma(r_g) \\
    [x_{ng} > 0] &\sim \mathrm{Bernoulli}(p_{ng}\, d_n\, f_g) \\
    \mathcal{L} &= N \sum_n -\log p(x_n \mid z_n) + w \sum_n \mathrm{KL}(q(z_n) \,\|\, p(z_n))

with :math:`\sigma` the logistic function and N the cells of the minibatch. The loss is scvi-tools': the KL divergence
weighs N times less than in the evidence lower bound, which the record's terms give.

Dims: n cells, g regions, k latents, s samples.
Reference: Ashuach, Reidenbach, Gayoso and Yosef, Cell Reports Methods 2022.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ..core import REGISTRY_KEYS, checked
from ..distributions import Accessibility
from ..nn import AccessibilityDecoder, Encoder
from ..nn.fc_layers import decoded_as, with_covariates
from ..ops.draws import sample
from .base import BaseModuleClass, LossOutput, auto_move_data
from .likelihoods import LatentDistribution, Placement, log_likelihood, norms
from .predictive import predictive_sample

__all__ = ["PEAKVAE", "peak_sizes"]


def peak_sizes(n_regions: int, n_hidden: int | None = None, n_latent: int | None = None) -> tuple[int, int]:
    """Hidden and latent size where they are not given: roots of the number of regions, and of the hidden size."""
    n_hidden = math.isqrt(n_regions) if n_hidden is None else n_hidden
    return n_hidden, math.isqrt(n_hidden) if n_latent is None else n_latent


class PEAKVAE(BaseModuleClass):
    """Variational autoencoder of which regions are open.

    Parameters
    ----------
    n_input_regions, n_batch
        Numbers of regions and batches.
    n_hidden, n_latent
        Size of the hidden layers and of the latent space; None: see :func:`peak_sizes`.
    n_layers_encoder, n_layers_decoder
        Hidden layers of the encoders and of the decoder.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; number of categories of each categorical one (the batch apart).
    dropout_rate
        Dropout of the latents' encoder.
    model_depth, region_factors
        Whether cells and regions have factors.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    latent_distribution
        ``"normal"``, or ``"ln"`` (logistic normal: latents on the simplex).
    deeply_inject_covariates
        Whether covariates enter each hidden layer, or the first only.
    encode_covariates
        Whether the encoders see the covariates.
    extra_encoder_kwargs, extra_decoder_kwargs
        Further arguments of :class:`~celbo.nn.Encoder` and :class:`~celbo.nn.AccessibilityDecoder`.

    Raises
    ------
    ValueError
        An option that does not exist.
    """

    @checked
    def __init__(
        self,
        n_input_regions: int,
        n_batch: int = 0,
        n_hidden: int | None = None,
        n_latent: int | None = None,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 2,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.1,
        model_depth: bool = True,
        region_factors: bool = True,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        latent_distribution: LatentDistribution = "normal",
        deeply_inject_covariates: bool = False,
        encode_covariates: bool = False,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.n_hidden, self.n_latent = peak_sizes(n_input_regions, n_hidden, n_latent)
        self.latent_distribution, self.encode_covariates = latent_distribution, encode_covariates
        n_cats = [n_batch, *(n_cats_per_cov or [])]
        seen: dict[str, Any] = {
            "n_input": n_input_regions + n_continuous_cov * encode_covariates,
            "n_cat_list": n_cats if encode_covariates else None,
            "n_layers": n_layers_encoder,
            "n_hidden": self.n_hidden,
        }
        self.z_encoder = Encoder(
            n_output=self.n_latent,
            dropout_rate=dropout_rate,
            distribution=latent_distribution,
            activation_fn=nn.LeakyReLU,
            var_eps=0,
            return_dist=True,
            **seen,
            **norms("encoder", use_batch_norm, use_layer_norm),
            **(extra_encoder_kwargs or {}),
        )
        self.z_decoder = AccessibilityDecoder(
            self.n_latent + n_continuous_cov,
            n_input_regions,
            n_cat_list=n_cats,
            n_layers=n_layers_decoder,
            n_hidden=self.n_hidden,
            deep_inject_covariates=deeply_inject_covariates,
            **norms("decoder", use_batch_norm, use_layer_norm),
            **(extra_decoder_kwargs or {}),
        )
        self.d_encoder = AccessibilityDecoder(n_output=1, **seen) if model_depth else None
        self.region_factors = nn.Parameter(torch.zeros(n_input_regions)) if region_factors else None

    @property
    def encodes_sparse_counts(self) -> bool:
        """Whether ``inference`` takes counts as a CSR tensor: with the encoder of this class."""
        return type(self.z_encoder) is Encoder

    trains_on_sparse_counts = encodes_sparse_counts

    @auto_move_data
    def inference(
        self,
        x: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Tensor | Distribution | None]:
        """Encode cells.

        Parameters
        ----------
        x
            Counts, ``(n, g)``, dense or CSR; they enter as they are.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)``; ``qz`` and its mean ``qz_m``; ``d`` ``(n, 1)``, the cells' factors, and ``depth_logits``,
        their log-odds (both None without factors).
        """
        x, codes = with_covariates(x, batch_index, cont_covs, cat_covs) if self.encode_covariates else (x, [])
        qz, z = self.z_encoder(x, *codes)
        if n_samples > 1:
            z = self.z_encoder.z_transformation(sample(qz, (n_samples,)))
        depth_logits = None if self.d_encoder is None else self.d_encoder.logits(x, *codes)
        d = None if depth_logits is None else depth_logits.sigmoid()
        return {"z": z, "qz": qz, "qz_m": qz.loc, "d": d, "depth_logits": depth_logits}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        qz_m: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        use_z_mean: bool = False,
        transform_batch: Tensor | int | None = None,
        depth_logits: Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        qz_m
            Mean of the latents, ``(n, k)``.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        use_z_mean
            Decode ``qz_m`` instead of ``z``.
        transform_batch
            Batch that all cells are decoded as.
        depth_logits
            Log-odds of the cells' factors, ``(n, 1)``; None: 1.

        Returns
        -------
        ``px``, an :class:`~celbo.distributions.Accessibility`; ``pz``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        latent, codes = with_covariates(qz_m if use_z_mean else z, batch_index, cont_covs, cat_covs)
        px = Accessibility(self.z_decoder.logits(latent, *codes), depth_logits, self.region_factors)
        return {"px": px, "pz": Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Loss of the file's formula, the KL divergence weighted by ``kl_weight``."""
        nll_n = -log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        kl_n = kl_divergence(inference_outputs["qz"], generative_outputs["pz"]).sum(-1)
        weighted = len(nll_n) * nll_n.sum() + kl_weight * kl_n.sum()
        return LossOutput(weighted, reconstruction_loss=nll_n, kl_local=kl_n)

    sample = predictive_sample
