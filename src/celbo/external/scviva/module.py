r"""Autoencoder of a cell and its niche: its counts, the types of its neighbours and their states.

.. math::

    z_n &\sim N(0, I) \text{ or a mixture}, \qquad x_{ng} \sim \mathrm{Poisson}(\ell_n\, \rho_g(z_n, b_n)), \\
    \alpha_n &\sim \mathrm{Dirichlet}(\kappa(z_n)), \qquad
    \eta_{nc} \sim N(\mu_c(z_n, b_n), \sigma_c(z_n, b_n)) \quad \text{for types } c \text{ among the neighbours} \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \left[ w_x (-\log p(x_n \mid z_n) + 50\,\mathrm{CE}_n)
        + w_z\,\mathrm{KL}_n + w_s (-\log p(\alpha_n \mid z_n) - \log p(\eta_n \mid z_n)) \right]

with :math:`\alpha` the shares of cell types among the nearest cells, :math:`\eta` the mean embedding of those of each
type, and CE the cross-entropy of a classifier of the cell's own type.

Dims: n cells, g genes, k latents, b batches, c cell types, e dimensions of the embedding, s samples.
Reference: Levy et al., *scVIVA: a probabilistic framework for representation of cells and their environments in spatial
transcriptomics*, bioRxiv 2025.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, Poisson, kl_divergence

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Number, Whole
from ...module import VAE, Classifier
from ...module.base import LossOutput
from ...module.base.priors import labelled_mixture, mixture_kl
from ...module.likelihoods import Placement, log_likelihood, norms
from ...nn import Encoder
from ...nn.fc_layers import decoded_as
from ...ops.draws import randn
from .layers import DirichletDecoder, NicheDecoder, OneHeadEncoder

__all__ = ["SCVIVA_REGISTRY_KEYS", "NicheLossOutput", "nicheVAE"]


class _RegistryKeys(NamedTuple):
    """Registry keys of a cell's surroundings."""

    SAMPLE_KEY: str = "sample"
    Z1_MEAN_KEY: str = "latent_mean"
    NICHE_INDEXES_KEY: str = "niche_indexes"
    NICHE_DISTANCES_KEY: str = "niche_distances"
    NICHE_COMPOSITION_KEY: str = "niche_composition"
    Z1_MEAN_CT_KEY: str = "latent_mean_ct_key"
    CELL_COORDINATES_KEY: str = "spatial"


SCVIVA_REGISTRY_KEYS = _RegistryKeys()

_CLASSIFICATION_RATIO = 50.0


@dataclasses.dataclass(frozen=True, eq=False)
class NicheLossOutput(LossOutput):
    """A :class:`~celbo.module.base.LossOutput` with what the niche adds.

    Parameters
    ----------
    composition_loss, niche_loss
        Negative log-likelihood of the shares of cell types around each cell, and of their states, ``(n,)`` in nats.
    """

    composition_loss: Any = None
    niche_loss: Any = None


