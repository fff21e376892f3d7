r"""Variational autoencoder of protein markers measured by cytometry, in panels that share a backbone.

.. math::

    z_n &\sim \sum_m \mathrm{softmax}(w + c\,e_{y_n})_m\, N(\mu_m, \mathrm{diag}\,\sigma_m^2), \qquad
    x_{ng} \sim N(\mu_g(z_n, b_n), \sigma_g^2(z_n, b_n)) \text{ or }
    \mathrm{Beta}(\alpha_g(z_n, b_n), \beta_g(z_n, b_n)) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \Bigl[ -\sum_g m_{ng} \log p(x_{ng} \mid z_n)
        + w\,\mathrm{KL}(q(z_n \mid x_n) \,\|\, p(z_n)) \Bigr]

where m is 1 for markers that the cell's panel has and 0 for others. The encoder reads the backbone: what all panels
have. The KL divergence is worked out from draws, since it has no closed form for a mixture.

Dims: n cells, g markers, k latents, m mixture components, s samples.
Reference: Ingelfinger and others, *CytoVI: deep generative modeling of antibody-based single cell technologies*,
bioRxiv 2025.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions import Normal as Posterior

from ...core import REGISTRY_KEYS, checked
from ...distributions import Beta, Normal
from ...io import ArchiveError
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.base.priors import labelled_mixture, mixture_kl
from ...module.likelihoods import LatentDistribution, Placement, norms
from ...module.marginal import marginal_log_likelihood
from ...module.predictive import predictive_sample
from ...nn import Encoder, FCLayers
from ...nn.fc_layers import Linear, decoded_as, with_covariates
from ...ops.draws import randn, sample
from .panel import PANEL_KEY

__all__ = ["CytoVAE", "DecoderCytoVI", "ProteinLikelihood"]

ProteinLikelihood = Literal["normal", "beta"]

_LEAST = 1e-6
_KL_DRAWS = 10


class DecoderCytoVI(nn.Module):
    """From latents and covariates to two parameters of each marker's distribution.

    Parameters
    ----------
    n_input, n_output
        Size of the latent variable with its dense covariates, and number of markers.
    likelihood
        ``"normal"`` or ``"beta"``.
    scale_activation
        ``"softplus"``: the first parameter is positive; None: any number.
    **kwargs
        For :class:`~celbo.nn.FCLayers`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        likelihood: ProteinLikelihood,
        scale_activation: Literal["softplus"] | None,
        n_hidden: int,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.px_decoder = FCLayers(n_input, n_hidden, n_hidden=n_hidden, **{"dropout_rate": 0} | kwargs)
        first = Linear(n_hidden, n_output)
        self.px_param1_decoder = nn.Sequential(first, nn.Softplus()) if scale_activation else first
        self.px_param2_decoder = Linear(n_hidden, n_output)

    def forward(self, z: Tensor, *codes: Tensor) -> Distribution:
        """Distribution of each marker, ``(..., n, g)``."""
        hidden = self.px_decoder(z, *codes)
        first, second = self.px_param1_decoder(hidden), F.softplus(self.px_param2_decoder(hidden)) + _LEAST
        if self.likelihood == "normal":
            return Normal(first, second, validate_args=False, normal_mu=first)
        return Beta(F.softplus(first) + _LEAST, second, validate_args=False)


