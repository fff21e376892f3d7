"""What every storage of a cells x features table can do: give rows, dense, in the order asked.

Dims: n cells asked for, g features.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...store.damage import NoNumbersError
from ...store.mapped import is_mapped, taken

__all__ = [
    "DenseRows",
    "MappedRows",
    "RowCost",
    "RowSource",
    "Streamed",
    "array_rows",
    "as_indices",
    "check_numeric",
    "frame_rows",
    "select_columns",
]


class RowSource(ABC):
    """Rows of one table, whatever it is stored as.

    Parameters
    ----------
    shape
        Rows and columns as stored.
    dtype
        Of the rows that come out.
    columns
        Stored column of each column that comes out, ``(g,)``, none of them twice; -1 for one that is not stored and
        comes out as zeros; None for all as they lie. This is how genes in another order, or some of them, are read
        without a copy of the table.

    Raises
    ------
    ValueError
        When the table is not two-dimensional, or a column is asked for twice.
    IndexError
        When ``columns`` names a column that does not exist.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, columns: np.ndarray | None = None) -> None:
        if len(shape) != 2:
            raise ValueError(f"A table of cells x features has 2 dimensions, this one has shape {tuple(shape)}.")
        self.n_rows = int(shape[0])
        self.dtype = np.dtype(dtype)
        self.columns = None if columns is None else _checked_columns(np.asarray(columns), int(shape[1]))
        self.n_columns = int(shape[1]) if self.columns is None else len(self.columns)
        self._torch_dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype

    def __len__(self) -> int:
        """Number of rows."""
        return self.n_rows

    def take(self, indices: object, out: Tensor | None = None) -> Tensor:
        """Dense rows, in the order asked.

        Parameters
        ----------
        indices
            Row numbers ``(n,)``, in any order and with repeats, or a boolean mask over all rows.
        out
            Where to write them, ``(n, g)`` of this source's dtype, contiguous, on the CPU; None makes a fresh tensor.

        Returns
        -------
        ``(n, g)`` tensor: row ``i`` is the stored row ``indices[i]``.

        Raises
        ------
        IndexError
            When an index is negative or past the last row.
        ValueError
            When ``out`` has another shape or dtype.
        """
        rows_n = as_indices(indices, self.n_rows)
        if out is not None and (tuple(out.shape) != (len(rows_n), self.n_columns) or out.dtype != self._torch_dtype):
            wanted = f"{self._torch_dtype} of shape {(len(rows_n), self.n_columns)}"
            raise ValueError(f"`out` is {out.dtype} of shape {tuple(out.shape)}, but these rows are {wanted}.")
        if out is not None and not out.is_contiguous():
            raise ValueError("`out` must be contiguous; pass a tensor made by torch.empty.")
        return self.gather(rows_n, out)

    def gather(self, rows_n: np.ndarray, out: Tensor | None = None) -> Tensor:
        """As :meth:`take`, for int64 row numbers that were checked before."""
        if out is None:
            out = torch.empty((len(rows_n), self.n_columns), dtype=self._torch_dtype)
        self.fill(rows_n, out.numpy())
        return out

    @abstractmethod
    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the stored rows ``rows_n`` (int64, in range) over ``out_ng``."""


class RowCost(NamedTuple):
    """What rows that are not in memory cost.

    Attributes
    ----------
    bytes_per_row
        Memory that a row takes once it is read, on average.
    chunk_rows
        Rows that the storage keeps together: fewer are no quicker to read.
    """

    bytes_per_row: float
    chunk_rows: int


class Streamed(ABC):
    """A :class:`RowSource` whose rows are not in memory, so that many are better read at once."""

    @property
    @abstractmethod
    def cost(self) -> RowCost:
        """What its rows cost."""

    @abstractmethod
    def load(self, ascending_u: np.ndarray) -> RowSource:
        """The rows with ascending numbers, no repeats, in memory: row ``i`` of the answer is ``ascending_u[i]``.

        Safe to call from another thread.
        """

    def check_unchanged(self, thorough: bool = False) -> None:  # noqa: B027 (most storages cannot tell)
        """Raise an ``OSError`` when what is stored is no longer what was opened, where that can be told."""


def select_columns(block_nh: np.ndarray, columns_g: np.ndarray | None) -> np.ndarray:
    """Columns of a dense block as :class:`RowSource` means them, ``(n, g)``."""
    if columns_g is None:
        return block_nh
    block_ng = block_nh[:, columns_g]
    block_ng[:, columns_g < 0] = 0
    return block_ng


def _checked_columns(columns_g: np.ndarray, n_stored: int) -> np.ndarray:
    if len(columns_g) and columns_g.min() < -1:
        raise IndexError(f"No column {columns_g.min()}: there are {n_stored}, and -1 stands for one of zeros.")
    stored = as_indices(columns_g[columns_g != -1], n_stored, "column", "columns")
    if len(np.unique(stored)) < len(stored):
        raise ValueError("`columns` asks for the same stored column twice.")
    return columns_g.astype(np.int64)


def as_indices(indices: object, n: int, what: str = "row", argument: str = "indices") -> np.ndarray:
    """Row numbers as a fresh-or-shared int64 array, checked.

    Parameters
    ----------
    indices
        Whole numbers in ``[-n, n)``, of which negative ones count from the end, or a boolean mask of length ``n``, as a
        list, array or Series; or a slice.
    n
        Number of rows there are.
    what
        The word for them in a message.
    argument
        The argument that names them, for messages.

    Raises
    ------
    IndexError
        For an index beyond the first or last row, or a mask of another length.
    TypeError
        For anything but whole numbers and booleans.
    """
    if isinstance(indices, slice):
        return np.arange(n, dtype=np.int64)[indices]
    given = np.asarray(indices)
    if given.size == 0 and given.dtype != bool:
        return np.empty(0, np.int64)
    if given.dtype == bool and given.ndim:
        return _from_mask(given, n, f"{what}s ({argument})")
    if given.dtype.kind == "f" and (given == np.trunc(given)).all() and np.abs(given).max() < 2**53:
        given = given.astype(np.int64)  # as R passes numbers
    if given.dtype.kind not in "iu" or given.ndim != 1:
        named = f" Names become numbers by adata.{'obs' if what == 'cell' else 'var'}_names.get_indexer(names)."
        raise TypeError(
            f"{what.capitalize()} indices ({argument}) are a flat list of integers or a boolean mask, got "
            f"an array of {given.dtype} with shape {given.shape}.{named if given.dtype.kind in 'UO' else ''}"
        )
    first, last = given.min(), given.max()
    if first < -n or last >= n:
        wrong = given[(given < -n) | (given >= n)]
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        listed = ", ".join(map(str, wrong[:5])) + more
        raise IndexError(f"No {what} {listed} ({argument}): there are {n}, counted from 0 to {n - 1}.")
    rows_n = np.ascontiguousarray(given, dtype=np.int64)
    return rows_n if first >= 0 else np.where(rows_n < 0, rows_n + n, rows_n)


def _from_mask(mask: np.ndarray, n: int, what: str) -> np.ndarray:
    if mask.shape != (n,):
        raise IndexError(
            f"A boolean mask over {what} needs one entry for each of the {n}, this one has shape {mask.shape}."
        )
    return np.flatnonzero(mask)


def check_numeric(dtype: np.dtype, what: str) -> None:
    """Refuse a table of text or objects.

    Raises
    ------
    NoNumbersError
        When ``dtype`` is neither boolean, integer nor real.
    """
    if dtype.kind not in "biuf":
        raise NoNumbersError(f"{what} holds {dtype}, not numbers: convert it to a numeric dtype first.")


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
