"""A model of labels from one that was trained without: its setup, its dispersions by label, what it does not take."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch

from ...core import REGISTRY_KEYS, settings
from ...data.access import is_mudata
from ...data.fields import BaseAnnDataField, LabelsWithUnlabeledObsField
from ...data.fields.mudata import ModalityField

__all__ = ["columns_by_label", "setup_with_labels", "warn_ignored"]


def warn_ignored(names: list[str], init: Mapping[str, Any], source: str = "SCVI") -> None:
    """Say which arguments are left out, for those the trained model has; ``init`` has their values."""
    if names:
        taken = ", ".join(f"{name}={init[name]!r}" for name in names)
        warnings.warn(
            f"from_{source.lower()}_model leaves out {', '.join(names)}: the {source} model says {taken}.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel + 2,
        )


def setup_with_labels(
    scvi_registry: Mapping[str, Any], adata: Any, labels_key: str | None, unlabeled: Any, source_name: str = "SCVI"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Registry of a model without labels, with labels of which some may mean "not labelled", and the setup call.

    Raises a ``ValueError`` where neither ``labels_key`` nor the model's setup names a column.
    """
    # latents stored by such a model are not those that one with labels learns
    arguments = dict(scvi_registry["setup_args"]) | {"unlabeled_category": unlabeled, "use_minified": False}
    arguments["labels_key"] = labels_key or arguments.get("labels_key")
    if arguments["labels_key"] is None:
        name = "scVI" if source_name == "SCVI" else source_name
        raise ValueError(f"A `labels_key` is necessary as the {name} model was initialized without one.")
    column, labels = arguments["labels_key"], REGISTRY_KEYS.LABELS_KEY
    field: BaseAnnDataField = LabelsWithUnlabeledObsField(labels, column, unlabeled)
    if is_mudata(adata):
        field = ModalityField(field, (arguments.get("modalities") or {}).get("labels_key"))
    source = deepcopy(dict(scvi_registry))
    state = field.register_field(adata)
    source["field_registries"][labels] = {
        "data_registry": field.get_data_registry(),
        "state_registry": state,
        "summary_stats": field.get_summary_stats(state),
    }
    return source, arguments


def columns_by_label(px_r_gc: torch.Tensor, old: Any, new: list[Any]) -> torch.Tensor:
    """Dispersions of labels in another order; a label that is new gets the mean of all."""
    column_of = {name: px_r_gc[:, code] for code, name in enumerate(old)}
    return torch.stack([column_of.get(name, px_r_gc.mean(1)) for name in new], dim=1)
