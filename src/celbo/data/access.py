"""Reading one place of an AnnData, with errors that list what is there."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..core import unknown_name
from ..core.rules import rules
from ..store.tables.columns import is_numbers, numbers
from .constants import MINIFY_TYPE_UNS_KEY, PREFIX, RAW

__all__ = [
    "MissingLayerError",
    "anndata_array",
    "anndata_value",
    "dense",
    "is_mudata",
    "minify_type_of",
    "place",
    "put_row_major",
    "raw_of",
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


def is_mudata(data: object) -> bool:
    """Whether this is a MuData: if mudata was never imported, nothing is."""
    mudata = sys.modules.get("mudata")
    return mudata is not None and isinstance(data, mudata.MuData)


def dense(x: Any, dtype: type[np.floating] | None = None) -> np.ndarray:
    """Numbers as a numpy array, whether they lie sparse or not."""
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=dtype)


def place(attr_name: str, attr_key: str | None, holder: str = "adata") -> str:
    """How a user would type it: ``adata.X``, ``adata.obs['batch']``, ``mdata.mod['rna'].X``."""
    if attr_name == RAW:
        return f"{holder}.raw.X"
    return f"{holder}.{attr_name}" if attr_key is None else f"{holder}.{attr_name}[{attr_key!r}]"


class MissingLayerError(KeyError, ValueError):
    """A layer that is not there: a ``KeyError``, as all that is missing, and a ``ValueError``, as scvi-tools has it."""


def require_key(adata: AnnData, attr_name: str, attr_key: str | None) -> None:
    """Raise a ``KeyError`` that lists the existing keys, nearest first, unless ``attr_key`` is one of them.

    A column that a table has more than once raises a ``ValueError``: it could mean either.
    """
    existing: Iterable[str | None] = getattr(adata, attr_name).keys()
    if attr_key not in existing:
        mine = [key for key in existing if not str(key).startswith(PREFIX)]
        error = MissingLayerError if attr_name == "layers" else KeyError
        raise error(unknown_name(_KINDS[attr_name], attr_key, mine))
    if attr_name in ("obs", "var"):
        _require_one_column(getattr(adata, attr_name), attr_name, attr_key)


def _require_one_column(frame: pd.DataFrame, attr_name: str, name: object) -> None:
    count = int(np.count_nonzero(frame.columns == name)) if not frame.columns.is_unique else 1
    if count > 1:
        raise ValueError(
            f"adata.{attr_name} has {count} columns called {name!r}, so it cannot be told which is meant. Keep one, "
            f"for example the first of each name: adata.{attr_name} = "
            f"adata.{attr_name}.loc[:, ~adata.{attr_name}.columns.duplicated()]"
        )


def anndata_value(adata: AnnData, attr_name: str, attr_key: str | None) -> Any:
    """What lies at a place of the AnnData, as it lies there; at ``"raw"`` the matrix of ``adata.raw``."""
    if attr_name == RAW:
        return raw_of(adata).X
    if attr_key is None:
        return getattr(adata, attr_name)
    require_key(adata, attr_name, attr_key)
    return getattr(adata, attr_name)[attr_key]


def anndata_array(adata: AnnData, attr_name: str, attr_key: str | None) -> Any:
    """As :func:`anndata_value`, with a column of ``obs`` or ``var`` as an array of shape ``(n, 1)``."""
    value = anndata_value(adata, attr_name, attr_key)
    return _as_array(value)[:, None] if isinstance(value, pd.Series) else value  # asarray would hash the index


def _as_array(column: pd.Series) -> np.ndarray:
    """Values of a column; numbers as numbers, however pandas keeps them."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind != "O":
        return column.to_numpy()
    return numbers(column) if is_numbers(column) else column.to_numpy()


def raw_of(adata: AnnData) -> Any:
    """``adata.raw``; a ``ValueError`` where there is none."""
    if adata.raw is None:
        raise ValueError(
            "adata.raw is None, so use_raw=True finds no counts: put them there (adata.raw = an AnnData with the "
            "counts of the same cells), or leave use_raw out and name where they are."
        )
    return adata.raw


def which_layer(layers: Iterable[str | None]) -> str:
    """What to type where there is no ``X``, by the layers that there are; in Python's words."""
    names = [str(name) for name in layers if name is not None]
    if not names:
        return "There are no layers either that layer='NAME' could name."
    likely = next((name for name in names if "count" in name.lower()), names[0])
    listed = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"Its layers are {listed}: name the one that holds the counts, for example layer={likely!r}."


def put_row_major(adata: AnnData, attr_name: str, attr_key: str | None) -> None:
    """Put a copy of a dense array there, row by row, if it lies otherwise and scvi-tools' rules hold."""
    value = anndata_value(adata, attr_name, attr_key)
    if not rules().row_major or attr_name == RAW or not isinstance(value, np.ndarray) or value.flags["C_CONTIGUOUS"]:
        return
    rearranged = np.ascontiguousarray(value)
    if attr_key is None:
        setattr(adata, attr_name, rearranged)
    else:
        getattr(adata, attr_name)[attr_key] = rearranged


def minify_type_of(adata: AnnData | None) -> str | None:
    """How an AnnData is minified; None: it is not, or there is none."""
    return None if adata is None else adata.uns.get(MINIFY_TYPE_UNS_KEY)
