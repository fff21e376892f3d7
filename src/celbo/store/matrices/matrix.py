"""A matrix that stays on disk, in one file or in many, read by rows.

Dims: n cells of all files, h genes of one file, g genes that come out.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from anndata.abc import CSRDataset
from scipy import sparse

from ..damage import FileMark
from ..part import StoredPart
from .row_stack import RowStack
from .rows import Rows
from .sparse_columns import moved_columns, place_of_columns

__all__ = ["StoredMatrix", "columns_of", "pieces", "stored_matrix"]

GAP = 16
"""Dense rows not asked for that are read along rather than starting another read (measured on h5ad)."""

GAP_BYTES = 2**18
"""The same for sparse rows, by size: a read of its own takes about as long as copying so much."""

PIECE_BYTES = 2**23
"""Bytes that are read at once, before the rows that were asked for are picked."""


class StoredMatrix(CSRDataset):
    """Cells x genes in files, one file's rows after another's; ``X`` or a layer of an AnnData that streams.

    Rows come out as CSR, from dense files too. Nothing is held but how many values each row has (2 bytes a cell). May
    be read by several threads at once; cannot be written to.

    Parameters
    ----------
    parts
        The files' matrices.
    columns
        For each part the stored column of each column that comes out, ``(g,)``, -1 for one of zeros; None for all as
        they lie. This is how files whose genes are in another order are one matrix.

    Attributes
    ----------
    files
        Where the rows lie, without those that are not on a local disk.
    n_entries, n_nonzero
        Stored values of all parts, and how many of them are not zero (an estimate for dense files).
    chunk_rows
        Rows that the files keep together, about.
    tally
        What a pass over all entries found (:func:`~celbo.data.check_counts` leaves it here), or None.

    Raises
    ------
    ValueError
        When the parts differ in their number of columns and ``columns`` does not say how they match.
    """

    format: ClassVar[str] = "csr"  # type: ignore[misc]
    backend: str = "files"  # type: ignore[assignment]

    def __init__(self, parts: Sequence[Rows], columns: Sequence[np.ndarray | None] | None = None) -> None:
        self.parts = list(parts)
        self._columns = [None] * len(self.parts) if columns is None else [_index(c) for c in columns]
        widths = {p.shape[1] if c is None else len(c) for p, c in zip(self.parts, self._columns)}
        if len(widths) != 1:
            raise ValueError(f"Matrices of {sorted(widths)} columns cannot be stacked: say which columns match.")
        self._places = [
            None if c is None else place_of_columns(c, p.shape[1]) for p, c in zip(self.parts, self._columns)
        ]
        self._starts = np.concatenate([[0], np.cumsum([part.shape[0] for part in self.parts])]).astype(np.int64)
        self.shape = (int(self._starts[-1]), widths.pop())
        self.dtype = np.dtype(np.result_type(*(part.dtype for part in self.parts)))
        self.n_entries = sum(part.n_entries for part in self.parts)
        self.n_nonzero = sum(part.n_nonzero for part in self.parts)
        self.chunk_rows = max(part.chunk_rows for part in self.parts)
        self.files = list(dict.fromkeys(part.path for part in self.parts if part.path is not None))
        self._marks = [FileMark(path) for path in self.files]
        self.tally: Any = None

    @property
    def bytes_per_row(self) -> float:
        """What a row takes in memory as CSR of float32, on average."""
        return 8.0 + 8.0 * self.n_nonzero / max(self.shape[0], 1)

    def check_unchanged(self, thorough: bool = False) -> None:
        """Raise a :class:`~celbo.store.damage.ChangedFileError` when a file is no longer what was opened."""
        for mark in self._marks:
            mark.check(thorough)

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive), ``(stop - start, g)``.

        Raises
        ------
        DamagedDataError
            When they cannot be read; names file and rows, counted within that file.
        """
        blocks = []
        for number in range(*self._parts_with(start, stop)):
            first, last = np.clip([start, stop], self._starts[number], self._starts[number + 1]) - self._starts[number]
            blocks.append(self._of_part(number, int(first), int(last)))
        if not blocks:
            return sparse.csr_array((0, self.shape[1]), dtype=self.dtype)
        return blocks[0] if len(blocks) == 1 else sparse.csr_array(sparse.vstack(blocks, format="csr"))

    def _parts_with(self, start: int, stop: int) -> tuple[int, int]:
        if stop <= start:
            return 0, 0
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        return int(first), int(last) + 1

    def _of_part(self, number: int, start: int, stop: int) -> sparse.csr_array:
        block, place_h = self.parts[number].read(start, stop), self._places[number]
        if block.dtype != self.dtype:
            block.data = block.data.astype(self.dtype)
        return block if place_h is None else moved_columns(block, place_h, self.shape[1])

    def take(self, ascending_u: np.ndarray) -> sparse.csr_array:
        """Rows by ascending row numbers without repeats, ``(u, g)``, read piece by piece."""
        stored_row = max(1.0, 8 * self.n_entries / max(self.shape[0], 1))
        most = max(1, int(PIECE_BYTES / stored_row))
        most = max(most, min(self.chunk_rows, 8 * most))  # a chunk is decoded whole, however little of it is wanted
        gap = max(self.chunk_rows, int(GAP_BYTES / stored_row))
        expected = len(ascending_u) * self.n_nonzero / max(self.shape[0], 1)
        stack = RowStack(len(ascending_u), self.shape[1], int(expected), self.dtype)
        for start, stop, rows_r in pieces(ascending_u, gap, most):
            block = self.read(start, stop)
            stack.append(block if len(rows_r) == stop - start else block[rows_r - start])
        return stack.csr()

    def with_columns(self, columns_g: np.ndarray) -> "StoredMatrix":
        """The same rows with some of the columns, in the order of ``columns_g``; nothing is read."""
        chosen = [columns_g if c is None else c[columns_g] for c in self._columns]
        return StoredMatrix(self.parts, chosen)

    def __getitem__(self, index: object) -> Any:
        """Rows, or rows and columns, in memory: slices, numbers, arrays or masks; as a scipy ``csr_matrix``."""
        row, column = index if isinstance(index, tuple) else (index, slice(None))
        n, g = self.shape
        rows_n, columns_g = _selected(row, n), _selected(column, g)
        ascending_u, place_n = np.unique(rows_n, return_inverse=True)
        block = self.take(ascending_u)
        block = block if np.array_equal(ascending_u, rows_n) else block[place_n]
        return sparse.csr_matrix(block if len(columns_g) == g and _is_all(column) else block[:, columns_g])

    def to_memory(self) -> sparse.csr_matrix:
        """All of it."""
        return sparse.csr_matrix(self.read(0, self.shape[0]))

    def copy(self) -> "StoredMatrix":
        """Itself: its rows cannot be changed."""
        return self

    def __setitem__(self, index: object, value: object) -> NoReturn:
        raise TypeError("This matrix streams from files and cannot be written to: load it first (`.to_memory()`).")

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = str(self.files[0]) if len(self.files) == 1 else f"{len(self.parts)} files"
        return f"StoredMatrix: {self.shape[0]} x {self.shape[1]} {self.dtype} in {where}"


