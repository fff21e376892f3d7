"""Read a file of ``torch.save`` without ``torch.load``: the zip of torch 1.6 and later, and the plain stream before it.

Zip: ``{root}/data.pkl`` is the pickle, ``{root}/data/{key}`` the bytes of each storage, ``{root}/byteorder`` their
byte order; all entries are stored uncompressed. Stream: four pickles (a magic number, the protocol 1001, the writer's
system, the object), then a pickled list of storage keys, then for each its number of elements (int64) and its bytes.
"""

import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import read_regular
from .budget import Budget
from .errors import ArchiveError, in_words
from .pickles.pickle_machine import DictItems, PersistentId, run_pickle
from .pickles.unpickle import PLAIN_GRANTS, Rebuilder
from .pickles.unpickle_numpy import NUMPY_CONSTANTS, NUMPY_GRANTS
from .pickles.unpickle_pandas import PANDAS_CONSTANTS, PANDAS_GRANTS
from .pickles.unpickle_torch import TORCH_CONSTANTS, TORCH_GRANTS, Storage, storage_bytes_grant, storage_dtype

__all__ = ["read_pickle_file", "read_torch_file"]

_MAGIC = 0x1950A86A20F9469CFC6C
_CONSTANTS = NUMPY_CONSTANTS | PANDAS_CONSTANTS | TORCH_CONSTANTS
_MAX_ENTRIES = 100_000
_ZIP, _ZIP_ENTRY = b"PK\x03\x04", b"PK\x01\x02"
ReadStorage = Callable[[str, torch.dtype, int], Tensor]


def _rebuilder(read_storage: ReadStorage, budget: Budget) -> Rebuilder:
    cache: dict[tuple[str, torch.dtype], Storage] = {}

    def load_reference(r: Rebuilder, node: object) -> Storage:
        key, dtype, n_elements = _storage_id(node)
        if (key, dtype) not in cache:
            r.budget.charge(n_elements * dtype.itemsize)
            cache[key, dtype] = Storage(read_storage(key, dtype, n_elements), dtype)
        return cache[key, dtype]

    grants = PLAIN_GRANTS | NUMPY_GRANTS | PANDAS_GRANTS | TORCH_GRANTS | storage_bytes_grant(_storage_of_bytes)
    return Rebuilder(grants, _CONSTANTS, load_reference, budget)


def _storage_id(node: object) -> tuple[str, torch.dtype, int]:
    if not isinstance(node, tuple) or len(node) not in (5, 6) or node[0] != "storage" or node[5:] not in ((), (None,)):
        raise ArchiveError("a storage is named in an unknown way")
    _, kind, key, _, n_elements = node[:5]
    if not isinstance(key, str) or type(n_elements) is not int or not 0 <= n_elements < 2**48:
        raise ArchiveError("a storage is named in an unknown way")
    return key, storage_dtype(kind), n_elements


def _as_tensor(raw: bytearray) -> Tensor:
    return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


