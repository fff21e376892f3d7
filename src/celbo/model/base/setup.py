"""``setup_anndata`` without rituals: the method returns its fields, the decorator does the bookkeeping."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ...core import UnknownArgumentError, door_of
from ...data import AnnDataManager
from ...data.fields import BaseAnnDataField

__all__ = ["setup_method"]

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

    @functools.wraps(fields_of)
    def setup(cls: Any, adata: Any, *args: Any, **kwargs: Any) -> None:
        what = f"{cls.__name__}.{fields_of.__name__}"
        registration = {name: kwargs.pop(name) for name in _REGISTRATION if name in kwargs}
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
        manager = AnnDataManager(list(fields), call)
        manager.register_fields(adata, **registration)
        cls.register_manager(manager)

    setup.__celbo_door__ = True  # type: ignore[attr-defined]  # it looks at its arguments itself
    return setup
