"""Tables of cells of several files, one after the other."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from .cell_names import CellNames, names_of
from .scratch import put

__all__ = ["stacked_obs"]

logger = logging.getLogger("celbo")


def stacked_obs(tables: Sequence[pd.DataFrame], sources: Sequence[str]) -> pd.DataFrame:
    """Rows of several tables, one table after the other.

    Columns that all tables have are kept, in the first's order. A column that is categorical in one of them is so in
    the answer, with the union of the categories: in their order where all have the same, sorted otherwise (as they
    come, where they cannot be sorted).

    Parameters
    ----------
    tables
        ``obs`` of each file.
    sources
        What the files are called. Where a name of a cell is in two files, ``-`` and the file's name are put behind the
        names of all cells.

    Returns
    -------
    The table. What was left out or renamed is logged.
    """
    shared = [name for name in tables[0].columns if all(name in table for table in tables)]
    others = sorted({str(name) for table in tables for name in table.columns} - set(map(str, shared)))
    if others:
        logger.info("Columns of obs that not all files have are left out: %s.", ", ".join(others))
    compact = all(names_of(table.index) is not None for table in tables)
    columns = {name: _stacked([table[name] for table in tables], compact) for name in shared}
    index = _names([table.index for table in tables], sources)
    return pd.DataFrame(columns, index=index, columns=shared or None, copy=False)


def _stacked(columns: Sequence[pd.Series], compact: bool) -> Any:
    if any(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        return _united([column.astype("category").array for column in columns])
    dtypes = {column.dtype for column in columns}
    if not compact or len(dtypes) > 1 or not isinstance(columns[0].dtype, np.dtype) or columns[0].dtype == object:
        return pd.concat(columns, ignore_index=True).array
    return put(lambda: (column.to_numpy() for column in columns), dtypes.pop())


def _united(columns: list[pd.Categorical]) -> pd.Categorical:
    first = columns[0].dtype
    if all(one.dtype == first for one in columns):
        return union_categoricals(columns)
    plain = [one.set_categories(one.categories.astype(object)).as_unordered() for one in columns]
    try:
        return union_categoricals(plain, sort_categories=True)
    except TypeError:
        return union_categoricals(plain)


def _names(indices: Sequence[pd.Index], sources: Sequence[str]) -> pd.Index:
    hashes = [_hashes(index) for index in indices]
    within = sum(map(_n_repeated, hashes))
    shared = _n_repeated(np.concatenate(hashes)) - within
    if shared <= 0:
        return indices[0].append(list(indices[1:]))
    tags = sources if len(set(sources)) == len(sources) else [str(i) for i in range(len(sources))]
    logger.info(
        "%d names of cells are in several files: the file's name is put behind each (cell-%s).", shared, tags[0]
    )
    renamed = [_tagged(index, tag) for index, tag in zip(indices, tags)]
    return renamed[0].append(renamed[1:])


def _hashes(index: pd.Index) -> np.ndarray:
    """A number for each name, ``(n,)`` uint64, that only equal ones share."""
    compact = names_of(index)
    return pd.util.hash_array(index.to_numpy(), categorize=False) if compact is None else compact.hashes()


def _n_repeated(hashes: np.ndarray) -> int:
    """How many entries were there before; puts them in order."""
    hashes.sort()
    return int(np.count_nonzero(hashes[1:] == hashes[:-1]))


def _tagged(index: pd.Index, tag: str) -> pd.Index:
    """Names with ``-`` and the tag behind them."""
    compact = names_of(index)
    if compact is None:
        return index.astype(str) + f"-{tag}"
    renamed = CellNames.from_pieces(lambda: ([f"{name}-{tag}" for name in some] for some in compact.pieces()))
    return pd.Index(renamed, name=index.name)
