"""``setup_anndata`` and ``setup_mudata``: the method returns its fields, the decorator does the bookkeeping."""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, UnknownArgumentError, door_of
from ...core.arguments import as_shown
from ...core.homes import homes_among
from ...data import AnnDataManager
from ...data.access import is_mudata
from ...data.fields import BaseAnnDataField
from ...data.modalities import listed_modalities
from ...data.presence import tell_presence
from ...data.registry import check_source
from ...data.validation_check import AnnDataManagerValidationCheck

__all__ = ["Registry", "check_setup", "setup_method"]

Registry = Mapping[str, Any]
"""What setup found out about data, in scvi-tools' layout."""

_OWN = ("use_raw", "measured_proteins")
"""Arguments that scvi-tools does not have: they are in the registry only where they were given."""

_NEVER_KEPT = ("backend",)
"""Arguments that say nothing of the data."""

_TEXTS: Mapping[str, str] = {
    "adata": "Cells by genes; counts in ``X``, in a layer or in ``raw``. Not copied; see "
    ":class:`~celbo.data.AnnDataManager` for what is added.",
    "mdata": "MuData whose modalities share cells. Not copied; see :class:`~celbo.data.AnnDataManager` for what is "
    "added.",
    "modalities": "Argument of this method -> modality that it is of: ``{'rna_layer': 'rna', 'batch_key': 'rna'}``. "
    "Each ``..._layer`` that is to be read needs one. A column without one is looked for in ``mdata.obs``, then in the "
    "modalities; cells that its modality lacks get their value from the others.",
    "rna_layer": "Layer of the modality with the counts of genes; None: its ``X``.",
    "protein_layer": "Layer of the modality with the counts of proteins; None: its ``X``.",
    "atac_layer": "Layer of the modality with the counts of regions; None: its ``X``.",
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
_MODALITIES = "modalities"
_TAKES_MUDATA: Mapping[str, bool] = {"setup_anndata": False, "setup_mudata": True}
"""Setup method -> whether its data are a MuData; one of another name takes either."""


def setup_method(fields_of: Callable[..., Sequence[BaseAnnDataField]]) -> Callable[..., None]:
    """Turn a method that returns the fields of a model into its setup method.

    Parameters
    ----------
    fields_of
        ``(cls, adata, layer=..., batch_key=..., ...) -> list of fields``; goes under ``@classmethod``. Called
        ``setup_mudata`` its data are a MuData, and ``modalities`` says where each argument lies.

    Returns
    -------
    The setup method: it registers ``adata`` with those fields, writes the call into the registry and keeps the
    manager. Keywords ``source_registry``, ``extend_categories`` and ``allow_missing_labels`` go to the registration.
    Arguments that models share are documented once, here: the method's docstring has only those of its own.

    Raises
    ------
    TypeError
        An argument that the method does not have, with the nearest one that it has; an AnnData for ``setup_mudata``, or
        a MuData for ``setup_anndata``.
    """
    signature = inspect.signature(fields_of)
    data_name = list(signature.parameters)[1]
    own = [name for name, p in list(signature.parameters.items())[2:] if p.kind is not p.VAR_KEYWORD]
    kept = [name for name in own if name not in _NEVER_KEPT]
    of_one = [name for name in own if name.endswith("_layer") and signature.parameters[name].default is None]

    def planned(
        cls: Any, adata: object, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], Sequence[BaseAnnDataField]]:
        """The call as the registry tells of it, and its fields."""
        what = f"{cls.__name__}.{fields_of.__name__}"
        for name in kwargs:
            if name not in own:
                raise UnknownArgumentError.of_call(name, kwargs[name], what, own, homes_among((cls,)))
        args, kwargs = door_of(fields_of).take((cls, adata, *args), kwargs, what)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        _require_modalities(adata, bound.arguments.get(_MODALITIES), own, of_one)
        call = {
            "model_name": cls.__name__,
            "setup_args": {name: bound.arguments[name] for name in kept if name not in _OWN or bound.arguments[name]},
            "setup_method_name": fields_of.__name__,
        }
        fields = fields_of(cls, adata, **call["setup_args"])
        if bound.arguments.get("use_minified", True):  # a model without the argument always does
            fields = cls._fields_of_setup(adata, fields)
        return call, fields

    @functools.wraps(fields_of)
    def setup(cls: Any, *args: Any, **kwargs: Any) -> None:
        registration = {name: kwargs.pop(name) for name in _REGISTRATION if name in kwargs}
        if data_name in kwargs:
            args = (kwargs.pop(data_name), *args)
        if not args:
            door_of(fields_of).take((cls, None), kwargs, f"{cls.__name__}.{fields_of.__name__}")
        _require_data(cls, fields_of.__name__, data_name, args)
        adata, *rest = args
        call, fields = planned(cls, adata, *rest, **kwargs)
        checks = AnnDataManagerValidationCheck(check_fully_paired_mudata=not cls._modalities_may_lack_cells)
        manager = AnnDataManager(list(fields), call, checks)
        manager.register_fields(adata, **registration)
        is_new = registration.get("source_registry") is None
        if is_new and manager.may_lack_modalities and cls._modalities_are_linked:
            tell_presence(manager)
        cls.register_manager(manager)

    setup.planned = planned  # type: ignore[attr-defined]
    setup.__signature__ = _with_registration(signature)  # type: ignore[attr-defined]
    setup.__doc__ = _documented(fields_of.__doc__ or "", [data_name, *own])
    setup.__celbo_door__ = True  # type: ignore[attr-defined]  # it looks at its arguments itself
    return setup


