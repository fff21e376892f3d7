"""TOTALANVI: cell types of single cells with RNA and surface proteins (CITE-seq), of which some have a label.

Reference: Xu, Lopez, Mehlman, Regier, Jordan and Yosef, *Probabilistic harmonization and annotation of single-cell
transcriptomics data with deep generative models*, Molecular Systems Biology 2021.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...data.fields import BaseAnnDataField, LabelsWithUnlabeledObsField, bundles, cite_seq
from ...model import TOTALVI
from ...model.base import SemisupervisedTrainingMixin, setup_method
from ...module.likelihoods import LatentDistribution, ProteinDispersion
from ...module.totalvae import GeneDispersion
from ...train import Plan, SemiSupervisedAdversarialTrainingPlan
from .module import TOTALANVAE

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["TOTALANVI"]

_KEPT = ("background_pro_alpha", "background_pro_log_beta", "log_per_batch_efficiency")
"""What a model made from a trained TOTALVI takes over and does not learn again."""


def _labels(labels_key: str | None, unlabeled_category: Any) -> list[BaseAnnDataField]:
    if labels_key is None:
        raise ValueError("TOTALANVI learns labels: give labels_key=, or use TOTALVI for data without labels.")
    return [LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)]


class TOTALANVI(SemisupervisedTrainingMixin, TOTALVI):  # type: ignore[misc]  # train is that of the former
    r"""Variational autoencoder of genes and surface proteins that learns cell types from cells of which some are
    labelled.

    .. math::
        y_n \sim \mathrm{Cat}(\pi), \qquad z_{2n} \sim N(0, I), \qquad z_{1n} \mid z_{2n}, y_n \sim N, \qquad
        x_n, p_n \mid z_{1n} \text{ as in TOTALVI}

    Parameters
    ----------
    adata
        AnnData or MuData set up with :meth:`setup_anndata` or :meth:`setup_mudata`.
    n_latent, gene_dispersion, protein_dispersion, gene_likelihood, latent_distribution
        See :class:`~celbo.model.TOTALVI`.
    empirical_protein_background_prior, override_missing_proteins, empty_droplets, scvi_tools_figures
        See :class:`~celbo.model.TOTALVI`.
    linear_classifier
        Whether the classifier of the latents has no hidden layers.
    **model_kwargs
        Further arguments of the module.

    Raises
    ------
    ValueError
        Data in which no cell has a label.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(n_proteins=12, seed=0)
    >>> adata.obs["labels"] = adata.obs["labels"].astype(object).where(adata.obs["batch"] == "batch_0")
    >>> celbo.external.TOTALANVI.setup_anndata(adata, "protein_expression", batch_key="batch", labels_key="labels")
    >>> model = celbo.external.TOTALANVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.predict(soft=True).shape
    (400, 3)
    """

    _module_cls: ClassVar[type[TOTALANVAE]] = TOTALANVAE
    _without_labels: ClassVar[str] = "TOTALVI"
    _training_plan_cls: ClassVar[type[Plan]] = SemiSupervisedAdversarialTrainingPlan
    keeps_background_: bool = False

    def __init__(
        self,
        adata: AnnData,
        n_latent: int = 20,
        gene_dispersion: GeneDispersion = "gene",
        protein_dispersion: ProteinDispersion = "protein",
        gene_likelihood: Literal["zinb", "nb"] = "nb",
        latent_distribution: LatentDistribution = "normal",
        empirical_protein_background_prior: bool | None = None,
        override_missing_proteins: bool = False,
        linear_classifier: bool = False,
        *,
        empty_droplets: AnnData | pd.DataFrame | np.ndarray | None = None,
        scvi_tools_figures: bool = False,
        **model_kwargs: Any,
    ) -> None:
        super(TOTALVI, self).__init__(adata)
        self._take_classes()
        self._build_module(n_labels=self.n_labels)

    @classmethod
    def from_totalvi_model(
        cls,
        totalvi_model: TOTALVI,
        unlabeled_category: str,
        labels_key: str | None = None,
        adata: "AnnData | MuData | None" = None,
        **totalanvi_kwargs: Any,
    ) -> Self:
        """Model that begins with the weights of a trained TOTALVI, whose background and capture it keeps.

        Parameters
        ----------
        totalvi_model
            The trained model; one that is not trained comes with a warning.
        unlabeled_category
            Label that means "not labelled"; so does NaN.
        labels_key
            Column with the labels; None: the one that ``totalvi_model`` was set up with.
        adata
            Data with the genes and proteins of ``totalvi_model``'s; None: its training data.
        **totalanvi_kwargs
            Arguments of :class:`TOTALANVI` that TOTALVI does not have, such as ``linear_classifier``; others are those
            of ``totalvi_model``.

        Raises
        ------
        ValueError
            No ``labels_key``; data minified without counts.

        Examples
        --------
        >>> celbo.model.TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
        >>> totalvi = celbo.model.TOTALVI(adata, n_latent=5)
        >>> totalvi.train(max_epochs=2, verbose=0, seed=0)
        >>> model = celbo.external.TOTALANVI.from_totalvi_model(totalvi, "unknown", labels_key="labels")
        >>> model.was_pretrained
        True
        """
        model = cls._from_unlabelled(totalvi_model, unlabeled_category, labels_key, adata, None, totalanvi_kwargs)
        model.keeps_background_ = True
        model._keep_background()
        return model

    def _keep_background(self) -> None:
        for name in _KEPT if self.keeps_background_ else ():
            self.module.get_parameter(name).requires_grad_(False)

    def _when_loaded(self) -> None:
        super()._when_loaded()
        self._keep_background()

    @classmethod
    @setup_method
    def setup_anndata(  # type: ignore[override]  # scvi-tools' signature
        cls,
        adata: AnnData,
        protein_expression_obsm_key: str,
        protein_names_uns_key: str | None = None,
        batch_key: str | None = None,
        panel_key: str | None = None,
        layer: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        *,
        measured_proteins: dict[str, list[str]] | None = None,
    ) -> bundles.Fields:
        """Register an AnnData with counts of genes and proteins, and labels.

        Parameters
        ----------
        protein_expression_obsm_key, protein_names_uns_key, panel_key, measured_proteins
            As in :meth:`TOTALVI.setup_anndata <celbo.model.TOTALVI.setup_anndata>`.
        labels_key
            Column of ``adata.obs`` with the label of each cell; cells with NaN are not labelled.
        unlabeled_category
            Label that means "not labelled" too. None: only NaN does.
        """
        return cite_seq.fields(
            bundles.counts(layer),
            _labels(labels_key, unlabeled_category),
            cite_seq.proteins_in_obsm(protein_expression_obsm_key, protein_names_uns_key, measured_proteins),
            (batch_key, panel_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys),
        )

    @classmethod
    @setup_method
    def setup_mudata(  # type: ignore[override]  # scvi-tools 1.4.2 forgot the labels
        cls,
        mdata: "MuData",
        rna_layer: str | None = None,
        protein_layer: str | None = None,
        batch_key: str | None = None,
        panel_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        modalities: dict[str, str] | None = None,
        *,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
    ) -> bundles.Fields:
        """Register a MuData with a modality of genes and one of proteins, of the same cells, and labels.

        Parameters
        ----------
        panel_key, labels_key, unlabeled_category
            As in :meth:`setup_anndata`.
        """
        where = modalities or {}
        return cite_seq.fields(
            bundles.in_modality(where.get("rna_layer"), bundles.counts(rna_layer)),
            bundles.in_modality(where.get("labels_key"), _labels(labels_key, unlabeled_category)),
            cite_seq.proteins_in_modality(where.get("protein_layer"), protein_layer),
            (batch_key, panel_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys),
            where,
        )
