"""The table of the cells of a file, without taking memory for every cell: its columns are mapped, its names are text.

Dims: n cells.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import read_elem

from ..damage import naming_damage
from ..mapped import put, stretches, taken
from ..part import is_group
from ..writing.anndata import CAN_WRITE
from .names import STEP, CellNames, names_of

__all__ = ["StoredTable", "can_stay", "length_of", "records_of", "reordered", "table_fault", "with_old_categories"]

_CATEGORIES = "_categories"
"""With what the name of a column ends, the categories of that column were kept in ``uns`` once."""

PIECE = 2**20
"""Values of a column that are read at once."""


class StoredTable:
    """A table of cells in a file; its columns are read one by one, so that not all of many files are open at once.

    Columns of numbers and of categories then lie in a temporary file, which is mapped; names are
    :class:`~celbo.store.tables.names.CellNames`. Other columns (text) are in memory.

    Parameters
    ----------
    group
        In anndata's layout, of h5py or zarr.
    path
        How errors call the file.

    Attributes
    ----------
    columns
        Names of the columns.
    """

    def __init__(self, group: Any, path: Path) -> None:
        self._group, self._path = group, path
        with naming_damage(path):
            self.columns = [str(name) for name in group.attrs["column-order"]]
            self._index_name = str(group.attrs["_index"])

    @property
    def index(self) -> pd.Index:
        """Names of the cells."""
        with naming_damage(self._path):
            names = _names(self._group[self._index_name])
        return pd.Index(names, name=None if self._index_name == "_index" else self._index_name)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> pd.Series:
        """A column, without the names of its cells."""
        with naming_damage(self._path, f"column {name!r}"):
            column, n = self._group[name], length_of(self._group[self._index_name])
            if length_of(column) != n:
                raise ValueError(f"it has {length_of(column)} rows, the index {n}")
            return pd.Series(_column(column), copy=False)

    def read(self) -> pd.DataFrame:
        """All of it; equal to the table that anndata reads."""
        columns = {name: self[name]._values for name in self.columns}
        return pd.DataFrame(columns, index=self.index, columns=self.columns or None, copy=False)


def can_stay(group: Any) -> bool:
    """Whether a table is stored as columns that can be read one by one."""
    return CAN_WRITE and group.attrs.get("encoding-type") == "dataframe"


def table_fault(group: Any) -> str | None:
    """What is wrong with a table that could not be read, as the end of a sentence; None where it is not found."""
    with suppress(Exception):
        n = length_of(group[group.attrs["_index"]])
        for name in group.attrs["column-order"]:
            column = group[name]
            if length_of(column) != n:
                return f"its column {str(name)!r} has {length_of(column)} rows, its index {n}"
            if "codes" in (column if is_group(column) else ()):
                fault = _code_fault(np.asarray(column["codes"][:]), length_of(column["categories"]))
                if fault is not None:
                    return f"in its column {str(name)!r} {fault}"
    return None


def length_of(element: Any) -> int:
    """Rows of a column, however it is kept."""
    if is_group(element):
        element = element["codes" if "codes" in element else "values"]
    return int(element.shape[0])


def _code_fault(codes: np.ndarray, n_categories: int, first: int = 0) -> str | None:
    """Which of the codes, of the rows from ``first`` on, is that of no category."""
    if codes.dtype.kind not in "iu":
        return f"the codes of categories are {codes.dtype}, not whole numbers"
    is_bad = (codes < -1) | (codes >= n_categories)
    if not is_bad.any():
        return None
    row = int(is_bad.argmax())
    return f"row {first + row} has the code {codes[row]}, there are {n_categories} categories"


def with_old_categories(table: pd.DataFrame, uns: dict[str, Any]) -> pd.DataFrame:
    """A table whose columns of codes have the categories that anndata, before 0.6.22, left in ``uns``.

    Those that fit are taken out of ``uns``.
    """
    for key in [key for key in uns if key.endswith(_CATEGORIES)]:
        name, categories = key.removesuffix(_CATEGORIES), np.atleast_1d(uns[key])
        if name in table and _are_codes(table[name], len(categories)):
            codes = table[name].to_numpy()
            table = table.assign(**{name: pd.Categorical.from_codes(codes, pd.Index(categories).astype(object))})
            del uns[key]
    return table


def _are_codes(column: pd.Series, n_categories: int) -> bool:
    return column.dtype.kind in "iu" and bool(column.between(-1, n_categories - 1).all())


def records_of(element: Any) -> dict[str, np.ndarray]:
    """The fields of an array of records, text as Python's strings; a ``ValueError`` for another array."""
    records = np.asarray(element[()])
    if records.dtype.names is None:
        raise ValueError(f"{element.name} is neither a table nor an array of records")
    return {name: _decoded(records[name]) for name in records.dtype.names}


