r"""Variational autoencoder of counts with latents that are decoded apart (DRVI).

.. math::
    z_n \sim N(0, I), \qquad \rho_n = \mathrm{softmax}_g\Bigl(\log \tfrac{1}{S} \sum_s e^{f_g(z_{ns}, c_n)}\Bigr),
    \qquad x_{ng} \sim \mathrm{NB}(\ell_n \rho_{ng}, \theta_g)

Since what a split adds to a gene depends on no other split, each is drawn to a process of its own. Everything else is
:class:`~celbo.module.VAE`.

Dims: n cells, s splits, k latents, g genes.
Reference: Moinfar and Theis, *Unsupervised deep disentangled representation of single-cell omics*, bioRxiv 2024.
"""

from typing import Any, Literal

from torch import nn

from ...core import checked
from ...module import VAE
from ...module.likelihoods import Placement, norms
from .decoder import Aggregation, DecoderDRVI, SplitMethod

__all__ = ["Activation", "DRVIModule", "SplitLikelihood"]

SplitLikelihood = Literal["pnb", "zinb", "nb", "poisson", "normal"]

Activation = Literal["elu", "relu", "gelu", "leaky_relu", "softplus"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}


class DRVIModule(VAE):
    """Variational autoencoder of counts whose latents are decoded in splits.

    Parameters
    ----------
    n_input
        Number of genes.
    n_split_latent
        Number of splits; None or -1: one for each latent.
    split_method, n_split_output, split_aggregation
        See :class:`~celbo.external.drvi.DecoderDRVI`.
    decoder_reuse_weights
        ``"everywhere"``: splits share the layers of the decoder. Others are not there, see Raises.
    n_latent, n_hidden, n_layers, n_continuous_cov, n_cats_per_cov
        See :class:`~celbo.module.VAE`.
    gene_likelihood
        ``"pnb"``, the negative binomial of DRVI, which is that of ``"nb"`` computed from logits; or one of
        :class:`~celbo.module.VAE`.
    deeply_inject_covariates, use_batch_norm, use_layer_norm
        See :class:`~celbo.module.VAE`.
    activation_fn
        ``"elu"``, ``"relu"``, ``"gelu"``, ``"leaky_relu"`` or ``"softplus"``.
    n_batch, n_labels
        Numbers of batches and labels.
    extra_encoder_kwargs, extra_decoder_kwargs, **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        An option that does not exist, or splits that do not divide the latents.
    NotImplementedError
        Another ``decoder_reuse_weights``.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_split_latent: int | None = None,
        split_method: SplitMethod = "split_map",
        n_split_output: int | Literal["auto"] = "auto",
        split_aggregation: Aggregation = "logsumexp",
        decoder_reuse_weights: str = "everywhere",
        n_latent: int = 128,
        n_hidden: int = 256,
        n_layers: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        gene_likelihood: SplitLikelihood = "pnb",
        deeply_inject_covariates: bool = False,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        activation_fn: Activation = "elu",
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
        *,
        n_batch: int = 0,
        n_labels: int = 0,
        **kwargs: Any,
    ) -> None:
        if decoder_reuse_weights != "everywhere":
            raise NotImplementedError("decoder_reuse_weights: splits share all layers here, which is 'everywhere'.")
        activation, sizes = {"activation_fn": _ACTIVATIONS[activation_fn]}, {"n_layers": n_layers, "n_hidden": n_hidden}
        super().__init__(
            n_input,
            n_batch,
            n_labels,
            n_latent=n_latent,
            n_continuous_cov=n_continuous_cov,
            n_cats_per_cov=n_cats_per_cov,
            gene_likelihood="nb" if gene_likelihood == "pnb" else gene_likelihood,
            deeply_inject_covariates=deeply_inject_covariates,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            extra_encoder_kwargs=activation | (extra_encoder_kwargs or {}),
            **(sizes | kwargs),
        )
        self.n_split = n_latent if n_split_latent in (None, -1) else n_split_latent
        self.decoder = DecoderDRVI(
            n_latent,
            n_input,
            self.n_split,
            split_method,
            n_split_output,
            split_aggregation,
            n_cat_list=self.n_cat_list,
            n_continuous_cov=self.n_dense_covariates,
            inject_covariates=deeply_inject_covariates,
            scale_activation="softplus" if self.use_size_factor_key else "softmax",
            **norms("decoder", use_batch_norm, use_layer_norm),
            **(sizes | activation | (extra_decoder_kwargs or {})),
        )
