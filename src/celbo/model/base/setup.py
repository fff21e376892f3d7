"""``setup_anndata`` without rituals: the method returns its fields, the decorator does the bookkeeping."""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, UnknownArgumentError, door_of
from ...data import AnnDataManager
from ...data.fields import BaseAnnDataField
from ...data.registry import check_source

__all__ = ["Registry", "check_setup", "setup_method"]

Registry = Mapping[str, Any]
"""What setup found out about data, in scvi-tools' layout."""

_RAW = "use_raw"
"""An argument that scvi-tools does not have: it is in the registry only where it was given."""

_TEXTS: Mapping[str, str] = {
    "adata": "Cells by genes; counts in ``X``, in a layer or in ``raw``. Not copied; see "
    ":class:`~celbo.data.AnnDataManager` for what is added.",
    "layer": "Layer with the counts; None: ``X``.",
    "batch_key": "Column of ``adata.obs`` with the batch of each cell; None: one for all.",
    "labels_key": "Column of ``adata.obs`` with the label of each cell; None: one for all.",
    "size_factor_key": "Column of ``adata.obs`` with positive size factors, which take the place of the library size.",
    "categorical_covariate_keys": "Columns of ``adata.obs`` with further covariates that are categories.",
    "continuous_covariate_keys": "Columns of ``adata.obs`` with further covariates that are numbers.",
    "use_raw": "Take the counts of ``adata.raw``, and its genes: all that the model says of genes then goes by "
    "``adata.raw.var_names``. New data need a ``raw`` too.",
    "**kwargs": "``source_registry``, ``extend_categories``, ``allow_missing_labels``: take over the setup of other "
    "data.",
}
"""Argument -> what it is in every setup method that does not say otherwise."""

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
    Arguments that models share are documented once, here: the method's docstring has only those of its own.

    Raises
    ------
    TypeError
        An argument that the method does not have, with the nearest one that it has.
    """
    signature = inspect.signature(fields_of)
    own = [name for name, p in list(signature.parameters.items())[2:] if p.kind is not p.VAR_KEYWORD]

    def planned(
        cls: Any, adata: object, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], Sequence[BaseAnnDataField]]:
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
    def setup(cls: Any, adata: object, *args: Any, **kwargs: Any) -> None:
        registration = {name: kwargs.pop(name) for name in _REGISTRATION if name in kwargs}
        call, fields = planned(cls, adata, *args, **kwargs)
        manager = AnnDataManager(list(fields), call)
        manager.register_fields(adata, **registration)
        cls.register_manager(manager)

    setup.planned = planned  # type: ignore[attr-defined]
    setup.__signature__ = _with_registration(signature)  # type: ignore[attr-defined]
    setup.__doc__ = _documented(fields_of.__doc__ or "", own)
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
    name = registry.get("setup_method_name") or "setup_anndata"
    if name == "setup_datamodule":  # a model made without an AnnData: its loaders were set up, and no method did that
        return
    method = getattr(cls, name)
    planned = getattr(method, "planned", None)
    if planned is None:
        return
    try:
        _, fields = planned(cls, _no_cells(), **registry["setup_args"])
    except ArgumentError:
        raise
    except Exception:
        if method.__module__.startswith(f"{__name__.partition('.')[0]}."):
            raise
        return
    check_source(fields, registry)


def _with_registration(signature: inspect.Signature) -> inspect.Signature:
    """The signature with ``**kwargs``, which go to the registration."""
    parameters = list(signature.parameters.values())
    if parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation=Any))
    return signature.replace(parameters=parameters, return_annotation=None)


def _documented(doc: str, own: Sequence[str]) -> str:
    """A docstring with the shared text of each argument that it does not name itself."""
    head, _, rest = inspect.cleandoc(doc).partition("\n\nParameters\n----------\n")
    named = {name.strip() for line in rest.splitlines() if not line.startswith(" ") for name in line.split(",")}
    shared = [name for name in ("adata", *own, "**kwargs") if name in _TEXTS and name not in named]
    texts = [f"{name}\n{textwrap.indent(textwrap.fill(_TEXTS[name], 112), '    ')}" for name in shared]
    return "\n".join([head, "", "Parameters", "----------", *([rest] if rest else []), *texts, ""])


@functools.cache
def _no_cells() -> AnnData:
    return AnnData(np.empty((0, 0)))
