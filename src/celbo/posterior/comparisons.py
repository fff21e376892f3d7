"""Who is compared with whom: groups of cells from a column, indices, masks or queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core import listed, position_of, unknown_name
from ..dataloaders.row_sources.source import as_indices

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


def cells_of(obs: pd.DataFrame, cells: Cells, argument: str = "cells") -> np.ndarray:
    """Row numbers of cells given as a mask, as row numbers, or as a query on ``obs`` (:meth:`pandas.DataFrame.query`).

    Parameters
    ----------
    obs
        Annotation of all cells.
    cells
        The cells.
    argument
        The argument that names them, for messages.

    Raises
    ------
    IndexError
        A row that does not exist, or a mask of another length.
    ValueError
        A query that cannot be answered.
    """
    if not isinstance(cells, str):
        return as_indices(cells, len(obs), "cell", argument)
    numbered = obs.reset_index(drop=True)
    try:
        return numbered.query(cells).index.to_numpy()
    except Exception as error:  # whatever pandas makes of text that is no expression
        raise ValueError(
            f"{argument} must be row numbers, a boolean mask or a query on the columns of adata.obs, such as "
            f"\"{obs.columns[0] if len(obs.columns) else 'leiden'} == '0'\"; {cells!r} is none: {error}."
        ) from error


def comparisons(
    obs: pd.DataFrame,
    *,
    groupby: str | None = None,
    group1: object = None,
    group2: object = None,
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
        The value to compare with, or several, whose cells are taken together; None: all other cells that have a value.
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
    part[slice(None) if subset_idx is None else cells_of(obs, subset_idx, "subset_idx")] = True
    if idx1 is not None:
        return [_of_indices(obs, idx1, idx2, part)]
    if idx2 is not None:
        raise ValueError("idx2 says with which cells those of idx1 are compared: give idx1 too.")
    if groupby is None:
        raise ValueError("Say who is compared: groupby= (a column of adata.obs), or idx1= and perhaps idx2=.")
    if groupby not in obs:
        raise KeyError(unknown_name("column of adata.obs (groupby)", groupby, obs.columns))
    return _of_groups(obs[groupby], group1, group2, part)


def _of_indices(obs: pd.DataFrame, idx1: Cells, idx2: Cells | None, part: np.ndarray) -> Comparison:
    cells1 = cells_of(obs, idx1, "idx1")
    if idx2 is None:
        others = part.copy()
        others[cells1] = False
        cells2 = np.flatnonzero(others)
    else:
        cells2 = cells_of(obs, idx2, "idx2")
    return Comparison(cells1[part[cells1]], cells2[part[cells2]])


def _of_groups(column: pd.Series, group1: object, group2: object, part: np.ndarray) -> list[Comparison]:
    labels = column.astype("category").cat
    categories = list(labels.categories)
    known = [group for code, group in enumerate(categories) if (labels.codes[part] == code).any()]
    codes_n = np.where(part, labels.codes.to_numpy(), -1)
    if not known or (group2 is None and len(known) < 2):
        only = f"one group only ({known[0]!r})" if known else "no group"
        raise ValueError(f"adata.obs[{column.name!r}] has {only} among the cells that take part: nothing to compare.")

    def codes_of(given: object, argument: str) -> list[int]:
        what = f"group in adata.obs[{column.name!r}] ({argument})"
        codes = [categories.index(known[position_of(group, known, what)]) for group in listed(given)]
        if not codes:
            raise ValueError(f"{argument} is empty: name at least one group in adata.obs[{column.name!r}].")
        return codes

    first = codes_of(known if group1 is None else group1, "group1")
    second = None if group2 is None else codes_of(group2, "group2")
    if second is not None and len(second) > 1:  # a group beside others cannot be compared with itself among them
        both = [categories[code] for code in first if code in second]
        if both and group1 is not None:
            raise ValueError(f"group2 names {both[0]!r}, which is group1 too: leave it out of one of them.")
        first = [code for code in first if code not in second]
    return [_one(codes_n, categories, code, second) for code in first]


def _one(codes_n: np.ndarray, categories: list[Any], code: int, others: list[int] | None) -> Comparison:
    cells1 = codes_n == code
    # Cells without a value, and those outside the subset, have code -1 and are in no group, not in the rest either.
    cells2 = (codes_n >= 0) & ~cells1 if others is None else np.isin(codes_n, others)
    name2 = REST if others is None else ", ".join(str(categories[other]) for other in others)
    return Comparison(np.flatnonzero(cells1), np.flatnonzero(cells2), str(categories[code]), name2)
