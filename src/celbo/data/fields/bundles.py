"""The fields that most models register, by what they are for: each function gives a list to unpack into the model's."""

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS
from .base import BaseAnnDataField
from .categorical import CategoricalObsField
from .dataframe import NumericalObsField
from .joint import CategoricalJointObsField, NumericalJointObsField
from .layer import LayerField
from .mudata import ModalityField

__all__ = ["Fields", "batch", "cells", "counts", "covariates", "in_modality", "labels", "row_numbers", "size_factor"]

Fields = list[BaseAnnDataField]
"""What a setup method returns."""


def counts(layer: str | None, use_raw: bool = False, fragments: bool = False) -> Fields:
    """Counts under the key ``X``: of a layer, of ``X`` itself (None), or of ``raw``; checked to be ``fragments``."""
    key = REGISTRY_KEYS.X_KEY
    return [LayerField(key, layer, is_count_data=True, check_fragment_counts=fragments, use_raw=use_raw)]


def batch(batch_key: str | None) -> Fields:
    """Batch of each cell, from a column of ``obs``; None: one for all."""
    return [CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key)]


def labels(labels_key: str | None) -> Fields:
    """Label of each cell, from a column of ``obs``; None: one for all."""
    return [CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key)]


def size_factor(size_factor_key: str | None) -> Fields:
    """Size factor of each cell, from a column of ``obs``; None: nothing is registered."""
    return [NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False)]


def covariates(categorical_keys: list[str] | None, continuous_keys: list[str] | None) -> Fields:
    """Further covariates, from columns of ``obs``; None: nothing is registered."""
    return [
        CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_keys),
        NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_keys),
    ]


def cells(
    batch_key: str | None = None,
    labels_key: str | None = None,
    size_factor_key: str | None = None,
    categorical_keys: list[str] | None = None,
    continuous_keys: list[str] | None = None,
) -> Fields:
    """All that a model of counts may know of its cells: batch, label, size factor and further covariates."""
    known = [*batch(batch_key), *labels(labels_key), *size_factor(size_factor_key)]
    return [*known, *covariates(categorical_keys, continuous_keys)]


def row_numbers(adata: AnnData, column: str = "_indices") -> Fields:
    """Number of each row under the key ``ind_x``, kept in a column of ``obs``: for parameters that a cell owns."""
    adata.obs[column] = np.arange(adata.n_obs)
    return [NumericalObsField(REGISTRY_KEYS.INDICES_KEY, column)]


def in_modality(modality: str | None, fields: Fields) -> Fields:
    """The same fields of a MuData: of a modality by name, or, by None, of the cells of the MuData itself."""
    return [ModalityField(field, modality) for field in fields]
