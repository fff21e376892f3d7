"""A model by its name, by its class, or trained already."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from anndata import AnnData

from ..core import UnknownArgumentError, unknown_name
from ..core.homes import home_of, homes_among
from ..core.kinds import Instance
from ..external import DRVI, POISSONVI, JointEmbeddingSCVI, SysVI
from ..model import PEAKVI, SCANVI, SCVI, TOTALVI, LinearSCVI
from ..model.base import BaseModelClass

__all__ = ["KEYWORDS", "MODEL", "NAMES", "fitted", "is_trained"]

NAMES: Mapping[str, type[BaseModelClass]] = {
    "scvi": SCVI,
    "scanvi": SCANVI,
    "linear_scvi": LinearSCVI,
    "joint_embedding": JointEmbeddingSCVI,
    "drvi": DRVI,
    "sysvi": SysVI,
    "totalvi": TOTALVI,
    "peakvi": PEAKVI,
    "poissonvi": POISSONVI,
}
"""What ``model=`` may be called."""


def _is_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModelClass)


MODEL = Instance(
    f"the name of a model ({', '.join(NAMES)}), a class of models, or a trained model",
    lambda value: isinstance(value, str | BaseModelClass) or _is_class(value),
)

KEYWORDS = Instance("a mapping of names to values", lambda value: isinstance(value, Mapping))


_GIVEN: Mapping[str, str] = {
    "get_latent_representation": "latents",
    "predict": "labels",
    "get_normalized_expression": "expression on the scale of counts",
    "differential_expression": "differential expression of counts",
}
"""Verb -> what it gives."""

_PASSES_ON = ("model_kwargs", "train_kwargs")

_OF_NO_EXPRESSION = (PEAKVI, POISSONVI, SysVI)
"""They answer these verbs on a scale of their own: accessibility, values that were normalised before."""


def _answers(cls: type[BaseModelClass], verb: str) -> bool:
    of_expression = verb in ("get_normalized_expression", "differential_expression")
    return verb in dir(cls) and not (of_expression and issubclass(cls, _OF_NO_EXPRESSION))


def is_trained(model: object) -> bool:
    """Whether a model was given, rather than what to make one of."""
    return isinstance(model, BaseModelClass)


def fitted(
    adata: AnnData,
    model: object,
    setup: Mapping[str, Any],
    model_kwargs: Mapping[str, Any] | None,
    train_kwargs: Mapping[str, Any] | None,
    seed: int | None,
    *,
    verb: str,
) -> Any:
    """Set up, make and train a model; one that was trained is given back.

    Parameters
    ----------
    adata
        The data.
    model
        Name or class of what to train, or the trained model.
    setup
        Arguments of ``setup_anndata``; those that are None or False are left out.
    model_kwargs, train_kwargs, seed
        Arguments of the model's class and of its ``train``.
    verb
        Method that the model must have, one of :data:`_GIVEN`.

    Raises
    ------
    ValueError
        An unknown name; a model without the verb; arguments for the making of a model that is trained already.
    UnknownArgumentError
        An argument of ``train`` or of the class among those of ``setup_anndata``; the message says where it goes.
    """
    cls: Any = type(model) if isinstance(model, BaseModelClass) else _named(model) if isinstance(model, str) else model
    if not _answers(cls, verb):
        able = ", ".join(name for name, one in NAMES.items() if _answers(one, verb))
        raise ValueError(f"{cls.__name__} does not give {_GIVEN[verb]}. These models do: {able}.")
    given = {name: value for name, value in setup.items() if value is not None and value is not False}
    if isinstance(model, BaseModelClass):
        spare = [*given, *(["model_kwargs"] if model_kwargs else []), *(["train_kwargs"] if train_kwargs else [])]
        if spare:
            raise ValueError(f"This {type(model).__name__} is made already: leave {', '.join(spare)} out.")
        model._check_if_trained(warn=False)
        return model
    _require_of_setup(cls, given)
    cls.setup_anndata(adata, **given)
    made = cls(adata, **(model_kwargs or {}))
    made.train(**({"seed": seed} | dict(train_kwargs or {})))
    return made


def _require_of_setup(cls: Any, given: Mapping[str, Any]) -> None:
    """Refuse what goes to ``train`` or to the class; names that nobody knows are left to ``setup_anndata``."""
    known, homes = signature(cls.setup_anndata).parameters, homes_among((cls,))
    for name, value in given.items():
        if name not in known and home_of(name, homes) is not None:
            raise UnknownArgumentError.of_call(name, value, f"{cls.__name__}.setup_anndata", _PASSES_ON, homes)


def _named(name: str) -> type[BaseModelClass]:
    if name.lower() not in NAMES:
        raise ValueError(unknown_name("model (model=)", name, NAMES))
    return NAMES[name.lower()]
