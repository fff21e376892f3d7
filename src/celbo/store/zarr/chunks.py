"""What a chunk of a zarr array unpacks to, looked at before it is unpacked.

Decoders believe what a chunk says of itself: four bytes ask that of strings for 32 GB, and some compressors pack a
megabyte of zeros into 30 bytes. Sizes are read from the chunk's head, or counted while it is unpacked piece by piece.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...core import optional
from ..allowance import EXCESS, MOST_TIMES, STRING
from ..damage import DamagedChunkError
from ..memory import readable_bytes

__all__ = ["Layout", "layout_of", "require_sound_chunk"]

_SLACK = 2**18
"""Bytes that a chunk may have beyond four times its values: codecs put heads and sums of their own."""

_UNKNOWN = 256
"""Bytes that a value of a type we do not know, or a record, is taken for."""

_MOST_OF_DEFLATE = 1032
_BLOCK = 2**17
"""Bytes that a block of zstd unpacks to at most."""

_NOT_STORED = 2**64 - 1
"""What the index of a shard says of a chunk that is not there."""

_WHOLE = ("zstd", "blosc", "lz4", "gzip", "zlib", "bz2", "lzma")
"""Compressors, which all have their own name in numcodecs."""


class Layout(NamedTuple):
    """How the values of an array lie in its chunks.

    Attributes
    ----------
    size
        Bytes of the whole array in memory, or of one chunk if that is larger.
    items
        Values of a chunk.
    item_bytes
        Bytes of a value; None for strings.
    codecs
        Names, in the order in which a chunk is decoded.
    inner
        Of the chunks in a shard.
    n_inner
        How many chunks a shard has; 0 where there are no shards.
    index_first
        Whether the index of a shard is at its beginning.
    """

    size: int
    items: int
    item_bytes: int | None
    codecs: tuple[str, ...]
    inner: "Layout | None" = None
    n_inner: int = 0
    index_first: bool = False


def layout_of(document: object) -> Layout | None:
    """The layout that the metadata of an array announces; None for those of a group.

    Parameters
    ----------
    document
        JSON, of either version of zarr.

    Raises
    ------
    ValueError, TypeError
        When a length is no whole number.
    """
    if not isinstance(document, dict) or "shape" not in document:
        return None
    shape, kind = _lengths(document["shape"]), document.get("dtype", document.get("data_type"))
    if "chunks" in document:
        chunk, codecs = _lengths(document["chunks"]), [document.get("compressor"), *_listed(document, "filters")[::-1]]
    else:
        chunk = _lengths(document["chunk_grid"]["configuration"]["chunk_shape"])
        codecs = _listed(document, "codecs")[::-1]
    item_bytes = _item_bytes(kind)
    made = _layout(chunk, item_bytes, [codec for codec in codecs if codec is not None])
    return made._replace(size=max(prod(shape), prod(chunk)) * (item_bytes or STRING))


def _layout(chunk: list[int], item_bytes: int | None, codecs: list[Any]) -> Layout:
    names = tuple(str(c.get("id", c.get("name")) if isinstance(c, dict) else c) for c in codecs)
    made = Layout(0, prod(chunk), item_bytes, tuple(name.removeprefix("numcodecs.") for name in names))
    if "sharding_indexed" not in names:
        return made
    options = codecs[names.index("sharding_indexed")]["configuration"]
    small = _lengths(options["chunk_shape"])
    inner = _layout(small, item_bytes, _listed(options, "codecs")[::-1])
    n_inner = prod(whole // max(1, part) for whole, part in zip(chunk, small))
    return made._replace(inner=inner, n_inner=n_inner, index_first=options.get("index_location") == "start")


def _lengths(values: Any) -> list[int]:
    if not all(isinstance(length, int) and length >= 0 for length in values):
        raise ValueError(f"the lengths {str(values)[:80]} are not whole numbers")
    return list(values)


def _listed(document: Any, name: str) -> list[Any]:
    return document[name] if isinstance(document.get(name), list) else []


def _item_bytes(kind: object) -> int | None:
    """Bytes of a value by its type's name in either version of zarr; None for strings of any length."""
    if kind in ("|O", "string", "variable_length_bytes", "bytes"):
        return None
    if isinstance(kind, dict):
        return int(kind.get("configuration", {}).get("length_bytes", _UNKNOWN))
    if kind == "bool":
        return 1
    if found := re.fullmatch(r"[a-z]+(\d+)", str(kind)):
        return max(1, int(found[1]) // 8)
    if found := re.fullmatch(r"[<>|=]([a-zA-Z])(\d+)(\[\w+\])?", str(kind)):
        return int(found[2]) * (4 if found[1] == "U" else 1)
    return _UNKNOWN


def require_sound_chunk(raw: memoryview, layout: Layout, where: str) -> None:
    """Refuse a chunk, or the chunks of a shard, that would unpack to more than belongs there.

    Parameters
    ----------
    raw
        As it lies on disk.
    layout
        Of its array.
    where
        How the message calls it.

    Raises
    ------
    DamagedChunkError
        With what it should be and what it would be.
    """
    if layout.inner is not None:
        for piece in _of_shard(raw, layout):
            require_sound_chunk(piece, layout.inner, where)
        return
    packed = next((name for name in layout.codecs if name in _WHOLE), None)
    if packed == "blosc":
        _require_whole(raw, where)
    most = MOST_TIMES * len(raw) + EXCESS
    if layout.item_bytes is not None:
        most = min(most, 4 * layout.items * layout.item_bytes + _SLACK)
    if packed is not None and (size := _unpacked(packed, raw, most)) > most:
        raise DamagedChunkError(
            f"{where} is damaged, or made to fill the memory: its {len(raw)} bytes unpack to more than "
            f"{readable_bytes(min(size, most))}. Write the store again from its source."
        )
    if layout.item_bytes is None and layout.codecs and layout.codecs[-1].startswith("vlen"):
        _require_count(raw, layout, packed, where)


_HEAD_OF_BLOSC = 16


def _require_whole(raw: memoryview, where: str) -> None:
    """Refuse a chunk of blosc that is shorter than its head says: the decoder reads on, and ends the process."""
    announced = max(_HEAD_OF_BLOSC, int.from_bytes(raw[12:16], "little"))
    if announced > len(raw):
        raise DamagedChunkError(
            f"{where} is damaged: its head announces {announced} bytes, and there are {len(raw)}. "
            "Write the store again from its source."
        )


def _of_shard(raw: memoryview, layout: Layout) -> Iterator[memoryview]:
    """The chunks of a shard, by its index; a damaged index is left to zarr, which has a sum over it."""
    length = 16 * layout.n_inner
    index = raw[:length] if layout.index_first else raw[max(0, len(raw) - length - 4) :][:length]
    places = np.frombuffer(index[: len(index) // 16 * 16], "<u8").reshape(-1, 2)
    for start, size in places[places[:, 0] != _NOT_STORED].tolist():
        yield raw[start : start + size]


def _require_count(raw: memoryview, layout: Layout, packed: str | None, where: str) -> None:
    """Refuse a chunk of strings that announces more of them than a chunk has."""
    plain = bytes(raw)
    if packed is not None:
        codec = optional("numcodecs", extra="zarr", purpose="Reading .zarr").get_codec({"id": packed})
        plain = bytes(codec.decode(plain[:-4] if layout.codecs[0] == "crc32c" else plain))
    if (count := int.from_bytes(plain[:4], "little")) > layout.items:
        raise DamagedChunkError(f"{where} is damaged: it announces {count} strings, {layout.items} belong there.")


def _unpacked(codec: str, raw: memoryview, most: int) -> int:
    """Bytes that a compressed chunk unpacks to, as far as they count: more than ``most`` is enough to know."""
    if codec == "zstd":
        return _of_zstd(raw, most)
    if codec in ("blosc", "lz4"):
        at = 4 if codec == "blosc" else 0
        return int.from_bytes(raw[at : at + 4], "little")
    if codec in ("gzip", "zlib") and _MOST_OF_DEFLATE * len(raw) <= most:
        return 0
    return _counted(_INFLATE[codec], raw, most)


_INFLATE: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


def _counted(make: Callable[[], Any], raw: memoryview, most: int) -> int:
    """Unpack a megabyte at a time, and keep none of it; what is damaged is left to the decoder."""
    size, left = 0, bytes(raw)
    with suppress(zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        while left and size <= most:
            inflate = make()  # streams may follow one another
            while size <= most and not inflate.eof:
                piece = inflate.decompress(left, 2**20)
                left = getattr(inflate, "unconsumed_tail", b"")  # bz2 and lzma keep theirs
                size += len(piece)
                if not piece and not left:
                    return size
            left = inflate.unused_data
    return size


def _of_zstd(raw: memoryview, most: int) -> int:
    """By the head of the frame (RFC 8878, 3.1.1), or the largest that its blocks can give where that has no size."""
    if len(raw) < 6 or bytes(raw[:4]) != b"\x28\xb5\x2f\xfd":
        return 0
    flags = raw[4]
    is_single = flags >> 5 & 1
    at = 5 + (1 - is_single) + (0, 1, 2, 4)[flags & 3]
    length = (is_single, 2, 4, 8)[flags >> 6]
    if length:
        return int.from_bytes(raw[at : at + length], "little") + (256 if length == 2 else 0)
    size, is_last = 0, False
    while not is_last and size <= most + _BLOCK and at + 3 <= len(raw):
        head = int.from_bytes(raw[at : at + 3], "little")
        is_last, kind, length = bool(head & 1), head >> 1 & 3, head >> 3
        size += _BLOCK if kind == 2 else length
        at += 3 + (1 if kind == 1 else length)
    return max(0, size - _BLOCK)