def _entries(archive: zipfile.ZipFile, n_file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, after checking that reading them cannot take more than the file's own size."""
    infos = archive.infolist()
    entries = {info.filename: info for info in infos}
    if len(infos) > _MAX_ENTRIES or len(entries) != len(infos):
        raise ArchiveError("its list of entries is damaged")
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
        raise ArchiveError("its entries are compressed, which torch.save never does")
    if sum(info.file_size for info in infos) > n_file_bytes:
        raise ArchiveError("its entries claim more bytes than the file has")
    return entries


def _read_zip(raw: bytes) -> Any:
    if raw.count(_ZIP_ENTRY) > _MAX_ENTRIES:
        raise ArchiveError("its list of entries is damaged")
    budget = Budget(len(raw))
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        entries = _entries(archive, len(raw))
        roots = [
            name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise ArchiveError("it is a zip file, but not one of torch.save: it has no data.pkl")
        order = archive.read(entries[roots[0] + "byteorder"]) if roots[0] + "byteorder" in entries else b"little"
        if order != b"little":
            raise ArchiveError("it was written with another byte order than little-endian, which is not read")

        def read_storage(key: str, dtype: torch.dtype, n_elements: int) -> Tensor:
            info = entries.get(f"{roots[0]}data/{key}")
            if info is None or info.file_size // dtype.itemsize != n_elements:
                raise ArchiveError(f"the data of storage {key[:40]!r} is missing or has the wrong length")
            return _as_tensor(bytearray(archive.read(info)))

        tree = run_pickle(BytesIO(archive.read(entries[roots[0] + "data.pkl"])), budget)
        return _rebuilder(read_storage, budget).value(tree)


def _header(stream: BytesIO, budget: Budget) -> None:
    if run_pickle(stream, budget) != _MAGIC or run_pickle(stream, budget) != 1001:
        raise ArchiveError("it is no file of torch.save")
    system = run_pickle(stream, budget)
    if not isinstance(system, DictItems) or ("little_endian", True) not in system.items:
        raise ArchiveError("it was written with another byte order than little-endian, which is not read")


def _stream_storages(stream: BytesIO, references: list[PersistentId], budget: Budget) -> dict[str, bytearray]:
    """Bytes of the storages that follow the pickles, by key."""
    itemsizes: dict[str, int] = {}
    for reference in references:
        key, dtype, _ = _storage_id(reference.value)
        itemsizes.setdefault(key, dtype.itemsize)
    keys = run_pickle(stream, budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in itemsizes for key in keys):
        raise ArchiveError("its list of storages is damaged")
    storages = {}
    for key in keys:
        head = stream.read(8)
        n_elements = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        n_bytes = n_elements * itemsizes[key]
        if not 0 <= n_bytes <= stream.getbuffer().nbytes - stream.tell():
            raise ArchiveError("it ends before all of its storages")
        storages[key] = bytearray(stream.read(n_bytes))
    return storages


def _read_stream(raw: bytes, budget: Budget) -> Any:
    stream = BytesIO(raw)
    _header(stream, budget)
    references: list[PersistentId] = []
    tree = run_pickle(stream, budget, references)
    storages = _stream_storages(stream, references, budget)

    def read_storage(key: str, dtype: torch.dtype, n_elements: int) -> Tensor:
        if key not in storages or len(storages[key]) // dtype.itemsize != n_elements:
            raise ArchiveError(f"the data of storage {key[:40]!r} is missing or has the wrong length")
        return _as_tensor(storages[key])

    return _rebuilder(read_storage, budget).value(tree)


def _storage_of_bytes(raw: bytes, budget: Budget) -> Storage:
    storage = _read_stream(raw, budget)
    if not isinstance(storage, Storage):
        raise ArchiveError("an embedded storage is no storage")
    return storage


def _no_storage(key: str, dtype: torch.dtype, n_elements: int) -> Tensor:
    raise ArchiveError("a plain pickle refers to a storage outside of it")


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Run a reader; whatever a damaged or hostile file provokes becomes one kind of error that names the file."""
    try:
        return read()
    except ArchiveError as error:
        raise ArchiveError(
            f"{path} cannot be read: {error}. Nothing was loaded; get the file again or save the model again."
        ) from error
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged byte can trip numpy, pandas, torch or zipfile in any way they know
        raise ArchiveError(f"{path} is damaged: {in_words(error)}. Nothing was loaded; get the file again.") from error


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote to a file, rebuilt from granted kinds of values only.

    Raises
    ------
    ArchiveError
        The file is damaged, or holds anything but plain data, numpy, pandas and tensors.
    """

    def read() -> Any:
        raw = read_regular(path)
        return _read_zip(raw) if raw.startswith(_ZIP) else _read_stream(raw, Budget(len(raw)))

    return _guarded(path, read)


def read_pickle_file(path: Path) -> Any:
    """What plain ``pickle`` wrote to a file, under the same rules as :func:`read_torch_file`."""

    def read() -> Any:
        raw = read_regular(path)
        budget = Budget(len(raw))
        return _rebuilder(_no_storage, budget).value(run_pickle(BytesIO(raw), budget))

    return _guarded(path, read)
