"""SCVI: one latent space for cells of several batches, denoised expression, differential expression.

Reference: Lopez, Regier, Cole, Jordan and Yosef, *Deep generative modeling for single-cell transcriptomics*, Nature
Methods 2018.
"""

from typing import Any, ClassVar

from anndata import AnnData

from ..data.fields import bundles
from ..module import VAE
from ..module.likelihoods import Dispersion, GeneLikelihood, LatentDistribution
from .base import (
    ArchesMixin,
    BaseMinifiedModeModelClass,
    EmbeddingMixin,
    Registry,
    RNASeqMixin,
    UnsupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)

__all__ = ["SCVI"]


class SCVI(EmbeddingMixin, RNASeqMixin, VAEMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseMinifiedModeModelClass):
    r"""Variational autoencoder of UMI counts.

    .. math::
        z_n \sim N(0, I), \qquad
        x_{ng} \mid z_n \sim \mathrm{ZINB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, b_n))_g,\;
            \theta_g,\; \pi_{ng}(z_n, b_n)\bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    registry
        Registry to take the sizes from when there is no AnnData. Neither of the two: sizes come with the
        ``datamodule`` that :meth:`train` gets first, from its ``n_vars``, ``n_batch`` and, where it has them,
        ``n_labels``, ``n_continuous_cov``, ``n_cats_per_cov``, ``var_names``.
    n_hidden, n_latent, n_layers, dropout_rate
        Width of the hidden layers, latent dimensions, hidden layers of encoder and decoder, dropout in the encoder.
    dispersion
        Whether the dispersion belongs to the ``"gene"``, differs by batch (``"gene-batch"``) or label
        (``"gene-label"``), or is decoded for each cell (``"gene-cell"``).
    gene_likelihood
        ``"zinb"``, ``"nb"``, ``"poisson"`` or ``"normal"``.
    use_observed_lib_size
        Take the observed total counts as library size; otherwise it is a latent variable.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.model.SCVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (400, 5)
    """

    _module_cls: ClassVar[type[VAE]] = VAE
    _LATENT_QZM_KEY, _LATENT_QZV_KEY = "scvi_latent_qzm", "scvi_latent_qzv"
    _may_wait_for_loaders: ClassVar[bool] = True

    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: Registry | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        gene_likelihood: GeneLikelihood = "zinb",
        use_observed_lib_size: bool = True,
        latent_distribution: LatentDistribution = "normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(adata, registry)
        self._build_module()

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register an AnnData with counts."""
        return bundles.counts(layer, use_raw) + bundles.cells(
            batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        )
