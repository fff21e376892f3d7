"""What the chunks of an HDF5 array unpack to, looked at before libhdf5 does.

libhdf5 unpacks a chunk (deflate) to wherever that leads, and looks at the size afterwards: four megabytes take four
gigabytes and most of a minute.
"""

import zlib
from math import prod

import h5py

from ..damage import DamagedDataError

__all__ = ["require_sound_chunks"]

_MOST_OF_DEFLATE = 1032
_HARMLESS = 2**28
"""Bytes that a chunk may unpack to before anybody looks."""


def require_sound_chunks(dataset: h5py.h5d.DatasetID, filename: str, thorough: bool = False) -> None:
    """Refuse an array with chunks that are larger than what belongs into them.

    Parameters
    ----------
    dataset
        Of an opened file.
    filename
        How the message calls the file.
    thorough
        Unpack the chunks, a piece at a time, that could be large enough to fill the memory.

    Raises
    ------
    DamagedDataError
        With the array and the place of the chunk.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() != h5py.h5d.CHUNKED or not plist.get_nfilters() or not hasattr(dataset, "chunk_iter"):
        return
    plain = prod(plist.get_chunk()) * dataset.dtype.itemsize
    chunks: list[h5py.h5d.StoreInfo] = []
    dataset.chunk_iter(chunks.append)
    is_deflated = thorough and plist.get_filter(plist.get_nfilters() - 1)[0] == h5py.h5z.FILTER_DEFLATE
    for chunk in chunks:
        if chunk.size > plain + plain // 8 + 4096:  # what cannot be packed takes a little more
            raise _bad(dataset, filename, chunk)
        if is_deflated and chunk.size * _MOST_OF_DEFLATE > _HARMLESS and not chunk.filter_mask:
            _, raw = dataset.read_direct_chunk(chunk.chunk_offset)
            if len(zlib.decompressobj().decompress(raw, plain + 65)) > plain + 64:
                raise _bad(dataset, filename, chunk)


def _bad(dataset: h5py.h5d.DatasetID, filename: str, chunk: h5py.h5d.StoreInfo) -> DamagedDataError:
    name = (h5py.h5i.get_name(dataset) or b"?").decode(errors="replace")
    return DamagedDataError(
        f"{filename} is damaged, or made to fill the memory: {name} has more in its chunk at {chunk.chunk_offset} than "
        "belongs there. Write the file again from its source."
    )