class CytoVAE(BaseModuleClass):
    """Conditional autoencoder of markers with a mixture of normal distributions as prior.

    Parameters
    ----------
    n_input, n_batch, n_labels
        Numbers of markers, batches and labels.
    n_hidden, n_latent, n_layers
        Size of hidden layers, size of the latent space, number of hidden layers of encoder and decoder each.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; number of categories of each categorical one (the batch apart).
    dropout_rate
        Dropout of the encoder; the decoder has none.
    log_variational
        Whether the encoder sees ``log(1 + x)``.
    protein_likelihood
        ``"normal"``, or ``"beta"`` for values between 0 and 1.
    latent_distribution
        ``"normal"``, or ``"ln"`` (logistic normal).
    encode_covariates, deeply_inject_covariates
        Whether the encoder sees the covariates; whether they enter each hidden layer, or the first only.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    var_activation
        Makes the encoder's variance positive; ``torch.exp`` when not given.
    encoder_marker_mask
        Which markers the encoder reads, ``(g,)`` booleans; None: all.
    extra_encoder_kwargs, extra_decoder_kwargs
        Further arguments of :class:`~celbo.nn.FCLayers` in encoder and decoder.
    scale_activation
        ``"softplus"`` keeps the first parameter of each marker's distribution positive.
    prior_mixture, prior_mixture_k
        Whether the prior is a mixture, and of how many components; with labels, of one for each label.
    prior_label_weight
        What a cell's label adds to the logit of its component.
    scvi_tools_figures
        Give densities of samples as scvi-tools 1.4.2: each latent dimension is a mixture by itself, with the variances
        for scales. It is on for its archives.
    """

    encoder_columns: Tensor

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: Iterable[int] | None = None,
        dropout_rate: float = 0.1,
        log_variational: bool = False,
        protein_likelihood: ProteinLikelihood = "normal",
        latent_distribution: LatentDistribution = "normal",
        encode_covariates: bool = False,
        deeply_inject_covariates: bool = True,
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        var_activation: Callable[[Tensor], Tensor] | None = None,
        encoder_marker_mask: Sequence[bool] | None = None,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
        scale_activation: Literal["softplus"] | None = None,
        prior_mixture: bool | None = True,
        prior_mixture_k: int = 20,
        prior_label_weight: float | None = 10,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_batch, self.n_latent, self.log_variational = n_batch, n_latent, log_variational
        self.latent_distribution, self.encode_covariates = latent_distribution, encode_covariates
        self.scvi_tools_figures = scvi_tools_figures
        columns = torch.arange(n_input) if encoder_marker_mask is None else torch.tensor(encoder_marker_mask).nonzero()
        self.reads_all = encoder_marker_mask is None
        self.register_buffer("encoder_columns", columns.flatten(), persistent=False)
        self._keep_prior(n_labels, n_latent, prior_mixture_k if prior_mixture else 0, prior_label_weight or 0)
        n_cat_list = [n_batch, *(n_cats_per_cov or [])]
        layers = {"n_hidden": n_hidden, "n_layers": n_layers, "inject_covariates": deeply_inject_covariates}
        self.z_encoder = Encoder(
            len(self.encoder_columns) + n_continuous_cov * encode_covariates,
            n_latent,
            n_cat_list=n_cat_list if encode_covariates else None,
            dropout_rate=dropout_rate,
            distribution=latent_distribution,
            var_activation=var_activation,
            return_dist=True,
            **layers | norms("encoder", use_batch_norm, use_layer_norm) | (extra_encoder_kwargs or {}),
        )
        self.decoder = DecoderCytoVI(
            n_latent + n_continuous_cov,
            n_input,
            protein_likelihood,
            scale_activation,
            n_cat_list=n_cat_list,
            **layers | norms("decoder", use_batch_norm, use_layer_norm) | (extra_decoder_kwargs or {}),
        )

    def _keep_prior(self, n_labels: int, n_latent: int, n_components: int, label_weight: float) -> None:
        """Parameters of the mixture: with labels all components begin alike, as each has cells of its own."""
        self.has_mixture, self.has_labels, self.label_weight = bool(n_components), n_labels > 1, label_weight
        if n_components:
            m = n_labels if self.has_labels else n_components
            self.prior_means = nn.Parameter(torch.zeros(m, n_latent) if self.has_labels else randn(m, n_latent))
            self.prior_log_scales = nn.Parameter(torch.zeros(m, n_latent))
            self.prior_logits = nn.Parameter(torch.zeros(m))

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Refuse an archive of scvi-tools on panels, if the data that say what the encoder reads are not there.

        The refusal is an ``ArchiveError``.
        """
        if not model.knows_backbone:
            raise ArchiveError(
                "This archive of scvi-tools does not say which markers the encoder reads: load it with adata=, the "
                "data whose panels do. An archive that celbo saves then says it."
            )

    def prior(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Prior of latents ``(..., n, k)``: over vectors for a mixture, by dimension where it is the standard normal.

        Parameters
        ----------
        z
            Latents; only their shape is used.
        y
            Codes of the labels, ``(n, 1)``.
        """
        if not self.has_mixture:
            return Posterior(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
        scales, labels = self.prior_log_scales.exp() + 1e-4, y if self.has_labels else None
        return labelled_mixture(self.prior_logits, self.prior_means, scales, labels, self.label_weight)

    @auto_move_data
    def inference(
        self,
        x: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        x
            Markers, ``(n, g)``.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)`` and ``qz``.
        """
        seen = x if self.reads_all else x.index_select(1, self.encoder_columns)
        seen = seen.log1p() if self.log_variational else seen
        codes: list[Tensor] = []
        if self.encode_covariates:
            seen, codes = with_covariates(seen, batch_index, cont_covs, cat_covs)
        qz, z = self.z_encoder(seen, *codes)
        return {"z": self.z_encoder.z_transformation(sample(qz, (n_samples,))) if n_samples > 1 else z, "qz": qz}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Distribution]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        batch_index, y
            Codes of batches and labels, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px`` of all markers, measured or not, and the prior ``pz``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        decoded, codes = with_covariates(z, batch_index, cont_covs, cat_covs)
        return {"px": self.decoder(decoded, *codes), "pz": self.prior(z, y)}

    def log_likelihood(self, tensors: Mapping[str, Tensor], generative_outputs: Mapping[str, Any]) -> Tensor:
        """Log-likelihood of the markers that each cell's panel has, in nats.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        generative_outputs
            What :meth:`generative` gave for it.

        Returns
        -------
        ``(n,)``, or ``(s, n)`` for samples.
        """
        px, x_ng, measured_ng = generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY], tensors.get(PANEL_KEY)
        if measured_ng is None:
            return px.log_prob(x_ng).sum(-1)
        there_ng = measured_ng > 0
        log_p = px.log_prob(torch.where(there_ng, x_ng, 0.5))  # any number that both likelihoods allow
        return torch.where(there_ng, log_p, 0.0).sum(-1)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound, see the head of this file.

        The KL divergence is the mean over ten draws; in training over one, whose noise the minibatch averages out.
        """
        nll_n = -self.log_likelihood(tensors, generative_outputs)
        kl_n = self._kl(inference_outputs["qz"], generative_outputs["pz"])
        kl = {"kl_divergence_z": kl_n}
        return LossOutput((nll_n + kl_weight * kl_n).mean(), reconstruction_loss=nll_n, kl_local=kl)

    def _kl(self, qz: Posterior, pz: Distribution) -> Tensor:
        if self.has_mixture:
            return mixture_kl(qz, pz, 1 if self.training else _KL_DRAWS)
        return torch.distributions.kl_divergence(qz, pz).sum(-1)

    @torch.no_grad()
    def sample(
        self, tensors: Mapping[str, Tensor], n_samples: int = 1, generative_kwargs: dict[str, Any] | None = None
    ) -> Tensor:
        """Markers from the posterior predictive distribution: ``(n, g)``, or ``(n, g, s)`` for more than one draw."""
        return predictive_sample(self, tensors, n_samples, generative_kwargs)

    @torch.no_grad()
    def marginal_ll(
        self,
        tensors: Mapping[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
    ) -> Tensor | float:
        """Marginal log-likelihood of the measured markers under the module's own prior, by importance sampling.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        n_mc_samples, n_mc_samples_per_pass
            Samples per cell in all, and at once.
        return_mean
            Whether to return the mean over cells.

        Returns
        -------
        ``(n,)`` on the CPU in nats, or its mean.
        """
        sizes = (n_mc_samples, n_mc_samples_per_pass)
        ll_n = marginal_log_likelihood(self, self.z_encoder.z_transformation, tensors, *sizes).cpu()
        return ll_n.mean().item() if return_mean else ll_n
