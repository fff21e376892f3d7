"""A model by its name, by its class, or trained already."""

from collections.abc import Mapping
from typing import Any

from anndata import AnnData

from ..core import unknown_name
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

    Raises
    ------
    ValueError
        An unknown name; arguments for the making of a model that is trained already.
    """
    given = {name: value for name, value in setup.items() if value is not None and value is not False}
    if isinstance(model, BaseModelClass):
        spare = [*given, *(["model_kwargs"] if model_kwargs else []), *(["train_kwargs"] if train_kwargs else [])]
        if spare:
            raise ValueError(f"This {type(model).__name__} is made already: leave {', '.join(spare)} out.")
        model._check_if_trained(warn=False)
        return model
    cls: Any = _named(model) if isinstance(model, str) else model
    cls.setup_anndata(adata, **given)
    made = cls(adata, **(model_kwargs or {}))
    made.train(**({"seed": seed} | dict(train_kwargs or {})))
    return made


def _named(name: str) -> type[BaseModelClass]:
    if name.lower() not in NAMES:
        raise ValueError(unknown_name("model (model=)", name, NAMES))
    return NAMES[name.lower()]
