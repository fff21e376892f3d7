"""Arrays that lie in a temporary file, mapped into memory as they are used: columns of cells, copies of weights."""

import contextlib
import logging
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

__all__ = ["COMPACT_FROM", "forget", "is_mapped", "put", "put_together", "rewrite", "stretches", "taken", "zeros"]

COMPACT_FROM = 2**18
"""Cells from which on data that stream have their tables here; those of fewer are in memory, which is simpler."""

STRETCH = 2**20
"""Cells that are looked at together where something is worked out for all of them."""

REGION = 2**16
"""Bytes that Linux maps around an address that is touched."""

_REGIONS = 128
"""Regions that may be mapped before they are let go: 8 MiB."""

logger = logging.getLogger("celbo")


class _Mapping(mmap.mmap):
    """A mapped temporary file: what was read of it can be let go, since what was changed is in the file.

    ``file`` is a descriptor of its own, through which it is written without being mapped into memory.
    """

    file: int

    def hold(self, file: int) -> None:
        """Keep a descriptor as long as the mapping."""
        self.file = os.dup(file)
        weakref.finalize(self, os.close, self.file)


def put(pieces: Callable[[], Iterable[np.ndarray]], dtype: object) -> np.ndarray:
    """Write an array piece by piece to a temporary file, and map it.

    The file lies where :mod:`tempfile` puts such (``TMPDIR``), has no name and is gone with the array. The array may be
    changed.

    Parameters
    ----------
    pieces
        Restarts the pieces, each one-dimensional; they are asked for again where there is no room for a file.
    dtype
        Of the entries.

    Returns
    -------
    The entries of all pieces, flat: mapped, or in memory where the temporary folder has no room (it is said).
    """
    return put_together(lambda: ((piece,) for piece in pieces()), [dtype])[0]


def put_together(pieces: Callable[[], Iterable[Sequence[np.ndarray]]], dtypes: Sequence[Any]) -> list[np.ndarray]:
    """As :func:`put`, for several arrays whose pieces come together.

    Parameters
    ----------
    pieces
        Restarts the pieces: of each array one at a time.
    dtypes
        Of each array.

    Raises
    ------
    TypeError
        An array holds Python's objects.
    """
    dtypes = [np.dtype(dtype) for dtype in dtypes]
    if any(dtype.hasobject for dtype in dtypes):
        raise TypeError("Python's objects cannot be put into a file.")
    try:
        return _written(pieces(), dtypes)
    except OSError as error:
        if error.errno is None:  # of the data, not of the file
            raise
        logger.warning("No temporary file (%s): what would lie there is kept in memory.", error)
    parts: list[list[np.ndarray]] = [[np.empty(0, dtype)] for dtype in dtypes]
    for together in pieces():
        for part, piece, dtype in zip(parts, together, dtypes):
            part.append(np.asarray(piece, dtype))
    return [np.concatenate(part) for part in parts]


def zeros(n: int, dtype: Any) -> np.ndarray:
    """``n`` zeros, as :func:`put` has them."""
    return put(lambda: (np.zeros(min(STRETCH, n - start), dtype) for start in range(0, n, STRETCH)), dtype)


def _written(pieces: Iterable[Sequence[np.ndarray]], dtypes: Sequence[np.dtype]) -> list[np.ndarray]:
    with contextlib.ExitStack() as open_files:
        files = [open_files.enter_context(tempfile.TemporaryFile(prefix="celbo-")) for _ in dtypes]
        for together in pieces:
            for file, piece, dtype in zip(files, together, dtypes):
                file.write(np.ascontiguousarray(piece, dtype).data)
        return [_mapped(file, dtype) for file, dtype in zip(files, dtypes)]


def _mapped(file: IO[bytes], dtype: np.dtype) -> np.ndarray:
    file.flush()
    size = file.tell()
    if size == 0:
        return np.empty(0, dtype)
    mapping = _Mapping(file.fileno(), size)
    mapping.hold(file.fileno())
    return np.ndarray((size // dtype.itemsize,), dtype, buffer=mapping)


def _mapping_of(array: np.ndarray) -> _Mapping | None:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, _Mapping) else None


def is_mapped(array: np.ndarray) -> bool:
    """Whether this is an array of :func:`put`, or a part of one."""
    return _mapping_of(array) is not None


def rewrite(array: np.ndarray, pieces: Iterable[np.ndarray]) -> None:
    """Write other entries over an array of :func:`put`, from its first one on; on Linux that takes no memory.

    Parameters
    ----------
    array
        As :func:`put` gave it.
    pieces
        Entries, each piece one-dimensional; together at most as many as there are.

    Raises
    ------
    OSError
        The file cannot be written. Some entries may be new.
    """
    mapping, start = _mapping_of(array), 0
    by_file = mapping is not None and sys.platform.startswith("linux")  # where what is mapped and what is written agree
    for piece in pieces:
        if mapping is not None and by_file:
            _write(mapping.file, np.ascontiguousarray(piece, array.dtype), start * array.itemsize)
        else:
            array[start : start + len(piece)] = piece
        start += len(piece)


def _write(file: int, piece: np.ndarray, at: int) -> None:
    left = piece.view(np.uint8)
    while left.size:
        n = os.pwrite(file, left.data, at)  # at most 2 GiB at once
        left, at = left[n:], at + n


def forget(array: np.ndarray) -> None:
    """Drop the memory that an array of :func:`put` took in use; it is read again when needed.

    What was changed in it is kept. Does nothing to other arrays, and where the system has no such call.
    """
    mapping = _mapping_of(array)
    if mapping is not None and sys.platform.startswith("linux"):
        mapping.madvise(mmap.MADV_DONTNEED)


def stretches(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one length, :data:`STRETCH` entries at a time, each let go when the next is asked for."""
    for start in range(0, len(arrays[0]), STRETCH):
        yield tuple(array[start : start + STRETCH] for array in arrays)
        for array in arrays:
            forget(array)


def taken(array: np.ndarray, places_k: np.ndarray) -> np.ndarray:
    """Entries at some places of an array, ``(k, ...)``; one of :func:`put` is read in its own order and let go.

    Parameters
    ----------
    array
        ``(n, ...)``.
    places_k
        Places in range, ``(k,)``, in any order.
    """
    if not is_mapped(array):
        return array[places_k]
    order_k = np.argsort(places_k, kind="stable")
    region_k = places_k[order_k] * array.strides[0] // REGION
    new_at = np.flatnonzero(np.diff(region_k, prepend=-1))[::_REGIONS]
    found = np.empty((len(places_k), *array.shape[1:]), array.dtype)
    for some in np.split(order_k, new_at[1:]):
        found[some] = array[places_k[some]]
        forget(array)
    return found
