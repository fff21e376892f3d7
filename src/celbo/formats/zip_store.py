"""A zarr store in a zip archive, read where it lies; what is asked for is looked at, as in a folder.

An archive has no links, and its names lead nowhere; but what is packed may be far larger than it looks.
"""

import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from ..core import optional
from ..store.allowance import EXCESS, MOST_TIMES
from ..store.damage import DamagedDataError, naming_damage, require_regular
from ..store.memory import readable_bytes
from ..store.zarr.inside import Watch
from .recognise import prefix_in_zip

__all__ = ["open_zip"]


def open_zip(path: Path) -> Any:
    """The root group of a zipped store, open for reading.

    Parameters
    ----------
    path
        The archive; the store is its root, or a folder in it.

    Raises
    ------
    DamagedDataError
        When it is damaged, or announces far more than it holds.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    zarr = optional("zarr", extra="zarr", purpose="Reading .zarr")
    require_regular(path)
    with naming_damage(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        excess = sum(max(0, member.file_size - MOST_TIMES * member.compress_size) for member in members)
        if excess > EXCESS:
            raise DamagedDataError(
                f"{path} announces {readable_bytes(sum(member.file_size for member in members))}, far more than it "
                "holds: it is damaged, or made to fill the memory."
            )
        sizes: Counter[str] = Counter()
        for member in members:
            for folder in Path(member.filename).parents:
                sizes[str(folder)] += member.compress_size
        store = _store_class()(path, mode="r")
        store.sizes = sizes
        prefix = prefix_in_zip([member.filename for member in members]) or ""
        return zarr.open_group(store, path=prefix.rstrip("/"), mode="r", use_consolidated=False)


@cache
def _store_class() -> type:
    """Zarr's store of an archive, with a look at each document; zarr is optional, so it is made when needed."""
    base: Any = optional("zarr", extra="zarr", purpose="Reading .zarr").storage.ZipStore

    class GuardedZip(Watch, base):
        sizes: Counter[str]

        def held(self, folder: str) -> int:
            return self.sizes[folder]

        async def get(self, key: str, prototype: object = None, byte_range: object = None) -> Any:
            value = await super().get(key, prototype, byte_range)
            return self.looked_at(key, value, f"{self.path} ({key})", byte_range)

    return GuardedZip