class nicheVAE(VAE):
    """Autoencoder of cells and their niches.

    Parameters
    ----------
    n_input, n_batch, n_labels, n_hidden, n_latent, n_layers, n_continuous_cov, n_cats_per_cov
        See :class:`~celbo.module.VAE`; labels are cell types, of which the neighbours are too.
    n_output_niche
        Dimensions of the embedding of cells that niches are described in.
    n_layers_niche, n_layers_compo, n_hidden_niche, n_hidden_compo
        Hidden layers of the decoders of states and of shares, and their width.
    dropout_rate
        Of the encoders and of the decoder of states.
    niche_likelihood
        ``"gaussian"``, or ``"poisson"`` for an embedding of counts.
    cell_rec_weight, latent_kl_weight, spatial_weight
        Weights of the cell's own counts and type, of the KL divergence, and of shares and states.
    prior_mixture, prior_mixture_k
        Whether the prior is a mixture: one component per cell type with ``semisupervised``, else this many.
    semisupervised, linear_classifier
        Whether latents must tell the cell's type, and whether by a linear layer.
    inpute_covariates_niche_decoder
        Whether states depend on the batch and further categories (scvi-tools' spelling).
    use_batch_norm, use_layer_norm, **vae_kwargs
        See :class:`~celbo.module.VAE`.
    """

    _z_encoder_cls: ClassVar[type[Encoder]] = OneHeadEncoder

    @checked
    def __init__(
        self,
        n_input: int,
        n_output_niche: Annotated[int, Whole(1)],
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        n_layers_niche: Annotated[int, Whole(1)] = 1,
        n_layers_compo: Annotated[int, Whole(1)] = 1,
        n_hidden_niche: Annotated[int, Whole(1)] = 128,
        n_hidden_compo: Annotated[int, Whole(1)] = 128,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.1,
        gene_likelihood: Literal["zinb", "nb", "poisson"] = "poisson",
        niche_likelihood: Literal["poisson", "gaussian"] = "gaussian",
        cell_rec_weight: Annotated[float, Number(0)] = 1.0,
        latent_kl_weight: Annotated[float, Number(0)] = 1.0,
        spatial_weight: Annotated[float, Number(0)] = 10,
        prior_mixture: bool = False,
        prior_mixture_k: Annotated[int, Whole(1)] = 20,
        semisupervised: bool = True,
        linear_classifier: bool = True,
        inpute_covariates_niche_decoder: bool = True,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        **vae_kwargs: Any,
    ) -> None:
        sizes: dict[str, Any] = {"n_hidden": n_hidden, "n_latent": n_latent, "n_layers": n_layers}
        placed: dict[str, Any] = {"use_batch_norm": use_batch_norm, "use_layer_norm": use_layer_norm}
        layers = {**sizes, **placed, "dropout_rate": dropout_rate}
        covariates: dict[str, Any] = {"n_continuous_cov": n_continuous_cov, "n_cats_per_cov": n_cats_per_cov}
        counts = {"gene_likelihood": gene_likelihood, **covariates, **layers, **vae_kwargs}
        super().__init__(n_input, n_batch, n_labels, **counts)
        self.niche_likelihood = niche_likelihood
        self.cell_rec_weight, self.latent_kl_weight = cell_rec_weight, latent_kl_weight
        self.spatial_weight = spatial_weight
        self.prior_mixture, self.semisupervised = prior_mixture, semisupervised
        self.inpute_covariates_niche_decoder = inpute_covariates_niche_decoder
        deep = vae_kwargs.get("deeply_inject_covariates", True)
        decoders = norms("decoder", use_batch_norm, use_layer_norm) | (vae_kwargs.get("extra_decoder_kwargs") or {})
        self.niche_decoder = NicheDecoder(
            n_latent + self.n_dense_covariates,
            n_output_niche,
            n_labels,
            n_cat_list=self.n_cat_list if inpute_covariates_niche_decoder else None,
            n_layers=n_layers_niche,
            n_hidden=n_hidden_niche,
            dropout_rate=dropout_rate,
            inject_covariates=deep,
            **decoders,
        )
        sizes = {"n_layers": n_layers_compo, "n_hidden": n_hidden_compo, **decoders}
        self.composition_decoder = DirichletDecoder(n_latent + self.n_dense_covariates, n_labels, **sizes)
        if semisupervised:
            self._make_classifier(linear_classifier, dropout_rate)
        if prior_mixture:
            self._make_mixture(n_labels if semisupervised else prior_mixture_k)

    def _make_classifier(self, is_linear: bool, dropout_rate: float) -> None:
        width, depth = (0, 0) if is_linear else (self.n_hidden, self.n_layers)
        options: dict[str, Any] = {"logits": True, "use_batch_norm": False, "use_layer_norm": True}
        self.classifier = Classifier(self.n_latent, width, self.n_labels, depth, dropout_rate, **options)

    def _make_mixture(self, n_components: int) -> None:
        self.prior_means = nn.Parameter(randn(n_components, self.n_latent))
        self.prior_log_scales = nn.Parameter(torch.zeros(n_components, self.n_latent))
        self.prior_logits = nn.Parameter(torch.zeros(n_components))

    def _prior(self, z: Tensor, y: Tensor | None) -> Distribution:
        if not self.prior_mixture:
            return Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
        scales = self.prior_log_scales.exp() + 1e-4
        return labelled_mixture(self.prior_logits, self.prior_means, scales, y if self.semisupervised else None)

    def _niche(self, normal: Normal) -> Distribution:
        """The states' distribution; a Poisson has the rates that the standard deviations would be."""
        return normal if self.niche_likelihood == "gaussian" else Poisson(normal.scale, validate_args=False)

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
    ) -> dict[str, Distribution | None]:
        """Decode latents to the cell and its niche; arguments as in :meth:`celbo.module.VAE.generative`.

        Returns
        -------
        What the autoencoder of counts gives, and ``niche_composition``, a Dirichlet distribution over ``(n, c)``, and
        ``niche_expression``, a distribution over ``(n, c, e)``.
        """
        decoded = super().generative(z, library, batch_index, cont_covs, cat_covs, size_factor, y, transform_batch)
        batch_index = decoded_as(batch_index, transform_batch)
        latents, codes = self._with_covariates(z, batch_index, cont_covs, cat_covs)
        of_niche = codes if self.inpute_covariates_niche_decoder else []
        return decoded | {
            "pz": self._prior(z, y),
            "niche_expression": self._niche(self.niche_decoder(latents, *of_niche)),
            "niche_composition": self.composition_decoder(latents),
        }

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        classification_ratio: float = _CLASSIFICATION_RATIO,
        epsilon: float = 1e-6,
        n_samples_mixture: int = 10,
    ) -> NicheLossOutput:
        """Negative evidence lower bound of a cell and its niche.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs, kl_weight
            See :meth:`celbo.module.VAE.loss`.
        classification_ratio
            Weight of the classifier's cross-entropy, which stands in the reconstruction of the cell.
        epsilon
            Added to the shares of cell types, so that none is 0, before they are made to sum to 1 again.
        n_samples_mixture
            Draws for the divergence from a mixture.
        """
        nll_n = -log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        classified = self._classified(tensors, inference_outputs["qz"])
        if classified:
            nll_n = nll_n + classification_ratio * _cross_entropy(classified)
        composition_n = _composition_loss(tensors, generative_outputs, epsilon)
        niche_n = _niche_loss(tensors, generative_outputs)
        qz, pz = inference_outputs["qz"], generative_outputs["pz"]
        kl_z_n = mixture_kl(qz, pz, n_samples_mixture) if self.prior_mixture else kl_divergence(qz, pz).sum(-1)
        ql = inference_outputs["ql"]
        kl_l_n = torch.zeros_like(kl_z_n) if ql is None else kl_divergence(ql, generative_outputs["pl"]).sum(-1)
        loss_n = (
            self.cell_rec_weight * nll_n
            + self.latent_kl_weight * (kl_weight * kl_z_n + kl_l_n)
            + self.spatial_weight * (composition_n + niche_n)
        )
        return NicheLossOutput(
            loss=loss_n.mean(),
            reconstruction_loss=nll_n,
            kl_local={"kl_divergence_l": kl_l_n, "kl_divergence_z": kl_z_n},
            **classified,
            extra_metrics={"niche_compo": composition_n.mean(), "niche_reconst": niche_n.mean()},
            composition_loss={"composition_loss": composition_n},
            niche_loss={"niche_loss": niche_n},
        )

    def _classified(self, tensors: Mapping[str, Tensor], qz: Normal) -> dict[str, Any]:
        """What the classifier says of the latents' mean, as fields of the loss record; nothing without one."""
        if not self.semisupervised:
            return {}
        y, logits = tensors[REGISTRY_KEYS.LABELS_KEY].reshape(-1).long(), self.classifier(qz.loc)
        return {"classification_loss": F.cross_entropy(logits, y), "logits": logits, "true_labels": y}

    @torch.no_grad()
    def marginal_ll(
        self,
        tensors: Mapping[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor | float:
        """Marginal log-likelihood of the counts, and with a classifier 50 times that of the cell's own type.

        Parameters and returns are those of :meth:`celbo.module.VAE.marginal_ll`.
        """
        ll_n = torch.as_tensor(super().marginal_ll(tensors, n_mc_samples, False, n_mc_samples_per_pass, generator))
        qz = self.inference(**self._get_inference_input(tensors))["qz"]
        data = {key: table.to(qz.loc.device) for key, table in tensors.items()}
        classified = self._classified(data, qz)
        if classified:
            ll_n = ll_n - _CLASSIFICATION_RATIO * _cross_entropy(classified).cpu()
        return ll_n.mean().item() if return_mean else ll_n


def _cross_entropy(classified: Mapping[str, Tensor]) -> Tensor:
    """That of each cell, ``(n,)``."""
    return F.cross_entropy(classified["logits"], classified["true_labels"], reduction="none")


def _composition_loss(tensors: Mapping[str, Tensor], decoded: Mapping[str, Any], epsilon: float) -> Tensor:
    """Negative log-likelihood of the shares of cell types around each cell, ``(n,)``."""
    shares_nc = tensors[SCVIVA_REGISTRY_KEYS.NICHE_COMPOSITION_KEY] + epsilon
    return -decoded["niche_composition"].log_prob(shares_nc / shares_nc.sum(-1, keepdim=True))


def _niche_loss(tensors: Mapping[str, Tensor], decoded: Mapping[str, Any]) -> Tensor:
    """Negative log-likelihood of the states of those types that are among a cell's neighbours, ``(n,)``."""
    there_nc = tensors[SCVIVA_REGISTRY_KEYS.NICHE_COMPOSITION_KEY] > 0
    niche: Distribution = decoded["niche_expression"]
    state_nce = tensors[SCVIVA_REGISTRY_KEYS.Z1_MEAN_CT_KEY].unflatten(-1, niche.batch_shape[-2:])
    return -(niche.log_prob(state_nce).sum(-1) * there_nc).sum(-1)
