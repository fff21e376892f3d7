r"""Variational autoencoder of counts (scVI).

.. math::

    z_n &\sim N(0, I), \qquad \log \ell_n \sim N(\mu_{b_n}, \sigma^2_{b_n}) \text{ or observed} \\
    \rho_n &= \mathrm{softmax}(f(z_n, b_n, \dots)), \qquad
    x_{ng} \sim \mathrm{ZINB}(\ell_n \rho_{ng}, \theta_g, \pi_{ng}) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \left[ -\log p(x_n \mid z_n, \ell_n)
        + w\,\mathrm{KL}(q(z_n) \,\|\, p(z_n)) + \mathrm{KL}(q(\ell_n) \,\|\, p(\ell_n)) \right]

Dims: n cells, g genes, k latents, b batches, c classes, s samples.
Reference: Lopez et al., Nature Methods 2018 (:cite:p:`Lopez18`).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ..core import REGISTRY_KEYS, checked
from ..distributions import Poisson
from ..nn import DecoderSCVI, Encoder, LinearDecoderSCVI
from ..nn.decoder import UseDropout
from ..nn.fc_layers import append_columns, decoded_as, with_covariates
from ..ops.draws import randn, sample
from ..ops.linear import row_sums
from . import likelihoods
from .base import EmbeddingModuleMixin, LossOutput, auto_move_data
from .base.minified import stored_latents
from .counted import CountedModule
from .likelihoods import (
    LIKELIHOODS,
    BatchRepresentation,
    Dispersion,
    GeneLikelihood,
    LatentDistribution,
    Placement,
    log_likelihood,
    norms,
)
from .predictive import drawn, predictive_distribution

__all__ = ["VAE"]


class VAE(EmbeddingModuleMixin, CountedModule):
    """Variational autoencoder of counts.

    Parameters
    ----------
    n_input, n_batch, n_labels
        Numbers of genes, batches and labels.
    n_hidden, n_latent, n_layers
        Size of hidden layers, size of the latent space, number of hidden layers of encoder and decoder each.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; number of categories of each categorical one (the batch apart).
    dropout_rate
        Dropout of the encoders; the decoder has none.
    dispersion
        What the inverse dispersion is a parameter of: ``"gene"``, ``"gene-batch"``, ``"gene-label"``; with
        ``"gene-cell"`` the decoder gives it.
    log_variational
        Whether the encoders see ``log(1 + x)``.
    gene_likelihood
        ``"zinb"``, ``"nb"``, ``"poisson"`` or ``"normal"``.
    latent_distribution
        ``"normal"``, or ``"ln"`` (logistic normal: latents on the simplex).
    encode_covariates
        Whether the encoders see the covariates.
    deeply_inject_covariates
        Whether covariates enter each hidden layer, or the first only.
    batch_representation
        ``"one-hot"``, or ``"embedding"`` (learned).
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    use_size_factor_key
        Whether (any true value) size factors take the place of the library; the scale is then a softplus.
    use_observed_lib_size
        Whether the library is the cell's total count, or a latent variable.
    extra_payload_autotune
        Whether the loss carries ``z``, ``batch`` and ``labels`` as extra metrics.
    library_log_means, library_log_vars
        Mean and variance of the log library in each batch, ``(1, b)``; required for a latent library.
    var_activation
        Makes the encoders' variance positive; ``torch.exp`` when not given.
    extra_encoder_kwargs, extra_decoder_kwargs, batch_embedding_kwargs
        Further arguments of :class:`~celbo.nn.Encoder`, :class:`~celbo.nn.DecoderSCVI` and
        :meth:`~celbo.module.base.EmbeddingModuleMixin.init_embedding`.

    Raises
    ------
    ValueError
        An option that does not exist; a dispersion per batch or label without batches or labels; a latent library
        without its prior.
    """

    _z_encoder_cls: ClassVar[type[Encoder]] = Encoder

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
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        log_variational: bool = True,
        gene_likelihood: GeneLikelihood = "zinb",
        latent_distribution: LatentDistribution = "normal",
        encode_covariates: bool = False,
        deeply_inject_covariates: bool = True,
        batch_representation: BatchRepresentation = "one-hot",
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        use_size_factor_key: bool = False,
        use_observed_lib_size: bool = True,
        extra_payload_autotune: bool = False,
        library_log_means: np.ndarray | None = None,
        library_log_vars: np.ndarray | None = None,
        var_activation: Callable[[Tensor], Tensor] | None = None,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
        batch_embedding_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dispersion = dispersion
        self.n_latent = n_latent
        self.log_variational = log_variational
        self.gene_likelihood = gene_likelihood
        self.n_batch = n_batch
        self.n_input = n_input
        self.n_labels = n_labels
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.latent_distribution = latent_distribution
        self.encode_covariates = encode_covariates
        self.use_size_factor_key = use_size_factor_key
        self.use_observed_lib_size = use_observed_lib_size or use_size_factor_key  # a size factor is observed
        self.extra_payload_autotune = extra_payload_autotune
        self.batch_representation = batch_representation

        if dispersion != "gene-cell":
            self.px_r = nn.Parameter(randn(*likelihoods.dispersion_shape(dispersion, n_input, n_batch, n_labels)))
        if not self.use_observed_lib_size:
            self._keep_library_prior(library_log_means, library_log_vars)

        # What goes with the input of each network: dense columns appended to it, categories whose codes are gathered.
        self.n_cat_list = list(n_cats_per_cov or [])
        self.n_dense_covariates = n_continuous_cov
        if batch_representation == "embedding":
            self.init_embedding(REGISTRY_KEYS.BATCH_KEY, n_batch, **(batch_embedding_kwargs or {}))
            self.n_dense_covariates += self.get_embedding(REGISTRY_KEYS.BATCH_KEY).embedding_dim
        else:
            self.n_cat_list.insert(0, n_batch)

        def encoder(made: type[Encoder], n_output: int, n_encoder_layers: int, distribution: str) -> Encoder:
            return made(
                n_input + self.n_dense_covariates * encode_covariates,
                n_output,
                n_cat_list=self.n_cat_list if encode_covariates else None,
                n_layers=n_encoder_layers,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                distribution=distribution,
                inject_covariates=deeply_inject_covariates,
                var_activation=var_activation,
                return_dist=True,
                **norms("encoder", use_batch_norm, use_layer_norm),
                **(extra_encoder_kwargs or {}),
            )

        self.z_encoder = encoder(self._z_encoder_cls, n_latent, n_layers, latent_distribution)
        self.l_encoder = encoder(Encoder, 1, 1, "normal")  # always there, as in scvi-tools' archives
        self.decoder: DecoderSCVI | LinearDecoderSCVI = DecoderSCVI(
            n_latent + self.n_dense_covariates,
            n_input,
            n_cat_list=self.n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            inject_covariates=deeply_inject_covariates,
            scale_activation="softplus" if use_size_factor_key else "softmax",
            **norms("decoder", use_batch_norm, use_layer_norm),
            **(extra_decoder_kwargs or {}),
        )

    @property
    def parameters_by_label(self) -> tuple[str, ...]:
        """Names of the parameters with a column for each label."""
        return ("px_r",) if self.dispersion == "gene-label" else ()

    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with the mean profile and the dispersions that the counts have."""
        if self.gene_likelihood == "normal":
            return False
        has_theta = self.dispersion != "gene-cell" and self.gene_likelihood != "poisson"
        profile = self.decoder.profile if self.starts_from_profile else None  # type: ignore[union-attr]
        return likelihoods.start_genes(x, self.px_r if has_theta else None, profile)

    @property
    def starts_from_profile(self) -> bool:
        """Whether the decoder begins with the mean profile: its scales are shares, and it has a bias for them."""
        return isinstance(self.decoder, DecoderSCVI | LinearDecoderSCVI) and self.decoder.profile is not None

    @property
    def encodes_sparse_counts(self) -> bool:
        """Whether ``inference`` takes counts as a CSR tensor: with the encoding and the encoder of this class."""
        is_own = type(self)._regular_inference is VAE._regular_inference and isinstance(self.z_encoder, Encoder)
        return is_own and self.minified_data_type is None

    def _encoder_input(
        self, x: Tensor, batch_index: Tensor | None, cont_covs: Tensor | None, cat_covs: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """What the encoders see of counts, and the codes that their layers gather."""
        encoded = x.log1p() if self.log_variational else x
        if not self.encode_covariates:
            return encoded, []
        if batch_index is None:
            raise ValueError("This module's encoders see the batch (encode_covariates=True): give `batch_index`.")
        return self._with_covariates(encoded, batch_index, cont_covs, cat_covs)

    def _with_covariates(
        self, x: Tensor, batch_index: Tensor, cont_covs: Tensor | None, cat_covs: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Input of a network with the dense covariates appended, and the codes that its layers gather."""
        columns, codes = with_covariates(x, batch_index, cont_covs, cat_covs)
        if self.batch_representation == "embedding":  # dense columns in place of the batch's codes
            embedded = self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch_index)
            return append_columns(columns.to_dense(), embedded), codes[1:]
        return columns, codes

    @auto_move_data
    def _regular_inference(
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
            Counts, ``(n, g)``, dense or CSR.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)``; ``library`` ``(n, 1)``, the natural log (observed in an empty cell: ``-inf``); ``qz``; ``ql``,
        None for an observed library.
        """
        encoded, codes = self._encoder_input(x, batch_index, cont_covs, cat_covs)
        qz, z = self.z_encoder(encoded, *codes)
        ql, library = None, row_sums(x).log()
        if not self.use_observed_lib_size:
            ql, library = self.l_encoder(encoded, *codes)
        if n_samples > 1:
            z = self.z_encoder.z_transformation(sample(qz, (n_samples,)))
            library = library.expand(n_samples, -1, -1) if ql is None else sample(ql, (n_samples,))
        return {"z": z, "qz": qz, "ql": ql, "library": library}

    @auto_move_data
    def _cached_inference(
        self, qzm: Tensor, qzv: Tensor, observed_lib_size: Tensor, n_samples: int = 1
    ) -> dict[str, Tensor | Distribution | None]:
        return stored_latents(qzm, qzv, observed_lib_size, self.z_encoder.z_transformation, n_samples)

    def _get_generative_input(
        self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        bound = super()._get_generative_input(tensors, inference_outputs, **kwargs)
        if REGISTRY_KEYS.SIZE_FACTOR_KEY in tensors:
            # the minibatch has it on the natural scale
            bound["size_factor"] = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].log()
        return bound

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
    ) -> dict[str, Distribution | None]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        library
            Natural log of the library, ``(n, 1)`` or ``(s, n, 1)``.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        size_factor
            Natural log of the size factor, ``(n, 1)``; takes the place of ``library`` where the module is built for it.
        y
            Label codes, ``(n, 1)``; looked at for ``dispersion="gene-label"``.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px``; ``pz``; ``pl``, None for an observed library.

        Raises
        ------
        ValueError
            The module is built for size factors, and none are given.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        if self.use_size_factor_key:
            if size_factor is None:
                raise ValueError(
                    "generative() needs `size_factor`, because the module was built with use_size_factor_key."
                )
            library = size_factor
        decoded, codes = self._with_covariates(z, batch_index, cont_covs, cat_covs)
        likelihood = LIKELIHOODS[self.gene_likelihood]
        # Without a gradient: few answers need the added zeros, and their head is a third of all the arithmetic.
        use_dropout: UseDropout = likelihood.zero_inflated and (torch.is_grad_enabled() or "later")
        scale_logits, log_theta, zi_logits = self.decoder.logits(
            self.dispersion, decoded, *codes, use_dropout=use_dropout
        )
        if log_theta is None:
            log_theta = likelihoods.log_theta_of(self.px_r, self.dispersion, batch_index, y)
        px = likelihood(
            scale_logits,
            library,
            log_theta,
            zi_logits,
            activation=self.decoder.scale,
            is_softmax=self.decoder.is_softmax,
        )
        pz = Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
        return {"px": px, "pl": self._library_prior(batch_index), "pz": pz}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound, the KL of the latents weighted by ``kl_weight``.

        Returns
        -------
        ``kl_local`` has the entries ``kl_divergence_l`` (0 for an observed library) and ``kl_divergence_z``.
        """
        qz, ql = inference_outputs["qz"], inference_outputs["ql"]
        nll_n = -log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        kl_z_n = kl_divergence(qz, generative_outputs["pz"]).sum(-1)
        kl_l_n = torch.zeros_like(kl_z_n) if ql is None else kl_divergence(ql, generative_outputs["pl"]).sum(-1)
        return LossOutput(
            loss=(nll_n + kl_weight * kl_z_n + kl_l_n).mean(),
            reconstruction_loss=nll_n,
            kl_local={"kl_divergence_l": kl_l_n, "kl_divergence_z": kl_z_n},
            extra_metrics=self._autotune_payload(tensors, inference_outputs),
        )

    @torch.no_grad()
    def sample(
        self,
        tensors: Mapping[str, Tensor],
        n_samples: int = 1,
        max_poisson_rate: float = 1e8,
        generative_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Draw counts from the posterior predictive distribution.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        n_samples
            Samples a cell, each with latents of its own.
        max_poisson_rate
            Poisson rates above this are set to it.
        generative_kwargs
            Further arguments of :meth:`generative`.

        Returns
        -------
        ``(n, g)``, or ``(n, g, s)`` for more than one sample, on the CPU.
        """
        px = predictive_distribution(self, tensors, n_samples, generative_kwargs)
        if isinstance(px, Poisson):
            px = Poisson(px.rate.clamp(max=max_poisson_rate), validate_args=False)
        return drawn(px, n_samples)
