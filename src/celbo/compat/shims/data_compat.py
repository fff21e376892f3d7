"""``scvi.data._compat``: the data setup of archives from before version 0.15."""

from collections.abc import Mapping
from typing import Any

from ...io.scvitools.legacy import LEGACY_KEYS as LEGACY_REGISTRY_KEY_MAP
from ...io.scvitools.legacy import registry_of_setup

__all__ = ["LEGACY_REGISTRY_KEY_MAP", "registry_from_setup_dict"]


def registry_from_setup_dict(
    model_cls: type, setup_dict: Mapping[str, Any], unlabeled_category: str | None = None
) -> dict[str, Any]:
    """The registry of a model class that an old setup dictionary stands for."""
    registry = registry_of_setup(dict(setup_dict), unlabeled_category=unlabeled_category)
    return registry | {"model_name": model_cls.__name__}
