"""Tables of cells of several files, one after the other."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from ..mapped import put, stretches
from .names import CellNames, names_of
from .obs import StoredTable

__all__ = ["stacked_obs"]

COMPARED = 2**23
"""Names that are looked through for equal ones at a time, about."""

logger = logging.getLogger("celbo")


def stacked_obs(tables: Sequence[StoredTable | pd.DataFrame], sources: Sequence[str]) -> pd.DataFrame:
    """Rows of several tables, one table after the other.

    Columns that all tables have are kept, in the first's order. A column that is categorical in one of them is so in
    the answer, with the union of the categories: in their order where all have the same, sorted otherwise (as they
    come, where they cannot be sorted).

    Parameters
    ----------
    tables
        ``obs`` of each file; columns of a stored one are read as their turn comes.
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
    index = _names([table.index for table in tables], sources)
    compact = names_of(index) is not None
    columns = {name: _stacked([table[name] for table in tables], compact) for name in shared}
    return pd.DataFrame(columns, index=index, columns=shared or None, copy=False)


def _stacked(columns: Sequence[pd.Series], compact: bool) -> Any:
    if any(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        return _united([column.astype("category").array for column in columns], compact)
    dtypes = {column.dtype for column in columns}
    if not compact or len(dtypes) > 1 or not isinstance(columns[0].dtype, np.dtype) or columns[0].dtype == object:
        return pd.concat(columns, ignore_index=True).array
    return put(lambda: (some for column in columns for (some,) in stretches(column.to_numpy())), dtypes.pop())


def _united(columns: list[pd.Categorical], compact: bool) -> pd.Categorical:
    """Categorical columns one after the other, with the union of their categories."""
    united = _union([pd.Categorical.from_codes([], dtype=one.dtype) for one in columns])
    code_cs = [np.append(united.categories.get_indexer(one.categories), -1) for one in columns]

    def pieces() -> Iterator[np.ndarray]:
        for one, code_c in zip(columns, code_cs):
            for (some,) in stretches(one.codes):
                yield code_c[some]

    codes_n = put(pieces, united.codes.dtype) if compact else np.concatenate([*pieces()])
    return pd.Categorical.from_codes(codes_n.astype(united.codes.dtype, copy=False), dtype=united.dtype, validate=False)


def _union(columns: list[pd.Categorical]) -> pd.Categorical:
    """Of columns without cells: their categories in common."""
    first = columns[0].dtype
    if all(one.dtype == first for one in columns):
        return columns[0]
    plain = [one.set_categories(one.categories.astype(object)).as_unordered() for one in columns]
    try:
        return union_categoricals(plain, sort_categories=True)
    except TypeError:
        return union_categoricals(plain)


def _names(indices: Sequence[pd.Index], sources: Sequence[str]) -> pd.Index:
    hashes = [_hashes(index) for index in indices]
    within = sum(_n_repeated([of_one]) for of_one in hashes)
    shared = _n_repeated(hashes) - within
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


def _n_repeated(hashes: Sequence[np.ndarray]) -> int:
    """How many entries of all arrays were there before, looking at a part of all numbers at a time."""
    bits = max(0, (sum(map(len, hashes)) // COMPARED).bit_length())
    found = 0
    for part in range(2**bits):
        some_of_each = (some[_leading(some, bits) == part] for one in hashes for (some,) in stretches(one))
        mine = np.sort(np.concatenate([np.empty(0, np.uint64), *some_of_each]))
        found += int(np.count_nonzero(mine[1:] == mine[:-1]))
    return found


def _leading(numbers: np.ndarray, bits: int) -> np.ndarray:
    return numbers >> np.uint64(64 - bits) if bits else np.zeros(len(numbers), np.uint64)


def _tagged(index: pd.Index, tag: str) -> pd.Index:
    """Names with ``-`` and the tag behind them."""
    compact = names_of(index)
    if compact is None:
        return index.astype(str) + f"-{tag}"
    renamed = CellNames.from_pieces(lambda: ([f"{name}-{tag}" for name in some] for some in compact.pieces()))
    return pd.Index(renamed, name=index.name)
