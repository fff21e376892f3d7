"""Columns of tables in dtypes that every version of anndata writes: a result must not fail for a column beside it.

Dims: n rows, c categories.
"""

from typing import Any

import numpy as np
import pandas as pd

from ..tables.names import CellNames
from .anndata import CAN_WRITE

__all__ = ["NUMBERS", "writable_column", "writable_names"]

NUMBERS = frozenset({"integer", "floating", "mixed-integer-float", "boolean", "decimal"})
"""What pandas infers of objects that are all numbers."""


def writable_names(index: pd.Index) -> Any:
    """Names of rows as compact names or plain text, ``(n,)``."""
    if isinstance(index.array, CellNames) and CAN_WRITE:
        return index.array
    return np.array([str(name) for name in index], dtype=object)


def writable_column(column: Any) -> Any:
    """A column as an array of numbers, of text, of categories, or of whole numbers or booleans with missing ones.

    Text stays text, categories stay categories, and numbers numbers; what has none of these forms (times, intervals,
    values of several kinds) becomes categories of text. Missing values stay missing.

    Parameters
    ----------
    column
        ``(n,)`` values as a table holds them.
    """
    if isinstance(column, pd.Categorical):
        return _categories(column)
    if isinstance(column, pd.arrays.IntegerArray | pd.arrays.BooleanArray):
        return column
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufc":
        return np.asarray(column)
    if pd.api.types.is_numeric_dtype(dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return _text(column)


def _categories(column: pd.Categorical) -> pd.Categorical:
    kept = isinstance(column.categories.dtype, np.dtype) and column.categories.dtype.kind in "biuf"
    if kept or pd.api.types.infer_dtype(column.categories, skipna=False) in ("string", "empty"):
        plain = column.categories if kept else column.categories.astype(object)
        same = plain.dtype == column.categories.dtype
        return column if same else pd.Categorical.from_codes(column.codes, plain, ordered=column.ordered)
    names = [str(name) for name in column.categories]
    if len(set(names)) < len(names):
        return _as_categories(np.asarray(column, dtype=object))
    dtype = pd.CategoricalDtype(names, ordered=column.ordered)
    return pd.Categorical.from_codes(column.codes, dtype=dtype)


def _text(column: object) -> Any:
    """Values of any kind as an array of text; as categories where some are missing, for which text has no sign."""
    values_n = np.asarray(column, dtype=object)
    if all(isinstance(value, str) for value in values_n):
        return values_n
    if pd.api.types.infer_dtype(values_n, skipna=True) in NUMBERS:
        return pd.to_numeric(pd.Series(values_n)).to_numpy(np.float64)
    return _as_categories(values_n)


def _as_categories(values_n: np.ndarray) -> pd.Categorical:
    return pd.Categorical([None if pd.isna(value) is True else str(value) for value in values_n])
