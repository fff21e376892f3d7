"""LinearSCVI: latent dimensions that read as gene programs, by a linear decoder.

Reference: Svensson, Gayoso, Yosef and Pachter, *Interpretable factor models of single-cell RNA-seq via variational
autoencoders*, Bioinformatics 2020.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pandas as pd
from anndata import AnnData

from ..data.fields import bundles
from ..module import LDVAE
from ..module.likelihoods import Dispersion, LatentDistribution
from .base import (
    BaseMinifiedModeModelClass,
    RNASeqMixin,
    UnsupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)

__all__ = ["LinearSCVI"]


class LinearSCVI(RNASeqMixin, VAEMixin, UnsupervisedTrainingMixin, BaseMinifiedModeModelClass):
    r"""SCVI whose decoder is one linear layer: its weights are the genes' loadings on the latent factors.

    .. math:: x_{ng} \mid z_n \sim \mathrm{NB}\bigl(\ell_n\, \mathrm{softmax}(W z_n + \beta_{b_n})_g,\; \theta_g\bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_layers, dropout_rate
        Width, depth and dropout of the encoder.
    n_latent
        Factors.
    dispersion, gene_likelihood, use_observed_lib_size, latent_distribution
        As in :class:`~celbo.model.SCVI`; here the library size is latent by default.
    **model_kwargs
        Further arguments of :class:`~celbo.module.LDVAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.LinearSCVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.model.LinearSCVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_loadings().shape
    (100, 5)
    """

    _module_cls: ClassVar[type[LDVAE]] = LDVAE
    _LATENT_QZM_KEY: ClassVar[str] = "ldvae_latent_qzm"
    _LATENT_QZV_KEY: ClassVar[str] = "ldvae_latent_qzv"

    _renamed: ClassVar[Mapping[str, str | None]] = {"n_layers": "n_layers_encoder"}
    _fewest_steps = 1000  # a linear decoder learns later than a network: half of them tell types 0.015 less
    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        gene_likelihood: Literal["zinb", "nb", "poisson"] = "nb",
        use_observed_lib_size: bool = False,
        latent_distribution: LatentDistribution = "normal",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def get_loadings(self) -> pd.DataFrame:
        """Loadings of the genes on the latent factors.

        Returns
        -------
        ``(g, k)``, rows by gene name, columns ``Z_0``, ``Z_1``, ...

        Examples
        --------
        >>> top = model.get_loadings()["Z_0"].nlargest(10).index
        """
        loadings_gk = self.module.get_loadings()
        columns = [f"Z_{k}" for k in range(loadings_gk.shape[1])]
        return pd.DataFrame(loadings_gk, index=self.get_var_names(), columns=columns)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        layer: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register an AnnData with counts."""
        return [*bundles.counts(layer, use_raw), *bundles.batch(batch_key), *bundles.labels(labels_key)]
