"""Columns of ``obs``, some cells at a time, so that what is worked out for a hundred million of them is not held.

Dims: n cells.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from .. import mapped as scratch
from ..writing.writable import NUMBERS
from .names import names_of

__all__ = ["column_parts", "forget_column", "is_numbers", "numbers", "put_column", "true_places", "worked_out"]


def column_parts(column: pd.Series) -> Iterator[pd.Series]:
    """A column cut into pieces of :data:`~celbo.store.mapped.STRETCH` cells, without their names."""
    if len(column) <= scratch.STRETCH:
        yield column
        return
    for start in range(0, len(column), scratch.STRETCH):
        yield pd.Series(column.array[start : start + scratch.STRETCH], copy=False)
        forget_column(column.array)


def worked_out(column: pd.Series, of: Callable[[pd.Series], np.ndarray], dtype: Any) -> np.ndarray:
    """One value for each cell, ``(n,)``, from pieces of a column: in a temporary file where ``obs`` is in one."""
    if names_of(column.index) is not None:
        return scratch.put(lambda: map(of, column_parts(column)), dtype)
    return np.concatenate([np.empty(0, dtype), *map(of, column_parts(column))], dtype=dtype, casting="unsafe")


def is_numbers(column: pd.Series) -> bool:
    """Whether a column holds real numbers or booleans, or objects that all are such; missing values do not count."""
    dtype = column.dtype
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return pd.api.types.infer_dtype(column, skipna=True) in NUMBERS
    is_real = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    return is_real or pd.api.types.is_bool_dtype(dtype)


def numbers(column: pd.Series) -> np.ndarray:
    """A column of numbers as an array that numpy can count with, ``(n,)``: itself where it is one; missing ones NaN."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column._values
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def true_places(flags: Iterable[np.ndarray], most: int) -> tuple[int, np.ndarray]:
    """How many of the flags that come in pieces are true, and the places of the first ``most`` of them."""
    count, start = 0, 0
    first: list[int] = []
    for piece in flags:
        count += int(np.count_nonzero(piece))
        if len(first) < most:
            first += (start + np.flatnonzero(piece)[: most - len(first)]).tolist()
        start += len(piece)
    return count, np.array(first, np.int64)


def put_column(frame: pd.DataFrame, name: Any, values_n: Any) -> None:
    """Set a column of a table; an array that lies in a temporary file stays there instead of being copied."""
    if not scratch.is_mapped(values_n):
        frame[name] = values_n
        return
    with _sharing():
        frame[name] = pd.Series(values_n, index=frame.index, copy=False)


def _sharing() -> Any:
    """Let pandas share what it is given, as it does from its version 3 on."""
    if int(pd.__version__.split(".")[0]) >= 3:
        return contextlib.nullcontext()
    return pd.option_context("mode.copy_on_write", True)


def forget_column(column: object) -> None:
    """Drop the memory of a column that lies in a temporary file; see :func:`celbo.store.mapped.forget`."""
    for part in _arrays_of(column):
        scratch.forget(part)


def _arrays_of(column: object) -> list[np.ndarray]:
    """What a column consists of: values, or codes, or values and a mask."""
    if isinstance(column, pd.Categorical):
        return [column.codes]
    if isinstance(column, pd.arrays.NumpyExtensionArray):
        return [np.asarray(column)]  # its to_numpy looks for missing values
    return [part for name in ("_data", "_mask") if (part := getattr(column, name, None)) is not None]
