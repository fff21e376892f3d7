"""Private attributes of scvi-tools' models that code of others asks for: each computed from what celbo has."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...core import REGISTRY_KEYS
from ...data import AnnDataManager
from ...model.base import BaseModelClass, SemisupervisedTrainingMixin
from ...model.base.face import all_managers, models_of

__all__ = ["COMPUTED"]


def _codes(model: Any) -> np.ndarray:
    """Code of the label of each training cell, ``(n,)``; a cell without label has the last one."""
    return np.asarray(model.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).ravel()


def _names(model: Any) -> np.ndarray:
    return np.asarray(model.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])


class _Computed:
    """An attribute computed by a function until someone sets one of that name on the instance.

    Parameters
    ----------
    answer
        Function of the instance.
    """

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else self.answer(instance)


class _OfClass:
    """An attribute of a class, computed by a function of it; its instances have it too.

    Parameters
    ----------
    answer
        Function of the class.
    """

    def __init__(self, answer: Callable[[type], Any]) -> None:
        self.answer = answer

    def __get__(self, instance: object, owner: type) -> Any:
        return self.answer(owner)


def _managers_of_models(cls: type) -> dict[str, dict[str, AnnDataManager]]:
    return {model.id: all_managers(model) for model in models_of(cls)}


COMPUTED: Mapping[type, Mapping[str, _Computed | _OfClass]] = {
    BaseModelClass: {
        "_setup_adata_manager_store": _OfClass(all_managers),
        "_per_instance_manager_store": _OfClass(_managers_of_models),
    },
    SemisupervisedTrainingMixin: {
        "_labeled_indices": _Computed(lambda model: np.flatnonzero(_codes(model) < model.n_labels)),
        "_unlabeled_indices": _Computed(lambda model: np.flatnonzero(_codes(model) >= model.n_labels)),
        "_label_mapping": _Computed(_names),
        "_code_to_label": _Computed(lambda model: dict(enumerate(_names(model)))),
    },
}
"""Class -> private attribute -> how it is answered."""
