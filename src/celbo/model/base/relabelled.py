"""A model of labels from one that was trained without: its setup, its dispersions by label, what it does not take."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS, settings
from ...data.fields import LabelsWithUnlabeledObsField

__all__ = ["columns_by_label", "setup_with_labels", "warn_ignored"]


def warn_ignored(names: list[str], init: Mapping[str, Any]) -> None:
    """Say which arguments are left out, for those the trained model has; ``init`` has their values."""
    if names:
        taken = ", ".join(f"{name}={init[name]!r}" for name in names)
        warnings.warn(
            f"from_scvi_model leaves out {', '.join(names)}: the SCVI model says {taken}.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel + 1,
        )


def setup_with_labels(
    scvi_registry: Mapping[str, Any], adata: AnnData, labels_key: str | None, unlabeled: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """SCVI's registry with labels of which some may mean "not labelled", and the setup call that goes with it."""
    # latents stored by SCVI are not those that SCANVI learns
    arguments = dict(scvi_registry["setup_args"]) | {"unlabeled_category": unlabeled, "use_minified": False}
    arguments["labels_key"] = labels_key or arguments.get("labels_key")
    if arguments["labels_key"] is None:
        raise ValueError("A `labels_key` is necessary as the scVI model was initialized without one.")
    labels = LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, arguments["labels_key"], unlabeled)
    source = deepcopy(dict(scvi_registry))
    state = labels.register_field(adata)
    source["field_registries"][REGISTRY_KEYS.LABELS_KEY] = {
        "data_registry": labels.get_data_registry(),
        "state_registry": state,
        "summary_stats": labels.get_summary_stats(state),
    }
    return source, arguments


def columns_by_label(px_r_gc: torch.Tensor, old: Any, new: list[Any]) -> torch.Tensor:
    """Dispersions of labels in another order; a label that is new gets the mean of all."""
    column_of = {name: px_r_gc[:, code] for code, name in enumerate(old)}
    return torch.stack([column_of.get(name, px_r_gc.mean(1)) for name in new], dim=1)
