"""``setup_anndata`` without rituals: the method returns its fields, the decorator does the bookkeeping."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, UnknownArgumentError, door_of
from ...data import AnnDataManager
from ...data.fields import BaseAnnDataField
from ...data.registry import check_source

__all__ = ["check_setup", "setup_method"]

_RAW = "use_raw"
"""An argument that scvi-tools does not have: it is in the registry only where it was given."""

_REGISTRATION = ("source_registry", "extend_categories", "allow_missing_labels")


def setup_method(fields_of: Callable[..., Sequence[BaseAnnDataField]]) -> Callable[..., None]:
    """Turn a method that returns the fields of a model into its setup method.

    Parameters
    ----------
    fields_of
        ``(cls, adata, layer=..., batch_key=..., ...) -> list of fields``; goes under ``@classmethod``.

    Returns
    -------
    The setup method: it registers ``adata`` with those fields, writes the call into the registry and keeps the
    manager. Keywords ``source_registry``, ``extend_categories`` and ``allow_missing_labels`` go to the registration.

    Raises
    ------
    TypeError
        An argument that the method does not have, with the nearest one that it has.
    """
    signature = inspect.signature(fields_of)
    own = [name for name, p in list(signature.parameters.items())[2:] if p.kind is not p.VAR_KEYWORD]

    def planned(cls: Any, adata: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], Sequence[BaseAnnDataField]]:
        """The call as the registry tells of it, and its fields."""
        what = f"{cls.__name__}.{fields_of.__name__}"
        for name in kwargs:
            if name not in own:
                raise UnknownArgumentError.among(name, what, own)
        args, kwargs = door_of(fields_of).take((cls, adata, *args), kwargs, what)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        call = {
            "model_name": cls.__name__,
            "setup_args": {name: bound.arguments[name] for name in own if name != _RAW or bound.arguments[name]},
            "setup_method_name": fields_of.__name__,
        }
        fields = fields_of(cls, adata, **call["setup_args"])
        if bound.arguments.get("use_minified", True):  # a model without the argument always does
            fields = cls._fields_of_setup(adata, fields)
        return call, fields

    @functools.wraps(fields_of)
    def setup(cls: Any, adata: Any, *args: Any, **kwargs: Any) -> None:
        registration = {name: kwargs.pop(name) for name in _REGISTRATION if name in kwargs}
        call, fields = planned(cls, adata, *args, **kwargs)
        manager = AnnDataManager(list(fields), call)
        manager.register_fields(adata, **registration)
        cls.register_manager(manager)

    setup.planned = planned  # type: ignore[attr-defined]
    setup.__celbo_door__ = True  # type: ignore[attr-defined]  # it looks at its arguments itself
    return setup


def check_setup(cls: Any, registry: Mapping[str, Any]) -> None:
    """Raise when the setup that a registry tells of cannot be repeated: known arguments, states that are of its fields.

    Parameters
    ----------
    cls
        The model's class. A setup method of someone else may look at its data, of which there are none: it passes then.
    registry
        The registry.
    """
    method = getattr(cls, registry.get("setup_method_name") or "setup_anndata")
    planned = getattr(method, "planned", None)
    if planned is None:
        return
    try:
        _, fields = planned(cls, AnnData(np.empty((0, 0))), **registry["setup_args"])
    except ArgumentError:
        raise
    except Exception:
        if method.__module__.startswith(f"{__name__.partition('.')[0]}."):
            raise
        return
    check_source(fields, registry)