def columns_of(x: Any, columns_g: np.ndarray) -> Any:
    """Some columns of a matrix, ``(n, g)``, in the order of their numbers; one on disk stays there, unread."""
    return x.with_columns(columns_g) if isinstance(x, StoredMatrix) else x[:, columns_g]


def stored_matrix(dataset: CSRDataset) -> StoredMatrix:
    """A backed CSR matrix of anndata's (or of celbo's) as a :class:`StoredMatrix`."""
    return dataset if isinstance(dataset, StoredMatrix) else StoredMatrix([StoredPart(dataset.group)])


def pieces(ascending_u: np.ndarray, gap: int, most: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Half-open stretches of rows to read, with the rows in each that were asked for.

    Parameters
    ----------
    ascending_u
        Row numbers, ascending, no repeats.
    gap
        Two rows with at most this many others between them go into the same stretch.
    most
        Rows a stretch at most.
    """
    first, u = 0, len(ascending_u)
    breaks_b = np.flatnonzero(np.diff(ascending_u) > gap + 1) + 1
    for end in (*breaks_b.tolist(), u) if u else ():
        while first < end:
            last = int(np.searchsorted(ascending_u, ascending_u[first] + most))
            last = min(last, end)
            yield int(ascending_u[first]), int(ascending_u[last - 1]) + 1, ascending_u[first:last]
            first = last


def _index(columns_g: np.ndarray | None) -> np.ndarray | None:
    return None if columns_g is None else np.asarray(columns_g, dtype=np.int64)


def _is_all(index: object) -> bool:
    return isinstance(index, slice) and index == slice(None)


def _selected(index: object, n: int) -> np.ndarray:
    """Positions that an index of one axis means, ``(m,)``."""
    if isinstance(index, slice):
        return np.arange(*index.indices(n))
    given = np.atleast_1d(np.asarray(index)).ravel()
    return np.flatnonzero(given) if given.dtype == bool else np.where(given < 0, given + n, given).astype(np.int64)
