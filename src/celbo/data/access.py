"""Reading one place of an AnnData, with errors that list what is there."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import unknown_name
from ..core.rules import rules
from .constants import PREFIX

__all__ = [
    "MissingLayerError",
    "anndata_array",
    "anndata_value",
    "place",
    "put_row_major",
    "require_key",
    "which_layer",
]

_KINDS = {
    "obs": "column of adata.obs",
    "var": "column of adata.var",
    "obsm": "entry of adata.obsm",
    "varm": "entry of adata.varm",
    "layers": "layer of adata.layers",
    "uns": "entry of adata.uns",
}


def place(attr_name: str, attr_key: str | None) -> str:
    """How a user would type it: ``adata.X``, ``adata.obs['batch']``."""
    return f"adata.{attr_name}" if attr_key is None else f"adata.{attr_name}[{attr_key!r}]"


class MissingLayerError(KeyError, ValueError):
    """A layer that is not there: a ``KeyError``, as all that is missing, and a ``ValueError``, as scvi-tools has it."""


def require_key(adata: AnnData, attr_name: str, attr_key: str | None) -> None:
    """Raise a ``KeyError`` that lists the existing keys, nearest first, unless ``attr_key`` is one of them."""
    existing: Iterable[str | None] = getattr(adata, attr_name).keys()
    if attr_key not in existing:
        mine = [key for key in existing if not str(key).startswith(PREFIX)]
        error = MissingLayerError if attr_name == "layers" else KeyError
        raise error(unknown_name(_KINDS[attr_name], attr_key, mine))


def anndata_value(adata: AnnData, attr_name: str, attr_key: str | None) -> Any:
    """What lies at a place of the AnnData, as it lies there."""
    if attr_key is None:
        return getattr(adata, attr_name)
    require_key(adata, attr_name, attr_key)
    return getattr(adata, attr_name)[attr_key]


def anndata_array(adata: AnnData, attr_name: str, attr_key: str | None) -> Any:
    """As :func:`anndata_value`, with a column of ``obs`` or ``var`` as an array of shape ``(n, 1)``."""
    value = anndata_value(adata, attr_name, attr_key)
    return value.to_numpy()[:, None] if isinstance(value, pd.Series) else value  # asarray would hash the index


def which_layer(layers: Iterable[str | None]) -> str:
    """What to type where there is no ``X``, by the layers that there are; in Python's words."""
    names = [str(name) for name in layers if name is not None]
    if not names:
        return "There are no layers either that layer='NAME' could name."
    likely = next((name for name in names if "count" in name.lower()), names[0])
    listed = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"Its layers are {listed}: name the one that holds the counts, for example layer={likely!r}."


def put_row_major(adata: AnnData, attr_name: str, attr_key: str | None) -> None:
    """Put a dense array there anew, row by row, if it lies otherwise and scvi-tools' rules hold."""
    value = anndata_value(adata, attr_name, attr_key)
    if not rules().row_major or not isinstance(value, np.ndarray) or value.flags["C_CONTIGUOUS"]:
        return
    rearranged = np.ascontiguousarray(value)
    if attr_key is None:
        setattr(adata, attr_name, rearranged)
    else:
        getattr(adata, attr_name)[attr_key] = rearranged
