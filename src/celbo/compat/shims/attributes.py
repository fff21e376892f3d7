"""Private attributes of scvi-tools' models that code of others asks for: each computed from what celbo has."""

from collections.abc import Callable, Iterator, Mapping
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


class _Managers(Mapping[str, AnnDataManager]):
    """Managers of a class or of a model, by the identity of their data: those that there are when it is asked.

    Parameters
    ----------
    owner
        The class or the model.
    """

    def __init__(self, owner: object) -> None:
        self.owner = owner

    def __getitem__(self, key: str) -> AnnDataManager:
        return all_managers(self.owner)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(all_managers(self.owner))

    def __len__(self) -> int:
        return len(all_managers(self.owner))


def _managers_of_models(cls: type) -> dict[str, _Managers]:
    return {model.id: _Managers(model) for model in models_of(cls)}


COMPUTED: Mapping[type, Mapping[str, _Computed | _OfClass]] = {
    BaseModelClass: {
        "_setup_adata_manager_store": _OfClass(_Managers),
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
