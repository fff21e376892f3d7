"""Which of a model's functions takes an argument: its setup, its constructor, its training or the plan of that."""

import inspect
from typing import Any

from ...core import door_of
from ...core.homes import Home
from ...train import Trainer

__all__ = ["argument_homes"]

_SETUPS = ("setup_anndata", "setup_mudata")
_OF_NOBODY = {"self", "cls", "adata", "mdata", "registry", "module", "args", "kwargs"}


def argument_homes(cls: Any) -> list[Home]:
    """What takes arguments at a class of models."""
    name = cls.__name__
    homes = [
        _home("setup_kwargs", f"{name}.{method}", _known(getattr(cls, method)), f"{name}.{method}(data, {{}})")
        for method in _SETUPS
        if hasattr(cls, method)
    ]
    made_of = _known(cls.__init__)
    if door_of(cls.__init__).takes_more and cls._module_cls is not None:
        made_of |= _known(cls._module_cls.__init__)
    homes.append(_home("model_kwargs", name, made_of, f"{name}(adata, {{}})"))
    if hasattr(cls, "train"):
        trained_with = _known(cls.train)
        if door_of(cls.train).takes_more:
            trained_with |= _known(Trainer.__init__)
        homes.append(_home("train_kwargs", f"{name}.train", trained_with, "model.train({})"))
        if "plan_kwargs" in trained_with and hasattr(cls, "_training_plan_cls"):
            known = _known(cls._training_plan_cls.__init__)
            homes.append(_home("plan_kwargs", "the plan", known, "model.train(plan_kwargs=dict({}))"))
    return homes


def _home(keyword: str, owner: str, known: set[str], call: str) -> Home:
    return Home(keyword, owner, frozenset(known - _OF_NOBODY), call)


def _known(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
