r"""Variational autoencoder of counts of genes and proteins (totalVI).

.. math::

    z_n &\sim N(0, I), \qquad x_{ng} \sim \mathrm{NB}(\ell_n \rho_g(z_n, b_n), \theta_g) \text{ or zero-inflated} \\
    \beta_{np} &\sim \mathrm{LogNormal}(c_{p b_n}, d_{p b_n}), \qquad v_{np} \sim \mathrm{Bernoulli}(\pi_p(z_n, b_n)) \\
    y_{np} &\sim \mathrm{NB}\bigl(\epsilon_{p b_n} \beta_{np}\, (v_{np} + (1 - v_{np})\, \alpha_p(z_n, b_n)),
        \phi_p\bigr), \qquad \alpha > 1, \quad \epsilon \sim \mathrm{LogNormal}(0, 1) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \Bigl[-\log p(x_n \mid z_n) - w \log p(y_n \mid z_n, \beta_n)
        + w\, \mathrm{KL}_z + \mathrm{KL}_\ell + w \bigl(\mathrm{KL}_\beta - \textstyle\sum_p \log p(\epsilon_{p b_n})
        - 10^{-3} \log \pi_{np}\bigr)\Bigr]

with background where v = 1. A protein that the panel of a cell does not have enters neither the likelihood nor
:math:`\mathrm{KL}_\beta`.

Dims: n cells, g genes, p proteins, k latents, b batches (or panels), s samples.
Reference: Gayoso, Steier et al., Nature Methods 2021 (:cite:p:`Gayoso21`).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import LogNormal, Normal, kl_divergence

from ..core import REGISTRY_KEYS, checked
from ..distributions import NegativeBinomialMixture
from ..nn import DecoderTOTALVI, EncoderTOTALVI
from ..nn.fc_layers import decoded_as, with_covariates
from ..ops.draws import randn, sample, uniform
from .base import LossOutput, auto_move_data
from .base.minified import stored_latents
from .counted import CountedModule
from .likelihoods import (
    LIKELIHOODS,
    LatentDistribution,
    Placement,
    ProteinDispersion,
    as_of_genes,
    dispersion_shape,
    log_likelihood,
    log_theta_by_moments,
    log_theta_of,
    measured_table,
    norms,
    two_levels,
)
from .predictive import predictive_sample

__all__ = ["TOTALVAE", "GeneDispersion"]

GeneDispersion = Literal["gene", "gene-batch", "gene-label"]

_PRIOR_LOG_MEAN = 3.0
_FOREGROUND_PENALTY = 1e-3


class TOTALVAE(CountedModule):
    """Variational autoencoder of counts of genes and proteins.

    Parameters
    ----------
    n_input_genes, n_input_proteins, n_batch, n_labels
        Numbers of genes, proteins, batches and labels.
    n_hidden, n_latent, n_layers_encoder, n_layers_decoder, n_continuous_cov, n_cats_per_cov
        Sizes of the networks; see :class:`~celbo.module.VAE`.
    dropout_rate_decoder, dropout_rate_encoder
        Dropout.
    gene_dispersion, protein_dispersion, gene_likelihood, latent_distribution, scvi_tools_figures
        See :class:`~celbo.model.TOTALVI`.
    log_variational
        Whether the encoder sees the logarithm of 1 + x / (1 + mean of the cell), or the quotient alone.
    protein_batch_mask
        For the code of each batch (or panel), as text, ``(p,)`` booleans: True where measured. None: all were.
    encode_covariates, use_size_factor_key, use_observed_lib_size, extra_payload_autotune, library_log_means
        See :class:`~celbo.module.VAE`.
    library_log_vars
        See :class:`~celbo.module.VAE`.
    protein_background_prior_mean, protein_background_prior_scale
        Mean and standard deviation of the log background to begin with, ``(p, b)`` each.
    n_panel, panel_key
        Number of panels, and the registry key of the codes by which background and mask are looked up.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    extra_encoder_kwargs, extra_decoder_kwargs
        Further arguments of :class:`~celbo.nn.EncoderTOTALVI` and :class:`~celbo.nn.DecoderTOTALVI`.

    Raises
    ------
    ValueError
        A dispersion per batch or label without batches or labels; a latent library without its prior.
    """

    measured: Tensor | None
    _encoder_cls: ClassVar[type[EncoderTOTALVI]] = EncoderTOTALVI

    @checked
    def __init__(
        self,
        n_input_genes: int,
        n_input_proteins: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 256,
        n_latent: int = 20,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate_decoder: float = 0.2,
        dropout_rate_encoder: float = 0.2,
        gene_dispersion: GeneDispersion = "gene",
        protein_dispersion: ProteinDispersion = "protein",
        log_variational: bool = True,
        gene_likelihood: Literal["zinb", "nb"] = "nb",
        latent_distribution: LatentDistribution = "normal",
        protein_batch_mask: Mapping[str, np.ndarray] | None = None,
        encode_covariates: bool = True,
        protein_background_prior_mean: np.ndarray | None = None,
        protein_background_prior_scale: np.ndarray | None = None,
        use_size_factor_key: bool = False,
        use_observed_lib_size: bool = True,
        extra_payload_autotune: bool = False,
        library_log_means: np.ndarray | None = None,
        library_log_vars: np.ndarray | None = None,
        n_panel: int | None = None,
        panel_key: str = REGISTRY_KEYS.BATCH_KEY,
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_batch, self.n_labels, self.n_latent, self.log_variational = n_batch, n_labels, n_latent, log_variational
        self.gene_dispersion, self.protein_dispersion = gene_dispersion, protein_dispersion
        self.gene_likelihood, self.latent_distribution, self.panel_key = gene_likelihood, latent_distribution, panel_key
        self.encode_covariates, self.use_size_factor_key = encode_covariates, use_size_factor_key
        self.use_observed_lib_size = use_observed_lib_size or use_size_factor_key
        self.extra_payload_autotune, self.scvi_tools_figures = extra_payload_autotune, scvi_tools_figures
        n_panel = n_batch if n_panel is None else n_panel
        self._make_background(n_input_proteins, n_panel, protein_background_prior_mean, protein_background_prior_scale)
        self._make_dispersions(n_input_genes, n_input_proteins)
        if not self.use_observed_lib_size:
            self._keep_library_prior(library_log_means, library_log_vars)
        self.register_buffer("measured", measured_table(protein_batch_mask, n_panel), persistent=False)
        n_cats = [n_batch, *(n_cats_per_cov or [])]
        of_encoder: dict[str, Any] = {"dropout_rate": dropout_rate_encoder, "distribution": latent_distribution}
        of_encoder |= norms("encoder", use_batch_norm, use_layer_norm) | (extra_encoder_kwargs or {})
        n_seen = n_input_genes + n_input_proteins + n_continuous_cov * encode_covariates
        seen = n_cats if encode_covariates else []
        self.encoder = self._encoder_cls(n_seen, n_latent, seen, n_layers_encoder, n_hidden, **of_encoder)
        of_decoder: dict[str, Any] = {"scale_activation": "softplus" if use_size_factor_key else "softmax"}
        of_decoder["foreground_wakes"] = self.measured is not None and not scvi_tools_figures
        of_decoder |= norms("decoder", use_batch_norm, use_layer_norm) | (extra_decoder_kwargs or {})
        sizes = (n_latent + n_continuous_cov, n_input_genes, n_input_proteins, n_cats, n_layers_decoder, n_hidden)
        self.decoder = DecoderTOTALVI(*sizes, dropout_rate=dropout_rate_decoder, **of_decoder)

    def _make_dispersions(self, n_genes: int, n_proteins: int) -> None:
        sizes, of_proteins = (self.n_batch, self.n_labels), as_of_genes(self.protein_dispersion)
        self.px_r = nn.Parameter(randn(*dispersion_shape(self.gene_dispersion, n_genes, *sizes)))
        self.py_r = nn.Parameter(uniform(0.0, 2.0, *dispersion_shape(of_proteins, n_proteins, *sizes)))

    def _make_background(self, n_proteins: int, n_panel: int, mean_pb: Any, scale_pb: Any) -> None:
        """Parameters of the prior of the background, and the efficiency of each batch's capture."""
        mean, scale = torch.full((n_proteins, n_panel), _PRIOR_LOG_MEAN), torch.ones(n_proteins, n_panel)
        if mean_pb is not None and scale_pb is not None:
            mean, scale = (torch.as_tensor(figure, dtype=torch.float32) for figure in (mean_pb, scale_pb))
        self.background_pro_alpha, self.background_pro_log_beta = nn.Parameter(mean), nn.Parameter(scale.log())
        self.log_per_batch_efficiency = nn.Parameter(torch.zeros(n_proteins, self.n_batch))

    @auto_move_data
    def _regular_inference(
        self,
        x: Tensor,
        proteins: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        x, proteins
            Counts of genes ``(n, g)`` and of proteins ``(n, p)``; NaN where a protein was not measured.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns what that of :class:`~celbo.module.VAE` returns.
        """
        seen = torch.cat([self._as_encoded(x), self._as_encoded(proteins.nan_to_num())], dim=-1)
        codes: list[Tensor] = []
        if self.encode_covariates:
            seen, codes = with_covariates(seen, batch_index, cont_covs, cat_covs)
        qz, ql, latent, untransformed = self.encoder(seen, *codes)
        z, library = latent["z"], untransformed["l"]
        if n_samples > 1:
            z = self.latent_transformation(sample(qz, (n_samples,)))
            library = sample(ql, (n_samples,))
        if not self.use_observed_lib_size:
            return {"z": z, "qz": qz, "ql": ql, "library": library}
        library = x.sum(-1, keepdim=True).log()
        library = library.expand(n_samples, -1, -1) if n_samples > 1 else library
        unused = {"ql_unused": ql} if self.scvi_tools_figures else {}
        return {"z": z, "qz": qz, "ql": None, "library": library, **unused}

    def _as_encoded(self, x: Tensor) -> Tensor:
        return (torch.log1p if self.log_variational else torch.positive)(x / (1 + x.mean(1, keepdim=True)))

    @auto_move_data
    def _cached_inference(
        self, qzm: Tensor, qzv: Tensor, observed_lib_size: Tensor, n_samples: int = 1
    ) -> dict[str, Any]:
        qzv = qzv.square() if self.scvi_tools_figures else qzv  # which takes the variance for the standard deviation
        return stored_latents(qzm, qzv, observed_lib_size, self.latent_transformation, n_samples)

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Decode latents.

        Parameters
        ----------
        z, library, batch_index, cont_covs, cat_covs, y, transform_batch
            See :class:`~celbo.module.VAE`; ``library`` is the natural log.
        size_factor
            Size factor, ``(n, 1)``; takes the place of the library where the module is built for it.

        Returns
        -------
        ``px`` of the genes, ``py`` of the proteins, and ``py_readout``, the same or, with ``scvi_tools_figures``,
        without the efficiency of the batch's capture; ``q_background`` and its draw ``log_background`` ``(n, p)``;
        ``mixing``, logits of background; ``pz``; ``pl``, None for an observed library.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        if self.use_size_factor_key and size_factor is not None:
            library = size_factor.log()
        latent, codes = with_covariates(z, batch_index, cont_covs, cat_covs)
        likelihood = LIKELIHOODS[self.gene_likelihood]
        scale_logits, zi_logits, py = self.decoder.logits(latent, *codes, use_dropout=likelihood.zero_inflated)
        activation = self.decoder.px_scale_activation
        px = likelihood(
            scale_logits,
            library,
            log_theta_of(self.px_r, self.gene_dispersion, batch_index, y),
            zi_logits,
            activation=activation,
            is_softmax=isinstance(activation, nn.Softmax),
        )
        phi = log_theta_of(self.py_r, as_of_genes(self.protein_dispersion), batch_index, y).exp()
        log_efficiency_np = F.embedding(batch_index.squeeze(-1), self.log_per_batch_efficiency.t())

        def mixture(log_back: Tensor) -> NegativeBinomialMixture:
            back = log_back.exp()
            return NegativeBinomialMixture(back, back * py["fore_scale"], phi, py["mixing"], validate_args=False)

        observed = mixture(py["log_back"] + log_efficiency_np)
        return {
            "px": px,
            "py": observed,
            "py_readout": mixture(py["log_back"]) if self.scvi_tools_figures else observed,
            "q_background": Normal(py["back_alpha"], py["back_beta"], validate_args=False),
            "log_background": py["log_back"],
            "mixing": py["mixing"],
            "pz": Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False),
            "pl": self._library_prior(batch_index),
        }

    def _background_prior(self, tensors: Mapping[str, Tensor]) -> Normal:
        """Prior of each cell's log background, ``(n, p)``."""
        codes = tensors[self.panel_key].squeeze(-1).long()
        mean_np = F.embedding(codes, self.background_pro_alpha.t())
        return Normal(mean_np, F.embedding(codes, self.background_pro_log_beta.t()).exp(), validate_args=False)

    def _where_measured(self, values: Tensor, tensors: Mapping[str, Tensor], otherwise: float) -> Tensor:
        """The values of the proteins that each cell's panel has, ``(n, p)``."""
        if self.measured is None:
            return values
        measured_np = F.embedding(tensors[self.panel_key].squeeze(-1).long(), self.measured)
        return torch.where(measured_np > 0, values, otherwise)

    def _protein_log_likelihood(self, tensors: Mapping[str, Tensor], py: NegativeBinomialMixture) -> Tensor:
        counts_np = tensors[REGISTRY_KEYS.PROTEIN_EXP_KEY].nan_to_num()
        return py.log_prob_sum(self._where_measured(counts_np, tensors, torch.nan))

    def log_likelihood(self, tensors: Mapping[str, Tensor], generative_outputs: Mapping[str, Any]) -> Tensor:
        """Log-likelihood of each cell's genes and proteins, and the log-ratio of prior to posterior of its background.

        Parameters
        ----------
        tensors, generative_outputs
            Minibatch, and what was decoded of it.

        Returns
        -------
        ``(n,)`` or ``(s, n)``.
        """
        decoded = generative_outputs
        of_genes, drawn = log_likelihood(decoded["px"], tensors[REGISTRY_KEYS.X_KEY]), decoded["log_background"]
        ratio_np = self._background_prior(tensors).log_prob(drawn) - decoded["q_background"].log_prob(drawn)
        return of_genes + self._protein_log_likelihood(tensors, decoded["py"]) + ratio_np.sum(-1)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        pro_recons_weight: float = 1.0,
        kl_weight: Tensor | float = 1.0,
        warms_proteins: bool = True,
    ) -> LossOutput:
        """Negative evidence lower bound; the formula is the file's.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch, and what was made of it.
        pro_recons_weight, kl_weight, warms_proteins
            Weight of the proteins' likelihood, weight of the KL divergences, and whether the former has the latter too.

        Returns
        -------
        ``reconstruction_loss`` has the entries ``reconst_loss_gene`` and ``reconst_loss_protein``, ``kl_local``
        ``kl_div_z``, ``kl_div_l_gene`` (0 for an observed library) and ``kl_div_back_pro``.
        """
        qz, ql, decoded = inference_outputs["qz"], inference_outputs["ql"], generative_outputs
        nll_gene_n = -log_likelihood(decoded["px"], tensors[REGISTRY_KEYS.X_KEY])
        nll_protein_n = -self._protein_log_likelihood(tensors, decoded["py"])
        kl_z_n = kl_divergence(qz, Normal(0.0, 1.0, validate_args=False)).sum(-1)
        kl_l_n = torch.zeros_like(kl_z_n) if ql is None else kl_divergence(ql, decoded["pl"]).sum(-1)
        kl_background_n = self._background_divergence(tensors, decoded)
        of_proteins_n = pro_recons_weight * (kl_weight if warms_proteins else 1.0) * nll_protein_n
        return LossOutput(
            loss=(nll_gene_n + kl_l_n + of_proteins_n + kl_weight * (kl_z_n + kl_background_n)).mean(),
            reconstruction_loss={"reconst_loss_gene": nll_gene_n, "reconst_loss_protein": nll_protein_n},
            kl_local={"kl_div_z": kl_z_n, "kl_div_l_gene": kl_l_n, "kl_div_back_pro": kl_background_n},
            extra_metrics=self._autotune_payload(tensors, inference_outputs),
        )

    def _background_divergence(self, tensors: Mapping[str, Tensor], decoded: Mapping[str, Any]) -> Tensor:
        """KL of the background, and what the batch's capture and the share of foreground cost, ``(n,)``."""
        kl_np = kl_divergence(decoded["q_background"], self._background_prior(tensors))
        efficiency_pb = LogNormal(0.0, 1.0, validate_args=False).log_prob(self.log_per_batch_efficiency.exp())
        efficiency_n = efficiency_pb.sum(0)[tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)]
        background_n = F.logsigmoid(decoded["mixing"]).sum(-1)
        return self._where_measured(kl_np, tensors, 0.0).sum(-1) - efficiency_n - _FOREGROUND_PENALTY * background_n

    sample = predictive_sample

    @property
    def _weighs_transformed(self) -> bool:  # type: ignore[override]  # it may change once the module is loaded
        return self.scvi_tools_figures

    @property
    def parameters_by_label(self) -> tuple[str, ...]:
        """Names of the parameters with a column for each label."""
        dispersions = {"px_r": self.gene_dispersion, "py_r": self.protein_dispersion}
        return tuple(name for name in dispersions if dispersions[name].endswith("-label"))

    @property
    def latent_transformation(self) -> Callable[[Tensor], Tensor]:
        """From a draw of the latents' normal distribution to what the decoder takes."""
        return self.encoder.z_transformation

    @property
    def counts_to_start_from(self) -> tuple[str, ...]:  # type: ignore[override]
        """Registry keys of genes and, where panels differ, of proteins and of the panel."""
        return (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.PROTEIN_EXP_KEY, self.panel_key)[: 1 if self.measured is None else 3]

    @torch.no_grad()
    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with dispersions, background and foreground of the counts: others cost thousands of nats."""
        x, of_proteins = x.tensor_split((len(self.px_r),), dim=1)
        if not 0 < x.sum() < float("inf"):
            return False
        self.px_r.t().copy_(log_theta_by_moments(x))
        if of_proteins.shape[1]:
            counts_np, panel_n1 = of_proteins.tensor_split((len(self.py_r),), dim=1)
            levels = two_levels(self._where_measured(counts_np, {self.panel_key: panel_n1}, torch.nan))
            self.decoder.start_foreground(*levels, self.background_pro_alpha)
        self.decoder.start_background(self.background_pro_alpha.mean(1), self.background_pro_log_beta.exp().mean(1))
        return True
