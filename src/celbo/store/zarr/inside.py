"""A zarr store in a folder of which every byte is read through one door, which looks at what is asked for.

Names in a store may lead out of its folder (symbolic links, ``..``), and a codec may be anything that is installed,
even one that runs code (pickles). The door gives what lies in the folder, in regular files, to codecs that only move
bytes.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ...core import optional
from ..allowance import SMALL, Allowance, folder_size
from ..damage import DamagedDataError, OutsideDataError
from .chunks import Layout, layout_of, require_sound_chunk

__all__ = ["Watch", "counted", "guarded_group", "require_harmless", "require_inside"]

_DOCUMENTS = ("zarr.json", ".zarray")
_OTHER_DOCUMENTS = (".zattrs", ".zgroup", ".zmetadata")

_CODECS = frozenset(
    ("bytes", "transpose", "crc32c", "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array")
    + ("gzip", "zstd", "blosc", "zlib", "lz4", "bz2", "lzma")
    + ("delta", "shuffle", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype")
    + ("fletcher32", "crc32", "adler32")
)
"""Codecs that rearrange bytes, by the names that zarr 2 and 3 have for them."""


def guarded_group(path: Path) -> Any:
    """The root group of a store, open for reading; consolidated metadata, a second say on what it holds, are not read.

    Raises
    ------
    OutsideDataError
        When a link leads out of the folder.
    DamagedDataError
        For a pipe, device or socket in it.
    """
    require_inside(path)
    return _zarr().open_group(_store_class()(path, read_only=True), mode="r", use_consolidated=False)


@contextmanager
def counted(store: Any, allowance: Allowance) -> Iterator[None]:
    """Count in the arrays that are read meanwhile: what they announce, and what lies in their folders."""
    store.allowance = allowance
    try:
        yield
    finally:
        store.allowance = None


def require_inside(path: Path) -> None:
    """Look through a folder for links out of it (``OutsideDataError``), and for what is no regular file.

    Raises a ``DamagedDataError`` for that; see :func:`guarded_group`.
    """
    root, waiting = os.path.realpath(path), [str(path)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    _require_link_inside(path, root, entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    raise DamagedDataError(f"{entry.path} is neither a file nor a folder: no part of a zarr store.")


def _require_link_inside(path: Path, root: str, link: str) -> None:
    target = os.path.realpath(link)
    if os.path.commonpath([root, target]) != root:
        raise OutsideDataError(path, f"{os.path.relpath(link, path)} is a link to {target!r}")
    if not (os.path.isfile(target) or os.path.isdir(target)):
        raise DamagedDataError(f"{link} is a link to nothing that can be read.")


def require_harmless(document: bytes, where: str) -> Any:
    """Refuse the metadata of a zarr array that names a codec which does more than rearrange bytes.

    Parameters
    ----------
    document
        JSON, of either version of zarr.
    where
        How the message calls the array.

    Returns
    -------
    What the document says.

    Raises
    ------
    DamagedDataError
        With the codec's name.
    """
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise DamagedDataError(f"{where} is damaged: it is no JSON ({str(error)[:80]}).") from error
    for name in _codecs(found):
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise DamagedDataError(
                f"{where} names the codec {name[:80]!r}, which celbo does not run. If you trust the store, read it "
                "with anndata and write it again."
            )
    return found


def _codecs(document: object) -> list[str]:
    """Names of all codecs in a document, those inside of others too."""
    if not isinstance(document, dict):
        return []
    listed = [document.get("compressor"), *_list(document.get("filters"))]  # of zarr 2
    listed += _list(document.get("codecs")) + _list(document.get("index_codecs"))
    names = []
    for codec in listed:
        if isinstance(codec, str):
            names.append(codec)
        if isinstance(codec, dict):
            names.append(str(codec.get("id", codec.get("name"))))
            names += _codecs(codec.get("configuration"))
    return names


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class Watch:
    """What looks at each value that a store gives: documents, and chunks by what their documents say.

    Attributes
    ----------
    allowance
        Counts in the arrays that are read, where they are read whole.
    """

    allowance: Allowance | None = None

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.layouts: dict[str, Layout] = {}

    def held(self, folder: str) -> int:
        """Bytes that a part of the store takes on disk."""
        raise NotImplementedError

    def looked_at(self, key: str, value: Any, where: str, byte_range: object = None) -> Any:
        """The value of a key, or the part of it that was asked for; or an error that begins with ``where``."""
        if value is None:
            return None
        folder, _, name = key.rpartition("/")
        if name in _DOCUMENTS:
            self._note(folder, require_harmless(value.to_bytes(), where))
        elif name not in _OTHER_DOCUMENTS and (layout := _of_part(self._layout_of(folder), byte_range)) is not None:
            require_sound_chunk(memoryview(value.as_numpy_array()), layout, where)
        return value

    def _note(self, folder: str, document: object) -> None:
        """Keep how an array lies in its chunks, and count it in where it is read whole."""
        layout = layout_of(document)
        if layout is not None:
            self.layouts[folder] = layout
            if self.allowance is not None and layout.size >= SMALL:
                self.allowance.add(folder, layout.size, self.held(folder))

    def _layout_of(self, folder: str) -> Layout | None:
        while folder and folder not in self.layouts:
            folder = folder.rpartition("/")[0]
        return self.layouts.get(folder)


def _of_part(layout: Layout | None, byte_range: object) -> Layout | None:
    """How a part of a chunk lies: of a shard zarr asks for single chunks, and for the index, of which it has a sum."""
    if layout is None or byte_range is None:
        return layout
    single = isinstance(byte_range, _zarr().abc.store.RangeByteRequest)
    is_index = not single or (layout.index_first and byte_range.start == 0)  # type: ignore[attr-defined]
    return None if is_index else layout.inner


def _zarr() -> Any:
    return optional("zarr", extra="zarr", purpose="Reading .zarr")


@cache
def _store_class() -> type:
    """Zarr's store of a folder, with a look at each key; zarr is optional, so that the class is made when needed."""
    base: Any = _zarr().storage.LocalStore

    class GuardedStore(Watch, base):
        def held(self, folder: str) -> int:
            return folder_size(os.path.join(self.root, folder))

        def _require_key(self, key: str) -> None:
            if ".." in key.split("/") or os.path.isabs(key):
                raise OutsideDataError(self.root, f"{key!r} leads out of the folder")

        async def get(self, key: str, prototype: object = None, byte_range: object = None) -> Any:
            self._require_key(key)
            value = await super().get(key, prototype, byte_range)
            return self.looked_at(key, value, f"{self.root} ({key})", byte_range)

        def get_sync(self, key: str, **options: Any) -> Any:
            self._require_key(key)
            value = super().get_sync(key, **options)
            return self.looked_at(key, value, f"{self.root} ({key})", options.get("byte_range"))

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            key_ranges = list(key_ranges)
            for key, _ in key_ranges:
                self._require_key(key)
            return await super().get_partial_values(prototype, key_ranges)

    return GuardedStore
