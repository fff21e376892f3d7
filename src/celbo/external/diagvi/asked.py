"""Which data sets a verb is asked about, for what it writes into them by ``key_added=``."""

from collections.abc import Mapping
from typing import Any

from anndata import AnnData

from ...model.base.several import SeveralSetsMixin

__all__ = ["cells_to_impute", "cells_to_label", "data_sets"]


def data_sets(model: SeveralSetsMixin, given: Mapping[str, Any]) -> list[AnnData]:
    """Those of the answer, in its order."""
    adatas = _own(model) if given.get("adatas") is None else given["adatas"]
    return list(adatas.values() if isinstance(adatas, Mapping) else adatas)


def cells_to_impute(model: SeveralSetsMixin, given: Mapping[str, Any]) -> AnnData | None:
    """The cells whose other modality is asked for."""
    adata = given.get("query_adata")
    return _own(model).get(given["query_name"]) if adata is None else adata


def cells_to_label(model: SeveralSetsMixin, given: Mapping[str, Any]) -> AnnData | None:
    """The cells whose labels are asked for."""
    if given.get("target_adata") is not None:
        return given["target_adata"]
    others = [name for name in model.set_names if name != given["labeled_modality"]]
    return _own(model).get(given.get("target_modality") or others[0])


def _own(model: SeveralSetsMixin) -> dict[str, AnnData]:
    return {name: one.adata for name, one in model.adata_managers.items() if one.adata is not None}