def _decoded(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8").astype(object)
    if values.dtype.kind == "O":
        return np.array([one.decode() if isinstance(one, bytes) else one for one in values], dtype=object)
    return values


def reordered(obs: pd.DataFrame, order_n: np.ndarray) -> pd.DataFrame:
    """The rows of a table in another order, ``(n,)``; one that came from a :class:`StoredTable` stays compact."""
    names = names_of(obs.index)
    if names is None:
        return obs.iloc[order_n].copy()
    steps = range(0, len(order_n), STEP)
    index = CellNames.from_pieces(lambda: (names[order_n[start : start + STEP]] for start in steps))
    columns = {name: _taken(column.array, order_n) for name, column in obs.items()}
    return pd.DataFrame(columns, index=pd.Index(index, name=obs.index.name), columns=obs.columns, copy=False)


def _taken(column: Any, order_n: np.ndarray) -> Any:
    if not isinstance(column, pd.arrays.NumpyExtensionArray) or column.dtype.kind == "O":
        return column.take(order_n)
    values_n = np.asarray(column)
    return put(lambda: (taken(values_n, some) for (some,) in stretches(order_n)), values_n.dtype)


def _names(element: Any) -> Any:
    if element.attrs.get("encoding-type") == "nullable-string-array":
        element = _complete_names(element)
    if element.attrs.get("encoding-type") != "string-array" or len(element.shape) != 1:
        return read_elem(element)
    return CellNames.from_pieces(lambda: _pieces(element, STEP))


def _complete_names(element: Any) -> Any:
    """The text of names that may be missing, where none is."""
    missing = (bool(some.any()) for some in _pieces(element["mask"], PIECE))
    return element if any(missing) else element["values"]


def _column(element: Any) -> Any:
    kind = element.attrs.get("encoding-type")
    if kind == "array" and element.dtype.kind in "biuf" and len(element.shape) == 1:
        return _mapped(element)
    if kind == "categorical":
        return _categorical(element["codes"], read_elem(element["categories"]), bool(element.attrs["ordered"]))
    if kind == "nullable-integer":
        return pd.arrays.IntegerArray(_mapped(element["values"]), _mapped(element["mask"]))
    if kind == "nullable-boolean":
        return pd.arrays.BooleanArray(_mapped(element["values"]), _mapped(element["mask"]))
    return read_elem(element)


def _categorical(codes: Any, categories: Any, ordered: bool) -> Any:
    """Codes in the type that pandas has them in, so that it need not convert all of them; they are checked."""
    none = pd.Categorical.from_codes([], categories, ordered=ordered)

    def pieces() -> Iterator[np.ndarray]:
        done = 0
        for some in _pieces(codes, PIECE):
            if some.dtype.kind not in "iu" or some.min() < -1 or some.max() >= len(categories):
                raise ValueError(_code_fault(some, len(categories), done))
            done += len(some)
            yield some

    return pd.Categorical.from_codes(put(pieces, none.codes.dtype), dtype=none.dtype, validate=False)


def _mapped(element: Any) -> np.ndarray:
    dtype = np.dtype(element.dtype).newbyteorder("=")
    return put(lambda: _pieces(element, PIECE), dtype)


def _pieces(element: Any, step: int) -> Iterator[np.ndarray]:
    for start in range(0, int(element.shape[0]), step):
        yield np.asarray(element[start : start + step])
