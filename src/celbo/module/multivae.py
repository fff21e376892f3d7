r"""Variational autoencoder of genes, open chromatin and proteins, of cells that may lack some of the three (MultiVI).

.. math::

    q(z_n) &= \text{mixture over the modalities that the cell has, see } \mathtt{celbo.module.modalities} \\
    x_{ng} &\sim \mathrm{ZINB}(e^{\ell_n} \rho_g(z_n, b_n), \theta_g, \pi_{ng}), \qquad
    [a_{nr} > 0] \sim \mathrm{Bernoulli}(p_r(z_n, b_n)\, d_n\, f_r) \\
    y_{np} &\sim \pi_{np}\, \mathrm{NB}(\beta_{np}, \phi_p)
        + (1 - \pi_{np})\, \mathrm{NB}(\beta_{np} \alpha_{np}, \phi_p) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \Bigl[-\sum_{m \in M_n} \log p(x_n^m \mid z_n) + w\, \mathrm{KL}(q(z_n) \| p(z))
        + \text{penalty of pairs of modalities}\Bigr]

with :math:`\ell_n` and :math:`d_n` networks of the cell's counts, :math:`f` a factor of each region. A network that no
cell of a minibatch needs is not run.

Dims: n cells, g genes, r regions, p proteins, k latents, m modalities (expression, accessibility, protein), s samples.
Reference: Ashuach, Gabitto, Koodli, Saldi, Jordan and Yosef, Nature Methods 2023.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from ..core import REGISTRY_KEYS
from ..distributions import Accessibility, NegativeBinomialMixture
from ..nn.fc_layers import decoded_as, with_covariates
from ..ops.draws import rsample, sample
from .base import LossOutput, auto_move_data
from .base.minified import stored_latents
from .likelihoods import LIKELIHOODS, as_of_genes, log_likelihood, log_theta_of
from .modalities import mixed, modality_weights, pair_penalty
from .multinetworks import MODALITIES, MOST_LOG, MultimodalNetworks
from .predictive import predictive_sample

__all__ = ["MULTIVAE"]

_SIZE_EPS = 1e-6


class MULTIVAE(MultimodalNetworks):
    """Variational autoencoder of up to three modalities.

    Parameters
    ----------
    n_input_regions, n_input_genes, n_input_proteins
        Numbers of regions, genes and proteins; 0 where the modality is not there.
    modality_weights
        Weights of the modalities in the joint latents: ``"equal"``, learned for all cells alike (``"universal"``), or
        for each (``"cell"``).
    modality_penalty
        What keeps the latents of a cell's modalities close: ``"Jeffreys"``, ``"MMD"`` or ``"None"``, see
        :func:`~celbo.module.modalities.pair_penalty`.
    n_batch, n_obs, n_labels
        Numbers of batches, cells (for weights by cell) and labels.
    gene_likelihood
        ``"zinb"``, ``"nb"`` or ``"poisson"``.
    gene_dispersion, protein_dispersion
        What the inverse dispersions are parameters of: ``"gene"``, ``"gene-batch"``, ``"gene-label"`` or
        ``"gene-cell"``; ``"protein"``, ``"protein-batch"`` or ``"protein-label"``.
    n_hidden, n_latent
        Size of the hidden layers and of the latent space; None: see
        :func:`~celbo.module.multinetworks.multimodal_sizes`.
    n_layers_encoder, n_layers_decoder
        Hidden layers of encoders and decoders.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; number of categories of each categorical one (the batch apart).
    dropout_rate
        Dropout of the latents' encoders.
    region_factors
        Whether regions have factors.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    latent_distribution
        ``"normal"``, or ``"ln"`` (logistic normal: latents on the simplex).
    deeply_inject_covariates
        Whether covariates enter each hidden layer, or the first only; those of proteins enter each.
    encode_covariates
        Whether the encoders see the covariates.
    use_size_factor_key
        Whether size factors ``(n, 2)`` of genes and of regions take the place of the encoded ones.
    protein_background_prior_mean, protein_background_prior_scale
        Kept with the weights for scvi-tools; nothing reads them, there or here.
    extra_payload_autotune
        Whether the loss carries ``z``, ``batch`` and ``labels`` as extra metrics.
    scvi_tools_figures
        Keep what scvi-tools 1.4.2 computes where this module does otherwise, see :class:`~celbo.model.MULTIVI`.

    Raises
    ------
    ValueError
        An option that does not exist; no genes, no regions and no proteins.
    """

    @auto_move_data
    def _regular_inference(
        self,
        tensors: dict[str, Tensor],
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        ind_x: Tensor | None = None,
        size_factor: Tensor | None = None,
        modality_presence: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        tensors
            The minibatch, counts of each modality among it.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        ind_x
            Row numbers, ``(n, 1)``, for weights by cell.
        size_factor
            Of genes and of regions, ``(n, 2)``.
        modality_presence
            ``(n, m)``: 1 where a cell has a modality, for those that the module has; None: where it has counts.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)``, ``qz``, its mean ``qz_m``; ``has`` ``(n, m)``; ``posteriors``, by number of the modality;
        ``libsize_expr`` ``(n, 1)``, the log library of genes; ``depth_logits`` ``(n, 1)`` and ``d``, the cells' factors
        of regions.
        """
        counts = self._counts(tensors)
        has_nm = self._has(counts, modality_presence)
        posteriors: dict[int, Normal] = {}
        libraries: dict[int, Tensor] = {}
        encoders = (self.z_encoder_expression, self.z_encoder_accessibility, self.z_encoder_protein)
        of_library = (self.l_encoder_expression, self.l_encoder_accessibility)
        for m, x in enumerate(counts):
            if x is None or (modality_presence is not None and not bool(has_nm[:, m].any())):
                continue
            codes: list[Tensor] = []
            if self.encode_covariates:
                x, codes = with_covariates(x, batch_index, cont_covs, cat_covs)
            posteriors[m] = encoders[m](x, *codes)[0]
            if m < len(of_library):
                library = of_library[m]
                libraries[m] = library.output[0](library.px_decoder(x, *codes))
        weights = self.mod_weights if self.modality_weights != "cell" else self.mod_weights[_rows(ind_x)]
        numbers = list(posteriors)
        weights_nm = modality_weights(weights, has_nm)[:, numbers]
        qz = mixed(list(posteriors.values()), weights_nm, self.scvi_tools_figures)
        z = sample(qz, (n_samples,)) if n_samples > 1 else rsample(qz)
        libsize, depth = self._libraries(libraries, size_factor, qz.loc[:, :1])
        return {
            "z": self.z_encoder_expression.z_transformation(z),
            "qz": qz,
            "qz_m": qz.loc,
            "has": has_nm,
            "posteriors": posteriors,
            "libsize_expr": libsize,
            "depth_logits": depth,
            "d": depth.sigmoid(),
        }

    def posterior_of(self, m: int) -> Callable[[Mapping[str, Any]], Normal]:
        """Reads the posterior of a modality off what ``inference`` gives; NaN for cells that do not have it."""

        def read(encoded: Mapping[str, Any]) -> Normal:
            has_n1, q = encoded["has"][:, [m]], encoded["posteriors"].get(m, encoded["qz"])
            if self.scvi_tools_figures:
                return q
            mean, sd = (torch.where(has_n1, part, torch.nan) for part in (q.loc, q.scale))
            return Normal(mean, sd, validate_args=False)

        return read

    def _libraries(
        self, encoded: dict[int, Tensor], size_factor: Tensor | None, like_n1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log library of genes, and log-odds of the factor of regions; those of the size factors, where given."""
        if self.use_size_factor_key and size_factor is not None:
            return (size_factor[:, :1] + _SIZE_EPS).log(), size_factor[:, 1:2].logit(eps=_SIZE_EPS)
        nothing = torch.zeros_like(like_n1)
        log_library = encoded.get(0)
        if log_library is not None:
            log_library = self.l_encoder_expression.output[1](log_library)
            log_library = log_library if self.scvi_tools_figures else log_library.clamp(max=MOST_LOG)
        return nothing if log_library is None else log_library, encoded.get(1, nothing)

    def _cached_inference(
        self, qzm: Tensor, qzv: Tensor, observed_lib_size: Tensor, n_samples: int = 1
    ) -> dict[str, Any]:
        """What was stored of a cell: its joint latents, and the total of its genes for a library."""
        stored = stored_latents(qzm, qzv, observed_lib_size, self.z_encoder_expression.z_transformation, n_samples)
        return {**stored, "qz_m": qzm, "libsize_expr": observed_lib_size.log(), "depth_logits": None, "d": None}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        qz_m: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        libsize_expr: Tensor | None = None,
        depth_logits: Tensor | None = None,
        y: Tensor | None = None,
        has: Tensor | None = None,
        use_z_mean: bool = False,
        transform_batch: Tensor | int | None = None,
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
        libsize_expr
            Log library of genes, ``(n, 1)``; None: 0.
        depth_logits
            Log-odds of the cells' factors of regions, ``(n, 1)``; None: factors of 1.
        y
            Codes of labels, ``(n, 1)``, for a dispersion by label.
        has
            Which modalities a cell has: in training, one that none has is not decoded.
        use_z_mean
            Decode ``qz_m`` instead of ``z``.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px`` of genes, ``pa`` (an :class:`~celbo.distributions.Accessibility`) of regions, ``py`` (a
        :class:`~celbo.distributions.NegativeBinomialMixture`) of proteins, each where the module has them; ``pz``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        z = qz_m if use_z_mean or self.decodes_means else z
        latent, codes = with_covariates(z, batch_index, cont_covs, cat_covs)
        wanted = [n > 0 for n in self.n_inputs]
        if self.training and has is not None:
            wanted = [one and bool(has[:, m].any()) for m, one in enumerate(wanted)]
        decoded: dict[str, Distribution] = {}
        if wanted[0]:
            library = torch.zeros_like(latent[..., :1]) if libsize_expr is None else libsize_expr
            decoded["px"] = self._genes(latent, codes, library, batch_index, y)
        if wanted[1]:
            logits = self.z_decoder_accessibility.logits(latent, *codes)
            decoded["pa"] = Accessibility(logits, depth_logits, self.region_factors)
        if wanted[2]:
            background, foreground, mixing = self.z_decoder_pro(latent, *codes)
            theta = log_theta_of(self.py_r, as_of_genes(self.protein_dispersion), batch_index, y).exp()
            decoded["py"] = NegativeBinomialMixture(background, foreground, theta, mixing)
        return decoded | {"pz": Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)}

    def _genes(
        self, latent: Tensor, codes: list[Tensor], library: Tensor, batch_index: Tensor, y: Tensor | None
    ) -> Distribution:
        likelihood, decoder = LIKELIHOODS[self.gene_likelihood], self.z_decoder_expression
        by_cell = "gene-cell" if self.gene_dispersion == "gene-cell" and not self.scvi_tools_figures else "gene"
        scale, log_theta, zi = decoder.logits(by_cell, latent, *codes, use_dropout=likelihood.zero_inflated)
        if log_theta is None:
            kind = "gene" if self.gene_dispersion == "gene-cell" else self.gene_dispersion
            log_theta = log_theta_of(self.px_r, kind, batch_index, y)
        return likelihood(scale, library, log_theta, zi, decoder.scale, decoder.is_softmax)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        warms_penalty: bool = False,
    ) -> LossOutput:
        """Loss of the file's formula, the KL divergence weighted by ``kl_weight``, and so the penalty, if it warms."""
        counts, has_nm = self._counts(tensors), inference_outputs["has"]
        nothing = torch.zeros(len(has_nm), device=has_nm.device)
        terms: dict[str, Tensor] = {}
        for m, (name, key) in enumerate(zip(MODALITIES, ("px", "pa", "py"), strict=True)):
            x, nll_n = counts[m], nothing
            if x is not None and key in generative_outputs:
                nll_n = torch.where(has_nm[:, m], -log_likelihood(generative_outputs[key], x.to(has_nm.device)), 0.0)
            terms[f"reconstruction_loss_{name}"] = nll_n
        kl_n = kl_divergence(inference_outputs["qz"], generative_outputs["pz"]).sum(-1)
        penalty_n = pair_penalty(
            inference_outputs["posteriors"], has_nm, self.modality_penalty, self.scvi_tools_figures
        )
        penalty_weight = kl_weight if warms_penalty else 1.0
        loss = (sum(terms.values()) + kl_weight * kl_n + penalty_weight * penalty_n).mean()
        kl = {"kl_divergence_z": kl_n, "kl_divergence_paired": penalty_n}
        extra = self._payload(tensors, inference_outputs) if self.extra_payload_autotune else {}
        return LossOutput(loss, reconstruction_loss=terms, kl_local=kl, extra_metrics=extra)

    def _payload(self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        keys = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
        return {"z": inference_outputs["z"], **{key: tensors[key] for key in keys if key in tensors}}

    sample = predictive_sample


def _rows(ind_x: Tensor | None) -> Tensor:
    if ind_x is None:
        raise ValueError("Weights by cell need the row numbers of the cells ('ind_x'): set the data up again.")
    return ind_x.reshape(-1).long()
