"""SCANVI: labels for all cells from the labels of a few, and mapping of new cells onto a reference.

Reference: Xu, Lopez, Mehlman, Regier, Jordan and Yosef, *Probabilistic harmonization and annotation of single-cell
transcriptomics data with deep generative models*, Molecular Systems Biology 2021.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from anndata import AnnData

from ..core import REGISTRY_KEYS
from ..data.fields import LabelsWithUnlabeledObsField, bundles
from ..module import SCANVAE
from ..module.likelihoods import Dispersion, GeneLikelihood
from .base import (
    ArchesMixin,
    BaseMinifiedModeModelClass,
    RNASeqMixin,
    SemisupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)
from .scvi import SCVI

__all__ = ["SCANVI"]

_MAPPING = "categorical_mapping"
_UNLABELED = LabelsWithUnlabeledObsField.UNLABELED_CATEGORY


class SCANVI(RNASeqMixin, SemisupervisedTrainingMixin, VAEMixin, ArchesMixin, BaseMinifiedModeModelClass):
    r"""Variational autoencoder of UMI counts that learns cell types from cells of which some are labelled.

    .. math::
        y_n \sim \mathrm{Cat}(\pi), \qquad z_{2n} \sim N(0, I), \qquad z_{1n} \mid z_{2n}, y_n \sim N, \qquad
        x_{ng} \mid z_{1n} \sim \mathrm{ZINB}(\dots) \text{ as in SCVI}

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    registry
        Registry to take the sizes from when there is no AnnData.
    n_hidden, n_latent, n_layers, dropout_rate, dispersion, gene_likelihood, use_observed_lib_size
        See :class:`~celbo.model.SCVI`.
    linear_classifier
        Whether the classifier of the latents has no hidden layers.
    datamodule
        Accepted for compatibility with scvi-tools; loaders of your own go to :meth:`train`.
    **model_kwargs
        Further arguments of :class:`~celbo.module.SCANVAE`.

    Attributes
    ----------
    classes
        Names of the labels, in the order of the classifier's outputs.
    unlabeled_category_
        Name of "not labelled".

    Raises
    ------
    ValueError
        Data in which no cell has a label.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obs["labels"] = adata.obs["labels"].astype(object).where(adata.obs["batch"] == "batch_0")
    >>> celbo.model.SCANVI.setup_anndata(adata, labels_key="labels", batch_key="batch")
    >>> model = celbo.model.SCANVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.predict(soft=True).shape
    (400, 3)
    """

    _module_cls: ClassVar[type[SCANVAE]] = SCANVAE
    _renamed: ClassVar[Mapping[str, str | None]] = {"datamodule": None}
    _computed_arguments = library_arguments
    _LATENT_QZM_KEY: ClassVar[str] = "scanvi_latent_qzm"
    _LATENT_QZV_KEY: ClassVar[str] = "scanvi_latent_qzv"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: Mapping[str, Any] | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        gene_likelihood: GeneLikelihood = "zinb",
        use_observed_lib_size: bool = True,
        linear_classifier: bool = False,
        datamodule: object = None,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata, registry)
        self._take_classes()
        self._build_module(n_labels=self.n_labels)

    @classmethod
    def from_scvi_model(
        cls,
        scvi_model: SCVI,
        unlabeled_category: str | int | float | None = None,
        labels_key: str | None = None,
        adata: AnnData | None = None,
        registry: Mapping[str, Any] | None = None,
        **scanvi_kwargs: Any,
    ) -> Self:
        """Model that begins with the weights of a trained SCVI; those of one that is not trained come with a warning.

        Parameters
        ----------
        scvi_model
            The trained model.
        unlabeled_category
            As in :meth:`setup_anndata`.
        labels_key
            Column of ``adata.obs`` with the labels; None: the one that ``scvi_model`` was set up with.
        adata
            Data with the genes of ``scvi_model``'s; None: its training data.
        registry
            Registry of a SCANVI setup, for a model without data.
        **scanvi_kwargs
            Arguments of :class:`SCANVI` that SCVI does not have, such as ``linear_classifier``. The others are those
            of ``scvi_model``; one that is given again is left out with a warning.

        Raises
        ------
        ValueError
            No ``labels_key``, here or in the setup of ``scvi_model``; data minified without counts.

        Examples
        --------
        >>> celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
        >>> scvi = celbo.model.SCVI(adata, n_latent=5)
        >>> scvi.train(max_epochs=2, verbose=0, seed=0)
        >>> model = celbo.model.SCANVI.from_scvi_model(scvi, "unknown", labels_key="labels")
        >>> model.was_pretrained
        True
        """
        return cls._from_unlabelled(scvi_model, unlabeled_category, labels_key, adata, registry, scanvi_kwargs)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        labels_key: str,
        unlabeled_category: str | int | float | None = None,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        use_minified: bool = True,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register an AnnData with counts and labels.

        Parameters
        ----------
        labels_key
            Column of ``adata.obs`` with the label of each cell; cells with NaN are not labelled.
        unlabeled_category
            Label that means "not labelled" too. None: only NaN does.
        use_minified
            Take the latents stored in minified data; False passes over them, where the counts were kept.
        """
        return [
            *bundles.counts(layer, use_raw),
            *bundles.batch(batch_key),
            LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category),
            *bundles.size_factor(size_factor_key),
            *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys),
        ]
