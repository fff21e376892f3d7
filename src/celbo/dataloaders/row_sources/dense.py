"""Rows of dense tables in memory, and of columns that are mapped from a temporary file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...store.mapped import is_mapped, taken
from .source import RowSource, check_numeric, select_columns

__all__ = ["DenseRows", "MappedRows", "array_rows", "frame_rows"]

NARROW = 64
"""Tables up to this many columns are converted to the wanted dtype once, unless that takes more room; others row by row
as they are read."""


class DenseRows(RowSource):
    """Rows of a numpy array, ``(n,)`` (one column) or ``(n, g)``.

    Covariates are turned into the wanted dtype once. Codes of one byte, and a wide matrix of another dtype, stay as
    they are, because a converted copy would need as much memory again: each minibatch is converted as it is gathered.
    """

    def __init__(self, array: np.ndarray, dtype: object = np.float32, columns: np.ndarray | None = None) -> None:
        array = np.asarray(array)
        array = array.reshape(-1, 1) if array.ndim == 1 else array
        check_numeric(array.dtype, "The array")
        super().__init__(array.shape, dtype, columns)
        if array.shape[1] <= NARROW and array.dtype.itemsize >= self.dtype.itemsize:
            array = np.ascontiguousarray(array, dtype=self.dtype)
        self._array = array

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` over ``out_ng``."""
        if self.columns is not None:
            out_ng[...] = select_columns(self._array[rows_n], self.columns)
        elif self._array.dtype == self.dtype:
            # the indices are known to be in range, and any mode but "clip" would go through a second buffer
            np.take(self._array, rows_n, axis=0, out=out_ng, mode="clip")
        else:
            out_ng[...] = self._array[rows_n]


class MappedRows(RowSource):
    """Rows of columns that lie in a temporary file (:func:`celbo.store.mapped.put`), each ``(n,)``."""

    def __init__(self, arrays: Sequence[np.ndarray], dtype: object = np.float32) -> None:
        super().__init__((len(arrays[0]), len(arrays)), dtype)
        for array in arrays:
            check_numeric(array.dtype, "The column")
        self._arrays = arrays

    def load(self, ascending_u: np.ndarray) -> DenseRows:
        """Some rows in memory, as :meth:`celbo.dataloaders.row_sources.source.Streamed.load`."""
        return DenseRows(np.column_stack([taken(array, ascending_u) for array in self._arrays]), self.dtype)

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the rows ``rows_n`` over ``out_ng``."""
        for column, array in enumerate(self._arrays):
            out_ng[:, column] = taken(array, rows_n)


def array_rows(
    array: np.ndarray, dtype: object = np.float32, columns: np.ndarray | None = None
) -> DenseRows | MappedRows:
    """Rows of a numpy array, left in its file if it is one column that is mapped from there."""
    if columns is None and is_mapped(array) and array.size == len(array):
        return MappedRows([array.reshape(-1)], dtype)
    return DenseRows(array, dtype, columns)


def frame_rows(
    frame: pd.DataFrame, dtype: Any = np.float32, columns: np.ndarray | None = None
) -> DenseRows | MappedRows:
    """Rows of a DataFrame, converted once, since pandas may keep every column apart; mapped ones stay in their file."""
    arrays = [frame[name].to_numpy() for name in frame] if columns is None else []
    if any(map(is_mapped, arrays)):
        return MappedRows(arrays, dtype)
    values = frame.to_numpy()
    check_numeric(values.dtype, "The DataFrame")
    return DenseRows(np.ascontiguousarray(values, dtype=dtype), dtype, columns)
