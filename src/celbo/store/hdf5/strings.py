"""How long the strings of an HDF5 file are said to be, looked at before libhdf5 takes memory for them.

A string is kept as its length, the address of a collection and a number in it (16 bytes). libhdf5 takes what the length
says, up to 4 GB, and many may refer to one long string.

Dims: s strings.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import h5py
import numpy as np

from ..allowance import EXCESS, MOST_TIMES
from ..damage import DamagedDataError

__all__ = ["Lengths", "chunked_references", "require_sound_attributes"]

REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("number", "<u4")])
"""How an array in the file, or an attribute, refers to a string in a collection."""

_PIECE = 2**20
"""References that are read at once."""

_LOOKED_THROUGH = 2**26
"""Bytes outside of arrays and collections that are looked through for references, at most."""

_ATTRIBUTE = re.compile(
    rb"[\x19\x29\x39\x49]\x01[\x00\x01\x02\x10\x11\x12].\x10\0\0\0"  # strings of any length,
    rb"(?:[\x10\x20\x30\x40]\0\0\0\x01\0\0\0\0\0\x08\0|[\x13\x23\x33\x43].\0\0\x01\0\0\0)"  # of bytes
    rb"(?:.{4})??"  # filled up to eight bytes in old versions
    rb"(?:\x01\0.{6}|\x02\0\0\0"  # one,
    rb"|(?:\x01\x01\0.{5}|\x02\x01\0\x01)(?P<few>.{8})"  # or some,
    rb"|(?:\x01\x01\x01.{5}|\x02\x01\x01\x01)(?P<most>.{8}).{8})",  # with or without the most there may be
    re.DOTALL,
)
"""Type and shape of an attribute of strings, before its references (HDF5 File Format Specification, IV.A).

libhdf5 reads no reserved byte, and takes what is damaged there: these may be anything."""

_Span = tuple[int, int]


class Lengths:
    """Adds up the strings of arrays.

    Parameters
    ----------
    name
        Of the file.
    end
        Its size in bytes.
    """

    def __init__(self, name: str, end: int) -> None:
        self._name, self._end, self._total = name, end, 0

    def add(self, references_s: np.ndarray, where: str) -> None:
        """Count in the strings of an array, ``(s,)`` of :data:`REFERENCE`.

        Raises
        ------
        DamagedDataError
            When one is longer than the file, or all together are far longer.
        """
        length_s = references_s["length"]
        self._total += int(length_s.sum(dtype=np.int64))
        if length_s.max(initial=0) > self._end or self._total > MOST_TIMES * self._end + EXCESS:
            raise DamagedDataError(
                f"{self._name} is damaged: the strings {where} are longer than the file, part of the list was "
                "overwritten. Copy the file again, or write it again."
            )

    def add_span(self, raw: BinaryIO, start: int, stop: int) -> None:
        """Count in references that lie in one part of the file; errors as of :meth:`add`."""
        raw.seek(start)
        left = (stop - start) // REFERENCE.itemsize if stop <= self._end else 0  # libhdf5 refuses what is behind
        while left:
            references = np.frombuffer(raw.read(min(left, _PIECE) * REFERENCE.itemsize), REFERENCE)
            self.add(references, f"listed from byte {start} on")
            left -= max(1, len(references))


def chunked_references(dataset: h5py.h5d.DatasetID) -> Iterator[np.ndarray]:
    """The references of strings in chunks, ``(s,)``; none where they are packed as only libhdf5 can tell."""
    plist = dataset.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if plist.get_layout() != h5py.h5d.CHUNKED or not {*filters} <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}:
        return
    items = int(np.prod(plist.get_chunk(), dtype=np.int64))
    for number in range(dataset.get_num_chunks()):
        skipped, raw = dataset.read_direct_chunk(dataset.get_chunk_info(number).chunk_offset)
        for place, code in reversed([*enumerate(filters)]):
            if not skipped >> place & 1:
                raw = _undone(code, bytes(raw), items * REFERENCE.itemsize)
        yield np.frombuffer(raw[: len(raw) // REFERENCE.itemsize * REFERENCE.itemsize], REFERENCE)


def _undone(code: int, raw: bytes, size: int) -> bytes:
    if code == h5py.h5z.FILTER_DEFLATE:
        return zlib.decompressobj().decompress(raw, size)
    n = len(raw) // REFERENCE.itemsize
    return np.frombuffer(raw[: n * REFERENCE.itemsize], np.uint8).reshape(REFERENCE.itemsize, n).T.tobytes()


def require_sound_attributes(raw: BinaryIO, gaps: Sequence[_Span]) -> None:
    """Refuse attributes whose strings are longer than the file; h5py has no way to see it without reading them.

    Parameters
    ----------
    raw
        The file.
    gaps
        Where neither arrays nor collections of strings lie.

    Raises
    ------
    DamagedDataError
        With the place of the attribute.
    """
    left, end = _LOOKED_THROUGH, raw.seek(0, 2)
    for start, stop in gaps:
        raw.seek(start)
        piece = raw.read(min(stop - start, left))
        left -= len(piece)
        for found in _ATTRIBUTE.finditer(piece):
            shape = found["few"] or found["most"]
            n = 1 if shape is None else int.from_bytes(shape, "little")
            n = min(n, (len(piece) - found.end()) // REFERENCE.itemsize)
            references = np.frombuffer(piece, REFERENCE, n, found.end())
            if references["length"].max(initial=0) > end:
                raise DamagedDataError(
                    f"{raw.name} is damaged: a string of the attribute described at byte {start + found.start()} is "
                    "longer than the file. Copy the file again, or write it again."
                )
