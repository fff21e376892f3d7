r"""Linearly decoded variational autoencoder: loadings of genes on factors.

.. math:: \rho_n = \mathrm{softmax}(\mathrm{norm}(W\,[z_n, b_n])), \qquad
          x_{ng} \sim \mathrm{NB}(\ell_n \rho_{ng}, \theta_g)

Dims: n cells, g genes, k latents.
Reference: Svensson et al., Bioinformatics 2020 (:cite:p:`Svensson20`).
"""

from typing import Any

import numpy as np
import torch

from ..core import checked
from ..nn import LinearDecoderSCVI
from .likelihoods import Dispersion, GeneLikelihood, LatentDistribution
from .vae import VAE

__all__ = ["LDVAE"]


class LDVAE(VAE):
    """:class:`~celbo.module.VAE` with a linear decoder.

    Parameters
    ----------
    n_input, n_batch, n_labels, n_hidden, n_latent, dropout_rate, log_variational, gene_likelihood, latent_distribution
        See :class:`~celbo.module.VAE`.
    n_layers_encoder
        Number of hidden layers of the encoder.
    dispersion
        ``"gene"``, ``"gene-batch"`` or ``"gene-label"``: a linear decoder has no head for ``"gene-cell"``.
    use_batch_norm
        Whether the decoder normalizes its output over the minibatch. The encoders always do.
    bias
        Whether the decoder has a bias.
    use_observed_lib_size
        Whether the library is observed; by default it is latent, with a prior to be given.
    **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        ``dispersion="gene-cell"``.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers_encoder: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        log_variational: bool = True,
        gene_likelihood: GeneLikelihood = "nb",
        use_batch_norm: bool = True,
        bias: bool = False,
        latent_distribution: LatentDistribution = "normal",
        use_observed_lib_size: bool = False,
        **kwargs: Any,
    ) -> None:
        if dispersion == "gene-cell":
            raise ValueError('dispersion="gene-cell" needs a decoder head that LDVAE does not have: use "gene".')
        super().__init__(
            n_input=n_input,
            n_batch=n_batch,
            n_labels=n_labels,
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_layers=n_layers_encoder,
            dropout_rate=dropout_rate,
            dispersion=dispersion,
            log_variational=log_variational,
            gene_likelihood=gene_likelihood,
            latent_distribution=latent_distribution,
            use_observed_lib_size=use_observed_lib_size,
            **kwargs,
        )
        self.decoder = LinearDecoderSCVI(
            n_latent + self.n_dense_covariates,
            n_input,
            n_cat_list=self.n_cat_list,
            use_batch_norm=use_batch_norm,
            bias=bias,
        )

    @torch.no_grad()
    def get_loadings(self) -> np.ndarray:
        r"""Loadings of genes on factors, ``(g, k)``: the weight with the scale of the batch normalization folded in.

        .. math:: L_{gk} = \frac{\gamma_g}{\sqrt{v_g + \epsilon}} W_{gk}
        """
        decoder: Any = self.decoder
        linear, batch_norm, *_ = decoder.factor_regressor.fc_layers[0]
        loadings_gk = linear.weight[:, : self.n_latent]
        if batch_norm is not None:
            scale_g = batch_norm.weight / torch.sqrt(batch_norm.running_var + batch_norm.eps)
            loadings_gk = scale_g[:, None] * loadings_gk
        return loadings_gk.cpu().numpy()
