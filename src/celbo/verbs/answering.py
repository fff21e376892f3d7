"""A model that answers with a variant of its module."""

from typing import Any

__all__ = ["AnsweringWith"]


class AnsweringWith:
    """Stands for a model in a call of one of its verbs: all but the module is the model's own.

    Parameters
    ----------
    model
        The model; it is not changed, so that other threads may ask it meanwhile.
    module
        What answers.
    """

    def __init__(self, model: object, module: object) -> None:
        self._model, self.module = model, module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
