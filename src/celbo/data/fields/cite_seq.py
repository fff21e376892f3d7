"""The fields of genes and surface proteins (CITE-seq), of an AnnData or a MuData."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...core import REGISTRY_KEYS
from . import bundles
from .base import BaseAnnDataField
from .bundles import Fields
from .categorical import CategoricalObsField
from .mudata import MuDataProteinLayerField
from .protein import ProteinObsmField

__all__ = ["PANEL", "ProteinsOf", "fields", "proteins_in_modality", "proteins_in_obsm"]

PANEL = "panel"
_OF_PROTEINS: Mapping[str, Any] = {"use_batch_mask": True, "is_count_data": True}
ProteinsOf = Callable[..., BaseAnnDataField]
"""Makes the field of the proteins, from the field by which missing ones are found."""


def proteins_in_obsm(
    obsm_key: str, names_uns_key: str | None, measured: dict[str, list[str]] | None = None
) -> ProteinsOf:
    """The field of proteins in ``obsm``, to be made with the field by which missing ones are found."""
    named: dict[str, Any] = {"colnames_uns_key": names_uns_key, "measured_proteins": measured}
    return partial(ProteinObsmField, REGISTRY_KEYS.PROTEIN_EXP_KEY, obsm_key, **named, **_OF_PROTEINS)


def proteins_in_modality(modality: str | None, layer: str | None) -> ProteinsOf:
    """The same of proteins in a modality."""
    field: Any = MuDataProteinLayerField  # whose arguments are those of the field inside, too
    where = {"mod_key": modality, "mod_required": True}
    return partial(field, REGISTRY_KEYS.PROTEIN_EXP_KEY, layer, **where, **_OF_PROTEINS)


def fields(
    counts: Fields,
    labels: Fields,
    proteins_of: ProteinsOf,
    columns: tuple[Any, ...],
    where: Mapping[str, str] | None = None,
) -> Fields:
    """All fields in scvi-tools' order.

    Parameters
    ----------
    counts, labels
        Fields of the genes and of the labels.
    proteins_of
        Makes the proteins' field, from the field by which missing ones are found.
    columns
        Columns of batch, panel, size factor, categorical and continuous covariates.
    where
        Of a MuData: argument of the setup method -> modality. None: an AnnData.
    """
    batch, panel, factor, categorical, continuous = columns
    categories, numbers = bundles.covariates(categorical, continuous)
    panels: Fields = [] if panel is None else [CategoricalObsField(PANEL, panel)]
    known = {
        "panel_key": panels,
        "batch_key": bundles.batch(batch),
        "size_factor_key": bundles.size_factor(factor),
        "categorical_covariate_keys": [categories],
        "continuous_covariate_keys": [numbers],
    }
    if where is not None:
        known = {name: bundles.in_modality(where.get(name), fields) for name, fields in known.items()}
    by_panel, by_batch, *others = known.values()
    proteins = proteins_of(batch_field=(by_panel or by_batch)[0])
    return [*by_panel, *counts, *labels, *by_batch, *(field for part in others for field in part), proteins]
