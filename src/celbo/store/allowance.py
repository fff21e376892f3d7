"""How much memory a file may ask for, by what it holds.

A few hundred bytes can announce an array of terabytes, and a compressed one can hold ten thousand times what it takes
on disk. What is to be read into memory is added up first: as much as the machine has, and not a thousand times what the
file holds.
"""

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import h5py

from .damage import DamagedDataError
from .hdf5.chunks import require_sound_chunks
from .hdf5.walk import elements
from .memory import available_memory, readable_bytes

__all__ = ["SMALL", "STRING", "Allowance", "announced", "folder_size"]

MOST_TIMES = 100
"""Times its size on disk that an array may take in memory. Counts, compressed, take 4 to 60 times as much."""

EXCESS = 2**29
"""Bytes that all arrays of a file may take beyond that together: columns of one value compress to nothing."""

SMALL = 2**16
"""Arrays of fewer bytes are not looked at: each takes some hundred bytes in the file."""

STRING = 64
"""Bytes of memory that the shortest string takes in Python, with its place in an array."""


class Allowance:
    """Adds up what is to be read of one file into memory.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._excess, self._total = path, 0, 0

    def require(self, element: object) -> None:
        """Count in a group or array of h5py, before it is read.

        Raises
        ------
        DamagedDataError
            When it announces far more than the file holds.
        MemoryError
            When all that was counted in exceeds the memory there is; says both, and how to stream.
        """
        for name, size, held in announced(element):
            self.add(name, size, held)

    def add(self, name: str, size: int, held: int) -> None:
        """Count in one array of ``size`` bytes, of which the file holds ``held``.

        Raises a ``DamagedDataError`` or a ``MemoryError``, as :meth:`require` does.
        """
        self._excess += max(0, size - MOST_TIMES * held)
        self._total += size
        if self._excess > EXCESS:
            raise DamagedDataError(
                f"{self._path}: {name} announces {readable_bytes(size)}, of which the file holds "
                f"{readable_bytes(held)}. It is damaged, or made to fill the memory: write it again from its source."
            )
        free = available_memory() if self._total > EXCESS else None
        if free is not None and self._total > free:
            raise MemoryError(
                f"{self._path} needs {readable_bytes(self._total)} of memory up to {name}, {readable_bytes(free)} is "
                "available. Leave the matrices on disk: celbo.data.open(..., stream=True), --data stream."
            )


def announced(element: Any) -> Iterator[tuple[str, int, int]]:
    """Name, bytes in memory and bytes on disk of the larger arrays in a group of h5py, or of one array."""
    group = element if isinstance(element, h5py.Group) else None
    for found in [element.id] if group is None else elements(group):
        if isinstance(found, h5py.h5d.DatasetID):
            require_sound_chunks(found, element.file.filename, thorough=True)
            size = _size(found)
            if size >= SMALL:
                yield (h5py.h5i.get_name(found) or b"?").decode(errors="replace"), size, found.get_storage_size()


def _size(dataset: h5py.h5d.DatasetID) -> int:
    """Bytes of an array, or of one of its chunks, if that is larger: it is unpacked whole."""
    plist = dataset.get_create_plist()
    chunk = plist.get_chunk() if plist.get_layout() == h5py.h5d.CHUNKED and dataset.get_storage_size() else ()
    item = STRING if dataset.dtype.hasobject else max(1, dataset.dtype.itemsize)
    return max(prod(map(int, dataset.shape or ())), prod(map(int, chunk))) * item


def folder_size(folder: str) -> int:
    """Bytes of the files in a folder and those below."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
