"""Networks and parameters of the multimodal autoencoder, and which counts of a minibatch are of which modality.

Dims: n cells, k latents, m modalities (expression, accessibility, protein).
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..core import REGISTRY_KEYS, checked
from ..nn import AccessibilityDecoder, DecoderSCVI, Encoder
from ..nn.protein import ProteinDecoder
from ..ops.draws import randn, uniform
from .base import BaseMinifiedModeModuleClass
from .likelihoods import (
    Dispersion,
    LatentDistribution,
    Placement,
    ProteinDispersion,
    as_of_genes,
    dispersion_shape,
    norms,
)
from .modalities import ModalityPenalty

__all__ = [
    "MODALITIES",
    "MOST_LOG",
    "NARROW",
    "CountLikelihoodName",
    "ModalityWeights",
    "MultimodalNetworks",
    "multimodal_sizes",
]

MODALITIES = ("expression", "accessibility", "protein")
"""Names of the modalities, in the order of masks and weights."""

ModalityWeights = Literal["equal", "cell", "universal"]
CountLikelihoodName = Literal["zinb", "nb", "poisson"]

_KEYS = (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.ATAC_X_KEY, REGISTRY_KEYS.PROTEIN_EXP_KEY)
_MOST_HIDDEN = 128
_VAR_EPS = 1e-4
NARROW = 64
"""Fewer hidden units than these, which panels of a few hundred regions have by default, need a start of their own."""

_FIRST_LOG_VARIANCE = -4.0
"""What theirs begin with. At a variance of 1 draws hide what the means say, and decoders learn to ignore them."""

MOST_LOG = 15.0
"""Most of a log library or log variance: beyond, single precision has no room for what follows."""


def multimodal_sizes(
    n_regions: int, n_genes: int, n_hidden: int | None = None, n_latent: int | None = None
) -> tuple[int, int]:
    """Hidden and latent size where they are not given: root of the number of regions (or genes), and its root."""
    n_hidden = min(_MOST_HIDDEN, math.isqrt(n_regions or n_genes)) if n_hidden is None else n_hidden
    return n_hidden, math.isqrt(n_hidden) if n_latent is None else n_latent


class MultimodalNetworks(BaseMinifiedModeModuleClass):
    """Networks of :class:`~celbo.module.MULTIVAE`, whose arguments these are.

    Raises a ``ValueError`` for an unknown choice of likelihood or latents, and where there is no modality.
    """

    use_observed_lib_size = True  # where only latents are kept, so are the totals of genes

    @checked
    def __init__(
        self,
        n_input_regions: int = 0,
        n_input_genes: int = 0,
        n_input_proteins: int = 0,
        modality_weights: ModalityWeights = "equal",
        modality_penalty: ModalityPenalty = "Jeffreys",
        n_batch: int = 0,
        n_obs: int = 0,
        n_labels: int = 0,
        gene_likelihood: CountLikelihoodName = "zinb",
        gene_dispersion: Dispersion = "gene",
        n_hidden: int | None = None,
        n_latent: int | None = None,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 2,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.1,
        region_factors: bool = True,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        latent_distribution: LatentDistribution = "normal",
        deeply_inject_covariates: bool = False,
        encode_covariates: bool = False,
        use_size_factor_key: bool = False,
        protein_background_prior_mean: Any = None,
        protein_background_prior_scale: Any = None,
        protein_dispersion: ProteinDispersion = "protein",
        extra_payload_autotune: bool = False,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_inputs = (n_input_genes, n_input_regions, n_input_proteins)
        if not any(self.n_inputs):
            raise ValueError("There are no genes, no regions and no proteins: name at least one modality.")
        self.n_input_genes, self.n_input_regions, self.n_input_proteins = self.n_inputs
        self.n_hidden, self.n_latent = multimodal_sizes(n_input_regions, n_input_genes, n_hidden, n_latent)
        self.n_batch, self.n_obs, self.n_labels = n_batch, n_obs, n_labels
        self.gene_likelihood, self.gene_dispersion = gene_likelihood, gene_dispersion
        self.protein_dispersion = protein_dispersion
        self.modality_weights, self.modality_penalty = modality_weights, modality_penalty
        self.latent_distribution, self.encode_covariates = latent_distribution, encode_covariates
        self.use_size_factor_key, self.extra_payload_autotune = use_size_factor_key, extra_payload_autotune
        self.scvi_tools_figures, self.decodes_means = scvi_tools_figures, False
        self._add_parameters(region_factors)
        n_cats = [n_batch, *(n_cats_per_cov or [])]
        deep = deeply_inject_covariates
        seen: dict[str, Any] = {"n_cat_list": n_cats if encode_covariates else None, "n_layers": n_layers_encoder}
        made: dict[str, Any] = {"n_cat_list": n_cats, "n_layers": n_layers_decoder}
        seen |= norms("encoder", use_batch_norm, use_layer_norm)
        made |= norms("decoder", use_batch_norm, use_layer_norm)
        self._add_encoders(n_continuous_cov * encode_covariates, dropout_rate, deep, seen)
        self._add_decoders(self.n_latent + n_continuous_cov, deep, made)

    def _add_encoders(self, n_more: int, dropout_rate: float, deep: bool, layers: dict[str, Any]) -> None:
        layers = {"n_hidden": self.n_hidden, **layers}
        of_latents: dict[str, Any] = {
            "n_output": self.n_latent,
            "dropout_rate": dropout_rate,
            "distribution": self.latent_distribution,
            "activation_fn": nn.LeakyReLU,
            "var_eps": 0 if self.scvi_tools_figures else _VAR_EPS,
            "var_activation": torch.exp if self.scvi_tools_figures else _bounded_exp,
            "return_dist": True,
            **layers,
        }
        of_library: dict[str, Any] = {"n_output": 1, "deep_inject_covariates": deep, **layers}
        n_genes, n_regions, n_proteins = (max(1, n) + n_more for n in self.n_inputs)
        self.z_encoder_expression = Encoder(n_genes, inject_covariates=deep, **of_latents)
        self.l_encoder_expression = AccessibilityDecoder(n_genes, activation=nn.LeakyReLU, **of_library)
        self.z_encoder_accessibility = Encoder(n_regions, **of_latents)
        self.l_encoder_accessibility = AccessibilityDecoder(n_regions, **of_library)
        self.z_encoder_protein = Encoder(n_proteins, **of_latents)
        if self.n_hidden < NARROW and not self.scvi_tools_figures:
            for encoder in (self.z_encoder_expression, self.z_encoder_accessibility, self.z_encoder_protein):
                nn.init.constant_(encoder.var_encoder.bias, _FIRST_LOG_VARIANCE)

    def _add_decoders(self, n_input: int, deep: bool, layers: dict[str, Any]) -> None:
        layers = {"n_input": n_input, "n_hidden": self.n_hidden, **layers}
        n_genes, n_regions, n_proteins = self.n_inputs
        self.z_decoder_expression = DecoderSCVI(n_output=n_genes, inject_covariates=deep, **layers)
        self.z_decoder_accessibility = AccessibilityDecoder(n_output=n_regions, deep_inject_covariates=deep, **layers)
        self.z_decoder_pro = ProteinDecoder(n_output=n_proteins, **layers)

    def _add_parameters(self, region_factors: bool) -> None:
        groups, of_proteins = (self.n_batch, self.n_labels), as_of_genes(self.protein_dispersion)
        of_genes = "gene" if self.gene_dispersion == "gene-cell" else self.gene_dispersion
        self.px_r = nn.Parameter(randn(*dispersion_shape(of_genes, self.n_input_genes, *groups)))
        self.py_r = nn.Parameter(uniform(0, 2, *dispersion_shape(of_proteins, self.n_input_proteins, *groups)))
        self.region_factors = nn.Parameter(torch.zeros(self.n_input_regions)) if region_factors else None
        by_batch = (self.n_input_proteins, self.n_batch) if self.n_batch else (self.n_input_proteins,)
        self.background_pro_alpha = nn.Parameter(torch.zeros(by_batch))
        self.background_pro_log_beta = nn.Parameter(torch.zeros(by_batch))
        size = (self.n_obs, len(MODALITIES)) if self.modality_weights == "cell" else (len(MODALITIES),)
        if self.modality_weights == "equal":
            self.register_buffer("mod_weights", torch.ones(size))
        else:
            self.mod_weights = nn.Parameter(torch.ones(size))

    def decoding_means(self) -> Self:
        """The same module, sharing weights, that decodes the means of latents where draws are asked for."""
        variant = copy.copy(self)
        variant.decodes_means = True
        return variant

    def _counts(self, tensors: Mapping[str, Tensor]) -> list[Tensor | None]:
        """Counts of each modality; None for one that the module does not have."""
        found = [tensors.get(key) if n else None for key, n in zip(_KEYS, self.n_inputs, strict=True)]
        x = tensors.get(REGISTRY_KEYS.X_KEY)
        if x is not None and self.n_input_regions and REGISTRY_KEYS.ATAC_X_KEY not in tensors:
            n_genes = self.n_input_genes  # an AnnData has the regions behind the genes
            found[:2] = [x if n_genes else None, x[:, n_genes:]]
        return [x if x is None or x.shape[1] == n else x[:, :n] for x, n in zip(found, self.n_inputs, strict=True)]

    def _has(self, counts: list[Tensor | None], presence: Tensor | None) -> Tensor:
        """Which modalities each cell has, ``(n, m)``: as the MuData says, or by counts, where an AnnData cannot say."""
        there = [m for m, x in enumerate(counts) if x is not None]
        by_counts = presence is None or self.scvi_tools_figures
        columns: list[Tensor | None] = [None] * len(counts)
        for column, m in enumerate(there):
            x = counts[m]
            table_n = x.sum(-1) if x is not None and by_counts else presence[:, column]  # type: ignore[index]
            columns[m] = table_n > 0
        none_n = torch.zeros_like(columns[there[0]])  # type: ignore[arg-type]
        return torch.stack([none_n if column is None else column for column in columns], dim=1)


def _bounded_exp(log_variance: Tensor) -> Tensor:
    return log_variance.clamp(max=MOST_LOG).exp()
