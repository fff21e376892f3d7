"""Tables of cells of several files, one after the other."""

import logging
from collections.abc import Sequence

import pandas as pd
from pandas.api.types import union_categoricals

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
    columns = {name: _stacked([table[name] for table in tables]) for name in shared}
    return pd.DataFrame(columns, index=_names([table.index for table in tables], sources), copy=False)


def _stacked(columns: Sequence[pd.Series]) -> pd.Series | pd.Categorical:
    if not any(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        return pd.concat(columns, ignore_index=True).array
    categorical = [column.astype("category").array for column in columns]
    first = categorical[0].dtype
    if all(one.dtype == first for one in categorical):
        return union_categoricals(categorical)
    plain = [one.set_categories(one.categories.astype(object)).as_unordered() for one in categorical]
    try:
        return union_categoricals(plain, sort_categories=True)
    except TypeError:
        return union_categoricals(plain)


def _names(indices: Sequence[pd.Index], sources: Sequence[str]) -> pd.Index:
    joined = indices[0].append(list(indices[1:]))
    within = sum(len(index) - index.nunique() for index in indices)
    shared = len(joined) - joined.nunique() - within
    if shared <= 0:
        return joined
    tags = sources if len(set(sources)) == len(sources) else [str(i) for i in range(len(sources))]
    logger.info(
        "%d names of cells are in several files: the file's name is put behind each (cell-%s).", shared, tags[0]
    )
    renamed = [index.astype(str) + f"-{tag}" for index, tag in zip(indices, tags)]
    return renamed[0].append(renamed[1:])
