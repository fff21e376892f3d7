"""Whether the strings of an HDF5 file can be walked through, looked at before libhdf5 does.

HDF5 keeps strings of varying length in "global heap collections" (HDF5 File Format Specification, III.E): 16 bytes of
header, then objects of 16 bytes of header (index, count, size) and their bytes, one after another. libhdf5 (2.0, and
those before) walks from one to the next by the size that is written there; where that was overwritten by zeros it stays
where it is, for ever, in C, where nothing can stop it. The references to the strings, and their type in the attributes,
are looked at too: libhdf5 takes 4 GB for a wrong length, and dies of a wrong type.

Dims: c collections.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from ..damage import DamagedDataError
from .strings import Lengths, chunked_references, require_sound_attributes
from .walk import elements

__all__ = ["require_sound_heaps"]

_MAGIC = b"GCOL\x01\0\0\0"
"""Signature, version and the three bytes that must be zero."""

_HEAD = 16
"""Bytes of the header of a collection, and of that of an object."""

_SMALLEST, _LARGEST = 2**12, 2**33
"""Bytes of a collection: libhdf5 makes none that is smaller, and refuses it; the largest that is looked at."""

_MOST_OBJECTS = 2**16
"""They are told apart by a number of 16 bits."""

_PIECE = 2**24
"""Bytes of the file that are looked at at once."""

_VLEN_KIND = 3
"""Which byte of the encoded type says what it is that varies in length."""

_REFERENCE_BYTES = 16
"""Of a reference to a string in a collection."""

_NOT_OURS = (RuntimeError, KeyError, TypeError, AttributeError, zlib.error)
"""What h5py raises for a damaged element, beside OSError and ValueError; it fails when it is read."""

_Span = tuple[int, int]
"""A part of the file, from byte to byte."""


class _Found(NamedTuple):
    """Collections in a piece of the file, and where to go on after it; of that, ``needed`` bytes must be read."""

    starts: list[int]
    stops: list[int]
    next: int
    needed: int = 0


def require_sound_heaps(file: h5py.File, found: Sequence[Any] | None = None) -> None:
    """Make sure that libhdf5 gets to the end of each collection of strings in an opened file.

    Nothing of the file is read but what is no array of numbers; no attribute and no string is asked of libhdf5.

    Parameters
    ----------
    file
        Opened for reading.
    found
        All that is in it, if that is known (:func:`~celbo.store.hdf5.walk.elements`).

    Raises
    ------
    DamagedDataError
        When a collection cannot be walked through, an array or an attribute has strings longer than the file, or an
        attribute has a type that there is not.
    """
    sizes = file.id.get_create_plist().get_sizes()
    if file.userblock_size or sizes != (8, 8):  # nobody writes AnnData so
        return
    with open(file.filename, "rb") as raw:
        end = raw.seek(0, 2)
        numbers, strings = _arrays(file.filename, [*elements(file["/"])] if found is None else found)
        lengths = Lengths(file.filename, end)
        parts = [span for dataset in strings for span in _part_of(dataset)]
        for span in parts:
            lengths.add_span(raw, *span)
        for dataset in strings:
            _add_chunks(lengths, dataset)
        heaps = [span for gap in _gaps(numbers, end) for span in _look_through(raw, *gap, end)]
        require_sound_attributes(raw, [*_gaps(numbers + parts + heaps, end, _REFERENCE_BYTES)])


def _part_of(dataset: h5py.h5d.DatasetID) -> list[_Span]:
    with suppress(Exception):
        return _in_one(dataset)
    return []


def _add_chunks(lengths: Lengths, dataset: h5py.h5d.DatasetID) -> None:
    with suppress(*_NOT_OURS):
        for references in chunked_references(dataset):
            lengths.add(references, f"of {_name(dataset)}")


def _arrays(filename: str, found: Sequence[Any]) -> tuple[list[_Span], list[h5py.h5d.DatasetID]]:
    """Where numbers lie, and arrays of strings, as far as it can be told; in a damaged file it may be of some."""
    numbers: list[_Span] = []
    strings: list[h5py.h5d.DatasetID] = []
    for element in found:
        if not _has_types(element):
            raise DamagedDataError(
                f"{filename} is damaged: an attribute of {_name(element)} has a type that there is not. Copy the file "
                "again, or write it again."
            )
        with suppress(Exception):  # of whatever kind: it is looked through then, and fails when it is read
            if isinstance(element, h5py.h5d.DatasetID) and not element.dtype.hasobject:
                numbers.extend(_spans(element))
            elif isinstance(element, h5py.h5d.DatasetID) and h5py.check_string_dtype(element.dtype) is not None:
                strings.append(element)
    return numbers, strings


def _name(element: object) -> str:
    return (h5py.h5i.get_name(element) or b"?").decode(errors="replace")


def _has_types(element: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> bool:
    """Whether what varies in length among its attributes is said to be a list (0) or a string (1), and nothing else."""
    for number in range(h5py.h5a.get_num_attrs(element)):
        with suppress(Exception):
            of_type = h5py.h5a.open(element, index=number).get_type()
            if of_type.get_class() == h5py.h5t.VLEN and of_type.encode()[_VLEN_KIND] & 0x0F > 1:
                return False
    return True


def _spans(dataset: h5py.h5d.DatasetID) -> list[_Span]:
    """The parts of the file that a dataset takes."""
    if dataset.get_create_plist().get_layout() != h5py.h5d.CHUNKED:
        return _in_one(dataset)
    spans: list[_Span] = []
    if hasattr(dataset, "chunk_iter"):  # not with HDF5 before 1.12.3: there all is looked through
        dataset.chunk_iter(lambda chunk: spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    return spans


def _in_one(dataset: h5py.h5d.DatasetID) -> list[_Span]:
    """Where a dataset lies if it lies in one part: not in chunks, in another file, or nowhere yet."""
    offset = dataset.get_offset()
    return [] if offset is None else [(offset, offset + dataset.get_storage_size())]


def _gaps(spans: list[_Span], end: int, smallest: int = _SMALLEST) -> Iterator[_Span]:
    """What lies between the spans, where so many bytes (those of a collection) have room."""
    at = 0
    for start, stop in (*sorted(span for span in spans if span[1] <= end), (end, end)):
        if start - at >= smallest:
            yield at, start
        at = max(at, stop)


def _look_through(raw: BinaryIO, start: int, stop: int, end: int) -> Iterator[_Span]:
    """The collections that begin between two places of a file that ends at ``end``, each walked through."""
    at, needed = start, 0
    while at < stop:
        raw.seek(at)
        piece = raw.read(max(min(_PIECE, stop - at), needed))
        if len(piece) < max(_HEAD, needed):  # the end, or the file is being cut short
            return
        found = _collections(piece, stop - at, end - at)
        bad = _first_bad(piece, np.array(found.starts, int), np.array(found.stops, int))
        if bad is not None:
            raise DamagedDataError(
                f"{raw.name} is damaged: the strings from byte {at + found.starts[bad]} on cannot be told apart, part "
                "of them was overwritten. Copy the file again, or write it again."
            )
        yield from ((at + first, at + last) for first, last in zip(found.starts, found.stops))
        at, needed = at + found.next, found.needed


def _collections(piece: bytes, limit: int, left: int) -> _Found:
    """Collections that lie in ``piece`` as a whole and begin before ``limit``; the file ends ``left`` bytes behind."""
    found = _Found([], [], len(piece) if len(piece) >= limit else len(piece) - _HEAD + 1)
    at = piece.find(_MAGIC, 0, limit)
    while 0 <= at <= len(piece) - _HEAD:
        size = int.from_bytes(piece[at + len(_MAGIC) : at + _HEAD], "little")
        if not _SMALLEST <= size <= min(_LARGEST, left - at):  # libhdf5 refuses it, or it is something else
            at = piece.find(_MAGIC, at + 1, limit)
            continue
        if at + size > len(piece):
            return found._replace(next=at, needed=size)
        found.starts.append(at)
        found.stops.append(at + size)
        at = piece.find(_MAGIC, at + size, limit)
    return found._replace(next=max([found.next, *found.stops[-1:]]))


def _first_bad(piece: bytes, starts_c: np.ndarray, stops_c: np.ndarray) -> int | None:
    """Number of the first collection, if any, in which an object has no size or ends behind the collection's end.

    They are walked through side by side, an object of each at a time: one by one takes as long as reading the strings.
    """
    words = np.ndarray(max(0, len(piece) - 7), "<u8", piece, strides=(1,))  # eight bytes from each byte on
    numbers_c, at_c = np.arange(len(starts_c)), starts_c + _HEAD
    bad: list[int] = []
    for _ in range(_MOST_OBJECTS + 1):
        goes_on_c = at_c + _HEAD <= stops_c[numbers_c]  # what is shorter is free space, and has no header
        numbers_c, at_c = numbers_c[goes_on_c], at_c[goes_on_c]
        if not len(numbers_c):
            break
        step_c = _steps(words[at_c], words[at_c + 8])
        is_sound_c = (step_c >= _HEAD) & (step_c <= stops_c[numbers_c] - at_c)
        bad += numbers_c[~is_sound_c].tolist()
        numbers_c, at_c = numbers_c[is_sound_c], (at_c + step_c)[is_sound_c]
    return min([*bad, *numbers_c.tolist()], default=None)


def _steps(index_c: np.ndarray, size_c: np.ndarray) -> np.ndarray:
    """Bytes from one object to the next, ``(c,)``, by the two halves of its header."""
    size_c = np.minimum(size_c, 2 * _LARGEST).astype(np.int64)
    is_free_c = (index_c & 0xFFFF) == 0  # its size counts the header
    return np.where(is_free_c, size_c, _HEAD + (size_c + 7) // 8 * 8)
