"""Who is compared with whom: groups of cells from a column, indices, masks or queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core import unknown_name
from ..dataloaders.row_source import as_indices

__all__ = ["Comparison", "cells_of", "comparisons"]

Cells = Sequence[int] | Sequence[bool] | np.ndarray | str

REST = "Rest"


@dataclass(frozen=True)
class Comparison:
    """Two groups of cells.

    Attributes
    ----------
    cells1, cells2
        Row numbers.
    group1, group2
        Names; None where the cells were given directly.
    """

    cells1: np.ndarray
    cells2: np.ndarray
    group1: str | None = None
    group2: str | None = None

    def __post_init__(self) -> None:
        for number, cells, group in ((1, self.cells1, self.group1), (2, self.cells2, self.group2)):
            if not len(cells):
                named = "" if group is None else f" ({group!r})"
                raise ValueError(f"Group {number}{named} has no cells: idx1/idx2, the query or subset_idx leaves none.")


def cells_of(obs: pd.DataFrame, cells: Cells) -> np.ndarray:
    """Row numbers of cells given as a mask, as row numbers, or as a query on ``obs`` (:meth:`pandas.DataFrame.query`).

    Raises
    ------
    IndexError
        A row that does not exist, or a mask of another length.
    """
    if isinstance(cells, str):
        numbered = obs.reset_index(drop=True)
        return numbered.query(cells).index.to_numpy()
    return as_indices(cells, len(obs), what="cell")


def comparisons(
    obs: pd.DataFrame,
    *,
    groupby: str | None = None,
    group1: Any = None,
    group2: Any = None,
    idx1: Cells | None = None,
    idx2: Cells | None = None,
    subset_idx: Cells | None = None,
) -> list[Comparison]:
    """Pairs of groups to compare.

    Parameters
    ----------
    obs
        Annotation of all cells.
    groupby
        Column of ``obs``.
    group1
        One or several of its values; None: all of them, in their order.
    group2
        The value to compare with; None: all other cells that have a value.
    idx1, idx2
        Cells instead of groups; they win over ``groupby``. ``idx2=None``: all cells that are not in ``idx1``.
    subset_idx
        Cells that take part at all, in "Rest" too.

    Raises
    ------
    KeyError
        An unknown column.
    ValueError
        An unknown group, a group without cells, or neither ``groupby`` nor ``idx1``.
    """
    part = np.zeros(len(obs), dtype=bool)
    part[slice(None) if subset_idx is None else cells_of(obs, subset_idx)] = True
    if idx1 is not None:
        return [_of_indices(obs, idx1, idx2, part)]
    if groupby is None:
        raise ValueError("Say who is compared: groupby= (a column of adata.obs), or idx1= and perhaps idx2=.")
    if groupby not in obs:
        raise KeyError(unknown_name("column of adata.obs", groupby, obs.columns))
    return _of_groups(obs[groupby], group1, group2, part)


def _of_indices(obs: pd.DataFrame, idx1: Cells, idx2: Cells | None, part: np.ndarray) -> Comparison:
    cells1 = cells_of(obs, idx1)
    if idx2 is None:
        others = part.copy()
        others[cells1] = False
        cells2 = np.flatnonzero(others)
    else:
        cells2 = cells_of(obs, idx2)
    return Comparison(cells1[part[cells1]], cells2[part[cells2]])


def _of_groups(column: pd.Series, group1: Any, group2: Any, part: np.ndarray) -> list[Comparison]:
    labels = column.astype("category").cat
    known = [group for code, group in enumerate(labels.categories) if (labels.codes[part] == code).any()]
    code_of = {group: code for code, group in enumerate(labels.categories) if group in known}
    codes_n = np.where(part, labels.codes.to_numpy(), -1)
    first = (
        known if group1 is None else [group1] if isinstance(group1, str) or not np.iterable(group1) else list(group1)
    )
    for group in [*first, *([] if group2 is None else [group2])]:
        if group not in code_of:
            raise ValueError(unknown_name(f"group in adata.obs[{column.name!r}]", group, known))
    return [_one(codes_n, code_of, group, group2) for group in first]


def _one(codes_n: np.ndarray, code_of: dict[Any, int], group1: Any, group2: Any) -> Comparison:
    cells1 = codes_n == code_of[group1]
    # Cells without a value, and those outside the subset, have code -1 and are in no group, not in the rest either.
    cells2 = (codes_n >= 0) & ~cells1 if group2 is None else codes_n == code_of[group2]
    name2 = REST if group2 is None else str(group2)
    return Comparison(np.flatnonzero(cells1), np.flatnonzero(cells2), str(group1), name2)