def _require_data(cls: Any, method: str, data_name: str, args: Sequence[Any]) -> None:
    if not args:
        raise TypeError(f"{cls.__name__}.{method} needs the data: {data_name}=.")
    takes = _TAKES_MUDATA.get(method)
    if takes is None or takes == is_mudata(args[0]):
        return
    other = "setup_anndata" if takes else "setup_mudata"
    wanted, got = ("a MuData", f"{type(args[0]).__name__} data") if takes else ("an AnnData", "a MuData")
    cure = f"use {cls.__name__}.{other}" if hasattr(cls, other) else "this model takes no other data"
    raise TypeError(f"{cls.__name__}.{method} takes {wanted}, got {got}: {cure}.")


def _require_modalities(
    data: object, modalities: Mapping[str, str] | None, arguments: Sequence[str], layers: Sequence[str]
) -> None:
    """Raise when ``modalities=`` of a setup method names no argument of it, or no modality of the data.

    Parameters
    ----------
    data
        The MuData; where it is none, as when an archive is read, names of modalities pass.
    modalities
        Argument -> modality.
    arguments
        Those of the setup method.
    layers
        Those that are a layer of one modality.

    Raises
    ------
    ValueError
        Names the entry that is wrong.
    """
    if modalities is None and _MODALITIES not in arguments:
        return
    if not (modalities or layers):
        return
    layers = [name for name in layers if name != "idx_layer"]
    if not modalities:
        there = f", one of {listed_modalities(data)}" if is_mudata(data) else ""
        example = ", ".join(f"{name!r}: ..." for name in layers)
        raise ValueError(f"Modalities cannot be None: say of which modality{there}, each is: modalities={{{example}}}.")
    for argument, modality in modalities.items():
        if argument not in arguments:
            raise UnknownArgumentError.among(
                argument, "modalities", [name for name in arguments if name != _MODALITIES]
            )
        if is_mudata(data) and modality is not None and modality not in data.mod:  # type: ignore[attr-defined]
            raise ValueError(
                f"modalities={{{argument!r}: {modality!r}}}: there is no such modality. "
                f"There are: {listed_modalities(data)}."
            )


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
    planned = vars(method).get("planned")
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
    return as_shown(signature.replace(parameters=parameters, return_annotation=None))


_BEFORE_SECTION = re.compile(r"\n\n(?=[A-Z]\w+\n-{3,}(?:\n|$))")


def _documented(doc: str, own: Sequence[str]) -> str:
    """A docstring with the shared text of each argument that it does not name itself."""
    head, *sections = _BEFORE_SECTION.split(inspect.cleandoc(doc))
    of_arguments = [section for section in sections if section.startswith("Parameters\n")]
    documented = of_arguments[0] if of_arguments else "Parameters\n----------"
    named = {name.strip() for line in documented.splitlines() if not line.startswith(" ") for name in line.split(",")}
    shared = [name for name in (*own, "**kwargs") if name in _TEXTS and name not in named]
    texts = [f"{name}\n{textwrap.indent(textwrap.fill(_TEXTS[name], 112), '    ')}" for name in shared]
    others = [section for section in sections if section not in of_arguments]
    return "\n\n".join([head, "\n".join([documented, *texts]), *others]) + "\n"


@functools.cache
def _no_cells() -> AnnData:
    return AnnData(np.empty((0, 0)))
