"""Where results are written, and what is noted beside them."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from ..core import __version__, settings
from ..train.history import epoch_table

__all__ = ["NOTES", "note", "ready"]

NOTES = "celbo"
"""The key in ``adata.uns`` of what results were made with."""


def ready(adata: AnnData, copy: bool) -> AnnData:
    """The AnnData to write to: a copy in memory, or the one given, which is no view afterwards.

    Warns
    -----
    UserWarning
        The one given is a view: it becomes an AnnData of its own, as in scanpy.
    """
    if copy:
        return _in_memory(adata)
    if adata.is_view:
        warnings.warn(
            "Received a view of an AnnData. Making a copy.", UserWarning, stacklevel=settings.warnings_stacklevel + 1
        )
        adata._init_as_actual(_in_memory(adata))  # anndata's own way to turn a view into an object of its own
    return adata


def _in_memory(adata: AnnData) -> AnnData:
    return adata.to_memory() if adata.isbacked else adata.copy()


def note(adata: AnnData, key: str, by: str, model: Any, settings_of_call: Mapping[str, Any]) -> None:
    """Write into ``adata.uns["celbo"][key]`` which function made what lies under a key, with which model and how.

    Parameters
    ----------
    adata
        The data.
    key
        Where the result lies.
    by
        Name of the function.
    model
        The trained model.
    settings_of_call
        Arguments; those that are None are left out, what no file can hold is written as text.
    """
    made_with: dict[str, Any] = {"by": by, "model": type(model).__name__, "version": __version__}
    made_with |= {name: _kept(value) for name, value in settings_of_call.items() if value is not None}
    made_with |= {f"setup_{name}": _kept(value) for name, value in model.registry_["setup_args"].items() if value}
    history = epoch_table(model.history or {})
    made_with["epochs"] = len(history)
    if "elbo_validation" in history and len(history["elbo_validation"].dropna()):
        made_with["elbo_validation"] = float(history["elbo_validation"].min())
    notes = dict(adata.uns[NOTES]) if NOTES in adata.uns else {}
    adata.uns[NOTES] = notes | {key: made_with}


def _kept(value: Any) -> Any:
    """A value as files of AnnData hold it."""
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _kept(one) for name, one in value.items()}
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return np.array(value, dtype=object)
    return repr(value)
