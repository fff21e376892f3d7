"""Where cells lie, looked at before anything is computed from it."""

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, nearest_first, settings

__all__ = ["coordinates_of", "named_cells"]

_SHOWN = 5


def coordinates_of(adata: AnnData, key: str, argument: str) -> np.ndarray:
    """Coordinates of cells, ``(n, d)`` float64.

    Parameters
    ----------
    adata
        Cells with coordinates in ``obsm``, in any unit.
    key
        Which entry of ``obsm``: an array or a frame of numbers.
    argument
        The argument that named it, for messages.

    Raises
    ------
    ArgumentError
        There is no such entry, or it is no table of numbers; NaN or infinite coordinates, with the names of the cells.
    """
    where = f"adata.obsm[{key!r}] ({argument})"
    if key not in adata.obsm:
        there = ", ".join(map(repr, nearest_first(key, adata.obsm))) or "none"
        raise ArgumentError(
            f"adata.obsm has no coordinates under {key!r}; there are: {there}. Put x and y of each cell there, or name "
            f"where they lie: {argument}=."
        )
    try:
        xy_nd = np.asarray(adata.obsm[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{where} is no table of numbers: {error}. Put x and y of each cell there.") from None
    if xy_nd.ndim != 2 or not xy_nd.shape[1]:
        raise ArgumentError(f"{where} must have a row of coordinates for each cell, got shape {xy_nd.shape}.")
    bad = np.flatnonzero(~np.isfinite(xy_nd).all(1))
    if len(bad):
        raise ArgumentError(
            f"{where} is NaN or infinite for {len(bad)} of {len(xy_nd)} cells: {named_cells(adata.obs_names, bad)}. "
            "Leave out cells whose place is not known."
        )
    return xy_nd


def named_cells(names: pd.Index, rows: np.ndarray) -> str:
    """The first of some cells by name."""
    shown = ", ".join(repr(str(name)) for name in names[rows[:_SHOWN]])
    return shown + (", ..." if len(rows) > _SHOWN else "")


def warn_of_shared_places(names: pd.Index, xy_nd: np.ndarray, group_n: np.ndarray) -> None:
    """Warn of cells of one group that lie in one place."""
    places = pd.DataFrame(xy_nd).assign(group=group_n)
    shared = np.flatnonzero(places.duplicated(keep=False))
    if len(shared):
        warnings.warn(
            f"{len(shared)} cells share their place with another: {named_cells(names, shared)}. Each then counts as "
            "the other's nearest neighbour. Name the column of sections if these are of several (sample_key or "
            "batch_key), and leave out cells that are there twice.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
