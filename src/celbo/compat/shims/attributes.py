"""Private attributes of scvi-tools' models that code of others asks for: each computed from what celbo has."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...core import REGISTRY_KEYS
from ...model.base import SemisupervisedTrainingMixin

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


COMPUTED: Mapping[type, Mapping[str, _Computed]] = {
    SemisupervisedTrainingMixin: {
        "_labeled_indices": _Computed(lambda model: np.flatnonzero(_codes(model) < model.n_labels)),
        "_unlabeled_indices": _Computed(lambda model: np.flatnonzero(_codes(model) >= model.n_labels)),
        "_label_mapping": _Computed(_names),
        "_code_to_label": _Computed(lambda model: dict(enumerate(_names(model)))),
    }
}
"""Class -> private attribute -> how it is answered."""
