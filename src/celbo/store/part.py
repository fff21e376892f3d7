"""One matrix in one file, read by stretches of rows: CSR or dense, in HDF5 or zarr.

Every fault of the file becomes an error that names the file and the rows. What is read is checked before it is used:
columns out of range would make compiled code write past its arrays.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from .damage import DamagedChunkError, DamagedDataError, NoNumbersError
from .dtypes import plain_dtype, plain_values
from .hdf5.chunks import require_sound_chunks
from .hdf5.walk import refuse_outside
from .matrices.index_structure import first_outside
from .matrices.row_pointers import RowPointers

__all__ = ["ColumnsError", "StoredPart", "file_of", "is_group"]

_CLOSED = "was closed: read it again with `anndata.read_h5ad(..., backed='r')` or `celbo.data.open(...)`"


_SAMPLE = 32
"""Rows looked at in three places of a dense matrix, to estimate how many entries are not zero."""


class ColumnsError(ValueError):
    """A matrix is stored by columns, so that its rows cannot be read."""


def file_of(element: Any) -> Path | None:
    """The file, or zarr store on a local disk, that an h5py or zarr group or array lies in; None for others."""
    if isinstance(element, (h5py.Group, h5py.Dataset)):
        return Path(element.file.filename) if element else None
    known = vars(element.store)
    root = known.get("root") or known.get("path")  # by the kind of store
    return Path(str(root)) if root is not None and Path(str(root)).exists() else None


class StoredPart:
    """Rows of one matrix in one file.

    Parameters
    ----------
    element
        Group of a CSR matrix in anndata's layout, or dense dataset, of h5py or zarr.
    path
        How messages call the file.

    Attributes
    ----------
    shape, dtype
        Of what comes out: as stored, save that half floats come out as single ones.
    n_entries
        Stored values: all cells times genes where dense.
    n_nonzero
        Values that come out: those stored, or the nonzero ones of a dense matrix as estimated from some rows.
    chunk_rows
        Rows that the file keeps together, about: fewer cannot be read with less work.

    Raises
    ------
    DamagedDataError
        When the arrays of the matrix do not fit each other.
    NoNumbersError
        When the matrix holds text or other things.
    ColumnsError
        For a matrix stored by columns.
    """

    def __init__(self, element: Any, path: Path | None = None) -> None:
        self.path = path if path is not None else file_of(element)
        self._element = element
        self._pointers: RowPointers | None = None
        with self._blame("The matrix"):
            self._open(element)
        if self.dtype.kind not in "biuf":
            raise NoNumbersError(f"{self._where} holds {self.dtype}, not numbers: convert it to a numeric dtype first.")

    @property
    def _where(self) -> str:
        name = "" if _is_closed(self._element) else self._element.name
        return f"{self.path if self.path is not None else 'the store'} ({str(name).lstrip('/') or 'matrix'})"

    def _open(self, element: Any) -> None:
        if isinstance(element, (h5py.Group, h5py.Dataset)):
            refuse_outside(element)
            for array in [element] if isinstance(element, h5py.Dataset) else element.values():
                require_sound_chunks(array.id, str(self.path))
        if not is_group(element):
            self.shape, self.dtype = (int(element.shape[0]), int(element.shape[1])), plain_dtype(element.dtype)
            self.n_entries = self.shape[0] * self.shape[1]
            self.chunk_rows = int(element.chunks[0]) if element.chunks else 1
            self.n_nonzero = self._estimate()
            return
        encoding = element.attrs.get("encoding-type", element.attrs.get("h5sparse_format", "csr"))
        if str(encoding).startswith("csc"):
            raise ColumnsError(
                f"{self._where} is stored by columns (CSC), which has no rows to stream: load it "
                "(celbo.data.open(..., stream=False)), or write it by rows once: adata.X = adata.X.tocsr()."
            )
        if not str(encoding).startswith("csr"):
            raise ValueError(f"it is encoded as {encoding!r}, neither an array nor a sparse matrix")
        n, g = element.attrs["shape"] if "shape" in element.attrs else element.attrs["h5sparse_shape"]
        self._open_rows(element, int(n), int(g))

    def _open_rows(self, element: Any, n: int, g: int) -> None:
        """Take the group for a CSR matrix of this shape."""
        self.shape, self.dtype = (n, g), plain_dtype(element["data"].dtype)
        self._data, self._indices = element["data"], element["indices"]
        self._pointers = self._checked_pointers(element["indptr"])
        self.n_entries = self.n_nonzero = self._pointers.n_entries
        self._require_chunks()
        a_row = max(1.0, self.n_entries / max(self.shape[0], 1))
        self.chunk_rows = max(1, int(self._data.chunks[0] / a_row)) if self._data.chunks else 1

    def _estimate(self) -> int:
        n, g = self.shape
        starts = {0, n // 2, max(0, n - _SAMPLE)}
        rows = [np.asarray(self._element[start : start + _SAMPLE]) for start in starts]
        share = np.mean([np.count_nonzero(block) / max(block.size, 1) for block in rows])
        return int(np.ceil(share * n * g))

    def _checked_pointers(self, stored: Any) -> RowPointers:
        n, n_stored = self.shape[0], (int(self._data.shape[0]), int(self._indices.shape[0]))
        try:
            if stored.dtype.kind not in "iu" or self._indices.dtype.kind not in "iu":
                raise ValueError(f"pointers of {stored.dtype} and columns of {self._indices.dtype}")
            if stored.shape[0] != n + 1:
                raise ValueError(f"{stored.shape[0]} row pointers")
            pointers = RowPointers(lambda start, stop: stored[start:stop], n)
            if n_stored != (pointers.n_entries, pointers.n_entries):
                raise ValueError(f"row pointers that end at {pointers.n_entries}")
        except ValueError as error:
            raise DamagedDataError(
                f"{self._where} is damaged or cut short: {n} rows are announced, and {error} do not fit them or the "
                f"{n_stored[0]} values and {n_stored[1]} columns that are stored."
            ) from error
        return pointers

    def _require_chunks(self) -> None:
        """Refuse a zarr array that lacks chunks: zarr reads those as zeros, without a word."""
        assert self._pointers is not None
        if isinstance(self._data, h5py.Dataset) or self.path is None:
            return
        for name, array in (("data", self._data), ("indices", self._indices)):
            missing = array.nchunks - array.nchunks_initialized
            # a chunk of zeros alone is legal and not stored: for columns, where each row has the first gene at most
            if missing and (name == "data" or self._pointers.longest > 1):
                raise DamagedDataError(
                    f"{self._where}: {missing} of the {array.nchunks} chunks of {name!r} are missing"
                    f"{self._first_hole(array)}. Copy the store again, or write it again."
                )

    def _first_hole(self, array: Any) -> str:
        """The rows of the first chunk that is all zeros, as a message says it."""
        step, pointers = int(array.chunks[0]), self._pointers
        assert pointers is not None
        for start in range(0, int(array.shape[0]), step):
            if not np.any(array[start : start + step]):
                first, last = (pointers.row_of(i) for i in (start, min(start + step, pointers.n_entries) - 1))
                return f", the first with rows {first} to {last}"
        return ""

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive) in CSR form, stored dtype.

        Raises
        ------
        DamagedDataError
            When they cannot be read, or make no sense.
        """
        with self._blame(f"Rows {start} to {stop - 1}"):
            if self._pointers is None:
                return _sparse_of(plain_values(np.asarray(self._element[start:stop])))
            pointers = self._pointers.between(start, stop)
            first, last = int(pointers[0]), int(pointers[-1])
            data, columns = plain_values(np.asarray(self._data[first:last])), np.asarray(self._indices[first:last])
        self._check_entries(data, columns, start, stop, pointers - first)
        columns = columns.astype(np.int32 if self.shape[1] < 2**31 else np.int64, copy=False)
        return sparse.csr_array((data, columns, pointers - first), shape=(stop - start, self.shape[1]), copy=False)

    def _check_entries(
        self, data: np.ndarray, columns: np.ndarray, start: int, stop: int, pointers: np.ndarray
    ) -> None:
        wanted = int(pointers[-1])
        if len(data) != wanted or len(columns) != wanted:
            problem = f"{len(data)} values and {len(columns)} columns are there, {wanted} were announced"
        elif (bad := first_outside(columns, self.shape[1])) is not None:
            row = start + int(np.searchsorted(pointers, bad, side="right")) - 1
            problem = f"row {row} has an entry in column {columns[bad]}, the matrix has {self.shape[1]}"
        else:
            return
        raise DamagedDataError(f"Rows {start} to {stop - 1} of {self._where} are damaged: {problem}.")

    @contextmanager
    def _blame(self, rows: str) -> Iterator[None]:
        """Turn an error of the storage, of whatever kind, into one that names file and rows."""
        try:
            yield
        except DamagedChunkError as error:
            raise DamagedDataError(f"{rows} of {self._where} cannot be read: {error}") from error
        except (MemoryError, DamagedDataError, ColumnsError):
            raise
        except Exception as error:
            raise self._fault(rows, error) from error

    def _fault(self, rows: str, error: Exception) -> Exception:
        """The error to raise for one of the storage's."""
        if _is_closed(self._element):
            return ValueError(f"{rows} cannot be read: the h5ad file behind this AnnData {_CLOSED}.")
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return DamagedDataError(
            f"{rows} of {self._where} cannot be read: {lines[0]}. The file is damaged or cut short: copy it again."
        )


def _is_closed(element: Any) -> bool:
    return isinstance(element, (h5py.Group, h5py.Dataset)) and not element  # zarr's would look through the group


def is_group(element: Any) -> bool:
    """Whether this is the group of a sparse matrix, not a dense array."""
    loaded = sys.modules.get("zarr")
    return isinstance(element, h5py.Group) or (loaded is not None and isinstance(element, loaded.Group))


def _sparse_of(block_ng: np.ndarray) -> sparse.csr_array:
    """The nonzero entries of dense rows; NaN counts as one."""
    is_stored = block_ng != 0
    pointers = np.concatenate([[0], np.cumsum(np.count_nonzero(is_stored, axis=1))])
    columns = np.nonzero(is_stored)[1].astype(np.int32)
    return sparse.csr_array((block_ng[is_stored], columns, pointers), shape=block_ng.shape, copy=False)
