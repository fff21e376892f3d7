"""Names of cells as text in one array: a string of Python's takes 65 bytes and more for a name of 15.

Dims: n cells.
"""

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype, take

from ..mapped import forget, put, put_together

__all__ = ["CellNames", "names_of"]

STEP = 2**16
"""Names that are turned into strings of Python's at once."""


class CellNamesDtype(ExtensionDtype):
    """Dtype of :class:`CellNames`; pandas and anndata take it for one of strings."""

    name = "cell names"  # type: ignore[assignment]
    type = str  # type: ignore[assignment]
    kind = "O"

    def __repr__(self) -> str:
        return self.name

    @classmethod
    def construct_array_type(cls) -> "builtins.type[CellNames]":  # type: ignore[override]
        """The array."""
        return CellNames

    @classmethod
    def construct_from_string(cls, string: str) -> "CellNamesDtype":
        """Called to compare with a dtype's name; ``"string"`` is what anndata asks an index for."""
        if string not in (cls.name, "string"):
            raise TypeError(f"{string!r} is not the dtype of names of cells.")
        return cls()


class CellNames(ExtensionArray):
    """Values of an index of names that cannot be changed. Some of them, or all in another order, are plain strings.

    Parameters
    ----------
    text
        All names in UTF-8, one after the other, uint8.
    ends_n
        Where each begins, and the last ends, ``(n + 1,)`` int64.
    """

    _dtype: ClassVar[CellNamesDtype] = CellNamesDtype()

    def __init__(self, text: np.ndarray, ends_n: np.ndarray) -> None:
        self._text, self._ends_n = text, ends_n

    @classmethod
    def from_pieces(cls, pieces: Callable[[], Iterable[Sequence[str] | np.ndarray]]) -> Self:
        """Names that come piece by piece, put into temporary files.

        Parameters
        ----------
        pieces
            Restarts the pieces.
        """

        def encoded() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            last = 0
            yield np.empty(0, np.uint8), np.zeros(1, np.int64)
            for piece in pieces():
                raw = [name if isinstance(name, bytes) else str(name).encode() for name in piece]
                ends_m = last + np.cumsum(np.fromiter(map(len, raw), np.int64, len(raw)))
                last = int(ends_m[-1]) if raw else last
                yield np.frombuffer(b"".join(raw), np.uint8), ends_m

        return cls(*put_together(encoded, [np.uint8, np.int64]))

    @classmethod
    def _from_sequence(cls, scalars: Any, *, dtype: object = None, copy: bool = False) -> Any:
        return cls.from_pieces(lambda: [list(scalars)])

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence["CellNames"]) -> "CellNames":
        return cls.from_pieces(lambda: (piece for names in to_concat for piece in names.pieces()))

    def pieces(self) -> Iterator[list[str]]:
        """All names in order, some at a time."""
        for start in range(0, len(self), STEP):
            yield self._decoded(np.arange(start, min(start + STEP, len(self))))
            self._forget()

    def _forget(self) -> None:
        forget(self._text)
        forget(self._ends_n)

    def hashes(self) -> np.ndarray:
        """A number for each name, ``(n,)`` uint64: equal names have equal ones, others practically never."""

        def numbers() -> Iterator[np.ndarray]:
            return (pd.util.hash_array(np.array(piece, object), categorize=False) for piece in self.pieces())

        return put(numbers, np.uint64)

    def _decoded(self, rows_m: np.ndarray) -> list[str]:
        starts, stops = self._ends_n[rows_m].tolist(), self._ends_n[rows_m + 1].tolist()
        if not starts:
            return []
        if rows_m[-1] - rows_m[0] == len(rows_m) - 1 and (len(rows_m) < 2 or bool((np.diff(rows_m) == 1).all())):
            raw = self._text[starts[0] : stops[-1]].tobytes()
            shift = starts[0]
            return [raw[start - shift : stop - shift].decode() for start, stop in zip(starts, stops)]
        return [self._text[start:stop].tobytes().decode() for start, stop in zip(starts, stops)]

    # -- what pandas asks of an array ------------------------------------------------------------------------------

    @property
    def dtype(self) -> CellNamesDtype:
        """Names of cells."""
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Size of the text and the places in it; what of it is in memory, the system decides."""
        return self._text.nbytes + self._ends_n.nbytes

    def __len__(self) -> int:
        return len(self._ends_n) - 1

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces():
            yield from piece

    def __getitem__(self, item: Any) -> Any:
        """One name, the same array (for all), or an array of Python's strings (for others)."""
        item = pd.api.indexers.check_array_indexer(self, item)
        if isinstance(item, int | np.integer):
            row = range(len(self))[int(item)]
            return self._decoded(np.array([row]))[0]
        rows_m = np.arange(len(self))[item] if isinstance(item, slice) else self._rows(item)
        if rows_m is None:
            return self
        found_m = np.array([*self._decoded(rows_m), None], object)[:-1]  # None: numpy is not to look into the strings
        if len(found_m) > STEP // 16:
            self._forget()
        return found_m

    def _rows(self, item: np.ndarray) -> np.ndarray | None:
        """Row numbers that are asked for; None for a mask of all."""
        if item.dtype != bool:
            return np.where(item < 0, item + len(self), item)
        return None if item.all() else np.flatnonzero(item)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        out = np.empty(len(self), object)
        start = 0
        for piece in self.pieces():
            out[start : start + len(piece)] = piece
            start += len(piece)
        return out if dtype is None else out.astype(dtype)

    def __eq__(self, other: object) -> Any:
        return np.asarray(self) == np.asarray(other, dtype=object)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_str_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        plain: Any = np.asarray(self)
        return getattr(pd.array(plain, dtype=object), name)  # what index.str consists of

    def equals(self, other: object) -> bool:
        """Whether these are the same names in the same order."""
        if not isinstance(other, CellNames):
            return np.array_equal(np.asarray(self), np.asarray(other, dtype=object))
        return np.array_equal(self._ends_n, other._ends_n) and np.array_equal(self._text, other._text)

    def isna(self) -> np.ndarray:
        """No cell is without a name, ``(n,)``."""
        return np.broadcast_to(np.zeros(1, bool), len(self))  # pandas keeps it

    def take(self, indices: object, *, allow_fill: bool = False, fill_value: object = None) -> Any:
        """Some names, as Python's strings."""
        rows_m = np.asarray(indices, np.int64)
        if not allow_fill:
            return self[rows_m]
        return take(np.asarray(self), rows_m, allow_fill=True, fill_value=np.nan if fill_value is None else fill_value)

    def copy(self) -> "CellNames":  # type: ignore[override]
        """Itself: names cannot be changed."""
        return self

    def astype(self, dtype: object, copy: bool = True) -> Any:
        """As an array of strings of Python's, or of another dtype."""
        if isinstance(dtype, CellNamesDtype):
            return self
        plain: Any = np.asarray(self)
        return pd.array(plain, dtype=dtype) if isinstance(dtype, ExtensionDtype) else plain.astype(dtype)


def names_of(index: pd.Index) -> CellNames | None:
    """The compact names behind an index; None where it holds strings of Python's."""
    return index.array if isinstance(index.array, CellNames) else None
