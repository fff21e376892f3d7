r"""Counts of cells in tissue as a mixture: the cell's own, those that diffused from its neighbours, and background.

.. math::

    z_n &\sim \text{a mixture of normals}, \qquad \rho_n = \mathrm{softmax}(f(z_n, b_n)), \\
    \mu_{ng} &= \ell_n \Bigl( \pi_{n1}\,\rho_{ng} + \pi_{n2} \sum_m w_{nm}\,\rho_{mg}
        + \pi_{n3}\,\beta_{b_n g} \Bigr), \qquad x_{ng} \sim \mathrm{NB}(\mu_{ng}, \theta'_{ng}) \\
    \pi_n &\sim \mathrm{Dirichlet}(\tau), \qquad w_n \sim \mathrm{Dirichlet}(30\,e^{-s d_{nm}^2 / d_0^2})

over the neighbours m of a cell, whose profiles :math:`\rho_m` are decoded as cells of its batch and get no gradient.
The shares :math:`\pi_n`, the weights :math:`w_n` and what all cells share are point estimates under their priors. The
gamma noise of an inverse dispersion lies on own and diffused counts, not on the background: the negative binomial has
the mean and the variance of that sum, :math:`\theta' = \theta\,(\mu / (\mu - \mathrm{background}))^2`.

Dims: n cells, m neighbours, g genes, k latents, b batches, c classes, s samples.
Reference: Ergen and Yosef, *ResolVI: addressing noise and bias in spatial transcriptomics*, bioRxiv 2025.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, Distribution, MixtureSameFamily, Normal

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Number, Whole
from ...distributions import NegativeBinomial, Poisson
from ...module import Classifier
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.base.priors import labelled_mixture
from ...module.likelihoods import Placement, log_theta_of, norms
from ...nn import DecoderSCVI, Encoder
from ...nn.fc_layers import codes_of, decoded_as
from ...ops.draws import randn, rsample, sample
from .learned import Learned, first_values
from .parts import SHARES, Parts, counted, keep_priors, named_part, shared_log_prior

__all__ = ["DISTANCE_KEY", "INDEX_KEY", "RESOLVAE"]

INDEX_KEY, DISTANCE_KEY = "index_neighbor", "distance_neighbor"

_CLASSIFICATION, _TIMES_THERE = 50.0, 5.0
_CLASSIFIER = {"n_layers": 0, "dropout_rate": 0.0, "use_batch_norm": False, "use_layer_norm": True}
_NEAREST, _LEAST = 30.0, 1e-3
_FEWEST_COUNTS = 10.0


class RESOLVAE(BaseModuleClass):
    """Autoencoder of counts of which some come from a cell's neighbours and some from the background.

    Parameters
    ----------
    n_input, n_obs, n_neighbors, n_batch, n_labels
        Numbers of genes, of training cells, of neighbours of each, of batches and labels.
    n_hidden, n_hidden_encoder, n_latent, n_layers, dropout_rate
        Width of decoder and encoders, latents, hidden layers of each, dropout of the encoder of latents.
    mixture_k
        Components of the prior of the latents; with ``semisupervised`` one for each label.
    n_cats_per_cov
        Categories of further covariates.
    dispersion
        ``"gene"`` or ``"gene-batch"``.
    gene_likelihood
        ``"nb"`` or ``"poisson"``.
    semisupervised
        Whether latents must tell the labels of labelled cells.
    encode_covariates, deeply_inject_covariates, use_batch_norm, use_layer_norm, var_activation
        See :class:`~celbo.module.VAE`.
    classifier_parameters
        Further arguments of :class:`~celbo.module.Classifier`.
    prior_true_amount, prior_diffusion_amount, background_ratio, prior_proportions_rate, sparsity_diffusion
        Expected shares of own, diffused and (ten times) background counts, how firmly they are expected, and how alike
        all cells are.
    median_distance
        Squared distance that those of neighbours are measured by.
    downsample_counts_mean, downsample_counts_std
        Of the log of the totals that counts are thinned to in training, before they are encoded; None: they are not.
    diffusion_eps
        Added to the share of diffused counts.
    scvi_tools_figures
        Take the prior's density of shares, not of their logits, and that of a cell's shares five times, as scvi-tools
        does: set for its archives.
    expression_anntorchdata, latent_distribution, size_scaling
        Accepted for compatibility with scvi-tools: neighbours' counts come with the minibatch.
    """

    parameters_of_cells = ("learned.per_neighbor_diffusion_map", "_guide.per_neighbor_diffusion_init")

    @checked
    def __init__(
        self,
        n_input: int,
        n_obs: int,
        n_neighbors: int,
        expression_anntorchdata: object = None,
        n_batch: int = 0,
        n_hidden: int = 32,
        n_hidden_encoder: Annotated[int, Whole(1)] = 128,
        n_latent: int = 10,
        mixture_k: Annotated[int, Whole(1)] = 30,
        n_layers: int = 2,
        n_cats_per_cov: list[int] | None = None,
        n_labels: int | None = None,
        dropout_rate: float = 0.05,
        dispersion: Literal["gene", "gene-batch"] = "gene",
        gene_likelihood: Literal["nb", "poisson"] = "nb",
        semisupervised: bool = False,
        encode_covariates: bool = False,
        deeply_inject_covariates: bool = True,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        var_activation: Callable[[Tensor], Tensor] | None = None,
        classifier_parameters: dict[str, Any] | None = None,
        prior_true_amount: Annotated[float, Number(0, above=True)] = 1.0,
        prior_diffusion_amount: Annotated[float, Number(0, above=True)] = 0.3,
        sparsity_diffusion: Annotated[float, Number(0, above=True)] = 3.0,
        background_ratio: Annotated[float, Number(0)] = 0.1,
        prior_proportions_rate: Annotated[float, Number(0, above=True)] = 10.0,
        median_distance: Annotated[float, Number(0, above=True)] = 1.0,
        downsample_counts_mean: float | None = None,
        downsample_counts_std: float = 1.0,
        diffusion_eps: Annotated[float, Number(0)] = 0.01,
        latent_distribution: str | None = None,
        size_scaling: bool = False,
        *,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.scvi_tools_figures = scvi_tools_figures
        self._times = _TIMES_THERE if scvi_tools_figures else 1.0  # that the prior of a cell's shares counts
        self.n_latent, self.n_batch, self.n_obs = n_latent, n_batch, n_obs
        self.n_neighbors, self.n_labels = n_neighbors, n_labels
        self.dispersion, self.gene_likelihood, self.semisupervised = dispersion, gene_likelihood, semisupervised
        self.encode_covariates, self.diffusion_eps = encode_covariates, diffusion_eps
        self.downsample_counts_mean, self.downsample_counts_std = downsample_counts_mean, downsample_counts_std
        n_cats = [n_batch, *(n_cats_per_cov or [])]
        layers: dict[str, Any] = {"n_layers": n_layers, "inject_covariates": deeply_inject_covariates}
        encoders: dict[str, Any] = {
            **layers,
            "n_cat_list": n_cats if encode_covariates else None,
            "n_hidden": n_hidden_encoder,
            **norms("encoder", use_batch_norm, use_layer_norm),
        }
        decoder = {**layers, "n_hidden": n_hidden, **norms("decoder", use_batch_norm, use_layer_norm)}
        self.z_encoder = Encoder(
            n_input, n_latent, dropout_rate=dropout_rate, var_activation=var_activation, return_dist=True, **encoders
        )
        shape = (n_input, n_batch) if dispersion == "gene-batch" else (n_input,)
        self._guide, self._model = (named_part(self.z_encoder, n_batch, n_input, shape) for _ in range(2))
        self._guide.register_buffer("per_neighbor_diffusion_init", torch.zeros(n_obs, n_neighbors))
        shares = {"dropout_rate": 0.0, "var_activation": nn.Softmax(dim=-1), "var_eps": _LEAST}
        self._guide.diffusion_encoder = Encoder(n_input, len(SHARES), **shares, **encoders)  # type: ignore[arg-type]
        amounts = torch.tensor([prior_true_amount, prior_diffusion_amount, 10 * background_ratio + _LEAST])
        keep_priors(self._model, amounts, prior_proportions_rate, median_distance, sparsity_diffusion)
        self._make_prior((n_labels or 1) if semisupervised else mixture_k)
        self._model.decoder = DecoderSCVI(n_latent, n_input, n_cat_list=n_cats, **decoder)
        if semisupervised:
            given: dict[str, Any] = _CLASSIFIER | (classifier_parameters or {})
            self._model.classifier = Classifier(n_latent, n_labels=n_labels or 1, **given)
        diffused = 3.0 if scvi_tools_figures else 5.0 * prior_diffusion_amount / prior_true_amount
        self.learned = Learned(first_values(n_obs, n_neighbors, n_batch, n_input, shape, diffused))

    # For ``sample_posterior(model=)`` of notebooks: there is one model, which has the sites of all.
    model_corrected = model_residuals = property(lambda self: self)

    def _make_prior(self, n_components: int) -> None:
        scale = 0.0 if self.semisupervised else -1.0
        self._model.u_prior_logits = nn.Parameter(torch.ones(n_components))
        self._model.u_prior_means = nn.Parameter(randn(n_components, self.n_latent))
        self._model.u_prior_scales = nn.Parameter(torch.full((n_components, self.n_latent), scale))

    def _encoded(self, x: Tensor, per: Tensor, codes: list[Tensor]) -> tuple[Normal, Tensor]:
        """Posterior and draw of cells whose counts are taken relative to a mean count."""
        return self.z_encoder(torch.log1p(x / per.clamp(min=_LEAST)), *codes)

    def _thinned(self, x: Tensor) -> Tensor:
        """Counts thinned to a total drawn from the log-normal of the data, in training."""
        if not self.training or self.downsample_counts_mean is None:
            return x
        mean = torch.full_like(x[:, :1], self.downsample_counts_mean)
        total_n1 = rsample(Normal(mean, self.downsample_counts_std, validate_args=False)).exp() + _FEWEST_COUNTS
        own_n1 = x.sum(-1, keepdim=True).clamp(min=1)
        return sample(Poisson(x * (total_n1 / own_n1), validate_args=False))

    @auto_move_data
    def inference(
        self,
        x: Tensor,
        batch_index: Tensor,
        cat_covs: Tensor | None = None,
        x_neighbors: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells and their neighbours.

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        batch_index, cat_covs
            Codes, ``(n, 1)`` and ``(n, k)``.
        x_neighbors
            Counts of the neighbours, ``(n, m * g)``; None: they are left out.
        n_samples
            Draws; more than 1 lead.

        Returns
        -------
        ``qz``, ``z``, ``library`` (natural log), ``mixture`` ``(n, 3)`` (own, diffused, background), and
        ``z_neighbors`` ``(n, m, k)``, without gradient.
        """
        thin, codes = self._thinned(x), codes_of(batch_index, cat_covs) if self.encode_covariates else []
        qz, z = self._encoded(thin, thin.mean(-1, keepdim=True), codes)
        if n_samples > 1:
            z = sample(qz, (n_samples,))
        shares = self._guide.get_submodule("diffusion_encoder")(torch.log1p(x), *codes)[1]
        encoded = {"qz": qz, "z": z, "library": x.sum(-1, keepdim=True).log()}
        encoded["mixture"] = shares + self.diffusion_eps * shares.new_tensor([0.0, 1.0, 0.0])
        if x_neighbors is not None:
            encoded["z_neighbors"] = self._neighbors(x_neighbors, codes)
        return encoded

    @torch.no_grad()
    def _neighbors(self, counts: Tensor, codes: list[Tensor]) -> Tensor:
        """Draws of the neighbours' latents, ``(n, m, k)``."""
        x_nmg = counts.to_dense().unflatten(-1, (self.n_neighbors, -1))
        per = x_nmg.mean((1, 2), keepdim=True).expand(-1, self.n_neighbors, 1).flatten(0, 1)
        z = self._encoded(x_nmg.flatten(0, 1), per, self._repeated(codes))[1]
        return z.unflatten(0, (-1, self.n_neighbors))

    def _repeated(self, codes: list[Tensor]) -> list[Tensor]:
        """Codes of the cell for each of its neighbours."""
        return [codes_n1.repeat_interleave(self.n_neighbors, 0) for codes_n1 in codes]

    def _scale_logits(self, z: Tensor, codes: list[Tensor]) -> Tensor:
        return self._model.get_submodule("decoder").logits("gene", z, *codes, use_dropout=False)[0]  # type: ignore[operator]

    def log_theta(self, batch_index: Tensor) -> Tensor:
        """Log inverse dispersion, ``(g,)`` or ``(n, g)``."""
        return -log_theta_of(self.learned.value("px_r_mle").log(), self.dispersion, batch_index, None)

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cat_covs: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Decode latents to what the cell itself expresses.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        library
            Natural log of the total, ``(n, 1)``.
        batch_index, cat_covs, y
            Codes of batch, further covariates and label.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px``, the distribution of a cell that lost and gained nothing, ``pz``, and with labels ``probabilities``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        logits = self._scale_logits(z, codes_of(batch_index, cat_covs))
        px: Distribution
        if self.gene_likelihood == "poisson":
            px = Poisson.from_logits(logits, library)
        else:
            px = NegativeBinomial.from_logits(logits, library, self.log_theta(batch_index))
        decoded: dict[str, Any] = {"px": px, "pz": self.prior(y)}
        if self.semisupervised:
            decoded["probabilities"] = self.classify_latents(z)
        return decoded

    def classify_latents(self, z: Tensor) -> Tensor:
        """Probability of each label, ``(..., c)``."""
        return self._model.get_submodule("classifier")(z)

    def prior(self, y: Tensor | None) -> MixtureSameFamily:
        """The mixture of the latents' prior; a labelled cell has the component of its label."""
        logits, means, scales = (self._model.get_parameter(f"u_prior_{name}") for name in ("logits", "means", "scales"))
        return labelled_mixture(logits, means, scales.exp(), y if self.semisupervised else None)

    def shares_of_neighbors(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights of the neighbours, ``(n, m)``, rows that sum to 1, and the concentrations of their prior."""
        square = tensors[DISTANCE_KEY] / self._model.get_buffer("median_distance")
        by_cell = self.learned.value(
            "per_neighbor_diffusion_map", tensors[REGISTRY_KEYS.INDICES_KEY].reshape(-1).long()
        )
        near = (-self.learned.value("diffuse_scale_est") * square).exp() + _LEAST
        return (by_cell - square.sqrt()).softmax(-1), _NEAREST * near

    def background(self) -> Tensor:
        """Share of each gene in the background of each batch, ``(b, g)``."""
        return self.learned.value("background_concentration").softmax(-1)

    def parts(self, tensors: Mapping[str, Tensor], encoded: Mapping[str, Any], decoded: Mapping[str, Any]) -> Parts:
        """What a cell's expected counts are made of.

        Parameters
        ----------
        tensors
            Minibatch by registry key, with the neighbours' counts and distances.
        encoded, decoded
            What :meth:`inference` and :meth:`generative` gave for it.
        """
        batch_index, cat_covs = tensors[REGISTRY_KEYS.BATCH_KEY], tensors.get(REGISTRY_KEYS.CAT_COVS_KEY)
        weights_nm, concentration_nm = self.shares_of_neighbors(tensors)
        library, shares_n3 = encoded["library"].exp(), encoded["mixture"]
        with torch.no_grad():  # or a cell would be explained by making its neighbours like it
            z = encoded["z_neighbors"].flatten(0, 1)
            profile = self._scale_logits(z, self._repeated(codes_of(batch_index, cat_covs))).softmax(-1)
            rate_nmg = library[:, None] * profile.unflatten(0, (-1, self.n_neighbors))
        return Parts(
            own=decoded["px"].mean,
            neighbors=rate_nmg,
            shares=shares_n3,
            weights=weights_nm,
            concentration=concentration_nm,
            background=library * shares_n3[:, 2:] * self.background()[batch_index.reshape(-1)],
        )

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        classification_ratio: float = _CLASSIFICATION,
    ) -> LossOutput:
        """Negative evidence lower bound, the KL of the latents weighted by ``kl_weight``.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            The minibatch, and what the two steps before gave.
        kl_weight
            Weight of the KL divergence of the latents.
        classification_ratio
            Weight of the cross-entropy of labelled cells.

        Returns
        -------
        ``kl_local`` has the KL of the latents, and the negative log-priors of shares and of weights; ``kl_global`` the
        negative log-prior of what all cells share.
        """
        parts = self.parts(tensors, inference_outputs, generative_outputs)
        x, qz, z = tensors[REGISTRY_KEYS.X_KEY], inference_outputs["qz"], inference_outputs["z"]
        log_theta = None if self.gene_likelihood == "poisson" else self.log_theta(tensors[REGISTRY_KEYS.BATCH_KEY])
        nll_n = -counted(parts, log_theta).log_prob(x).sum(-1)
        kl_z_n = qz.log_prob(z).sum(-1) - generative_outputs["pz"].log_prob(z)
        proportions = [self.learned.value(f"{name}_proportion_est") for name in ("true", "diffusion", "background")]
        normalized = parts.shares / parts.shares.sum(-1, keepdim=True)
        shares_n = -self._times * self._log_prior(normalized, torch.cat(proportions))
        weights_n = -self._log_prior(parts.weights, parts.concentration)
        kl_global = self.negative_log_prior()
        labels = self._classified(tensors, generative_outputs)
        loss = (nll_n + kl_weight * kl_z_n + shares_n + weights_n).mean() + kl_global / self.n_obs
        if labels:
            loss = loss + classification_ratio * labels["classification_loss"]
        return LossOutput(
            loss=loss,
            reconstruction_loss=nll_n,
            kl_local={"kl_divergence_z": kl_z_n, "log_prior_shares": shares_n, "log_prior_weights": weights_n},
            kl_global=kl_global,
            extra_metrics={name: normalized[:, i].mean() for i, name in enumerate(SHARES)},
            **labels,
        )

    def _log_prior(self, shares: Tensor, concentration: Tensor) -> Tensor:
        """Log-density of shares, ``(n,)``, of their logits: that of shares themselves has its mode at 0 below 1.

        With ``scvi_tools_figures`` it is that of the shares, as there.
        """
        log_p = Dirichlet(concentration, validate_args=False).log_prob(shares)
        return log_p if self.scvi_tools_figures else log_p + shares.clamp(min=1e-30).log().sum(-1)

    def _classified(self, tensors: Mapping[str, Tensor], decoded: Mapping[str, Any]) -> dict[str, Any]:
        """Cross-entropy of the labelled cells, as a mean over all, as fields of the record."""
        if not self.semisupervised:
            return {}
        probability_nc, y = decoded["probabilities"], tensors[REGISTRY_KEYS.LABELS_KEY].reshape(-1).long()
        is_labelled = y < probability_nc.shape[-1]
        own = probability_nc.gather(-1, torch.where(is_labelled, y, 0)[:, None]).squeeze(-1)
        loss = -(own.clamp(min=1e-30).log() * is_labelled).mean()
        return {"classification_loss": loss, "logits": probability_nc.clamp(min=1e-30).log(), "true_labels": y}

    def negative_log_prior(self) -> Tensor:
        """That of what all cells share, and of the dispersions, ``()`` in nats; see :func:`.parts.shared_log_prior`."""
        log_prior = shared_log_prior(self.learned, self._model.get_buffer)
        dispersions = self.learned.value("px_r_mle")
        return self.n_obs * (dispersions if dispersions.dim() == 1 else dispersions.mean(1)).sum() - log_prior
