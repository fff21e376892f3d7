"""celbo's own archive: weights and arrays in ``model.safetensors``, everything else in ``model.json``. No code in
either.

``model.json`` is one JSON object. It begins with the SHA-256 of all its bytes that follow the digest, so that any
changed byte is noticed:

.. code-block:: json

    {"sha256": "...", "celbo_archive": 1, "tensors_sha256": "...", "arrays": {"px_r": null}, "document": {}}

``tensors_sha256`` is the digest of the tensor file, so the two files can never be mixed. Saving over an old archive
goes in three steps, each one atomic: the new tensors are written as ``model.{digest}.safetensors``; the new
``model.json``, which names that digest, replaces the old one; the tensors are renamed to ``model.safetensors``. A
process killed in between leaves, before the second step, the whole old archive, and after it the whole new one: the
reader looks under both names and takes the file with the right digest. Other files in the folder are never touched.
"""

import hashlib
import json
import logging
import os
import re
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..core import checked, read_regular
from . import codec_numpy, codec_pandas  # noqa: F401  (they register their types)
from .budget import MAX_VALUES, Budget
from .codec import STORED, decode, encode
from .codec_numpy import checked_dtype, dtype_of_text, from_stored, to_stored
from .errors import ArchiveError, ArchiveNotFoundError, in_words
from .files import replacing, sync_folder, writing_into

__all__ = ["Archive", "is_archive", "read_archive", "write_archive"]

FORMAT = 1
"""Number of the format written here; higher ones are refused."""
MAX_DOCUMENT_BYTES = 256 * 2**20
MAX_TENSORS = 100_000
logger = logging.getLogger("celbo")
_SAVE_AGAIN = "Nothing was loaded; copy the archive again, or save the model again."
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})", ')
_DIGEST_LETTERS = 16


class Archive(NamedTuple):
    """What an archive holds.

    Attributes
    ----------
    arrays
        Tensors and numpy arrays by name, each as it was given: a tensor comes back as a tensor on the CPU.
    document
        Everything else.
    """

    arrays: dict[str, Any]
    document: dict[str, Any]


class _Files(NamedTuple):
    """Where the parts of one archive lie."""

    folder: Path
    prefix: str

    @property
    def document(self) -> Path:
        return self.folder / f"{self.prefix}model.json"

    @property
    def tensors(self) -> Path:
        return self.folder / f"{self.prefix}model.safetensors"

    def tensors_in_transit(self, digest: str) -> Path:
        return self.folder / f"{self.prefix}model.{digest[:_DIGEST_LETTERS]}.safetensors"

    def leftovers(self) -> list[Path]:
        """Files that only a killed save leaves behind."""
        name = re.escape(f"{self.prefix}model.")
        pattern = re.compile(rf"(partial-)?{name}[0-9a-f]{{{_DIGEST_LETTERS}}}\.safetensors|partial-{name}json")
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]


def _files(dir: str | PathLike[str], prefix: str) -> _Files:
    if prefix != Path(prefix).name and prefix:
        raise ArchiveError(f"The prefix {prefix!r} of an archive must be part of a file name, without a path.")
    return _Files(Path(dir), prefix)


@checked
def is_archive(dir: str | PathLike[str], prefix: str = "") -> bool:
    """Whether a folder holds an archive of celbo's own format (it is not opened)."""
    return _files(dir, prefix).document.is_file()


@checked
def write_archive(
    dir: str | PathLike[str],
    arrays: dict[str, Tensor | np.ndarray],
    document: dict[str, Any],
    *,
    prefix: str = "",
    overwrite: bool = False,
) -> Path:
    """Write an archive.

    Parameters
    ----------
    dir
        The folder; made when it is not there. Files that are not the archive's stay.
    arrays
        Weights and other numeric arrays by name: tensors on any device, numpy arrays of numbers or times, of any shape.
    document
        Everything else; what it may hold is listed at :func:`celbo.io.codec.encode`.
    prefix
        What the two file names begin with, so that one folder can hold several archives.
    overwrite
        Replace an archive that is there. Until the new one is complete, the old one stays whole.

    Returns
    -------
    The folder.

    Raises
    ------
    ArchiveError
        An archive is there already, a value is of a kind that no archive can hold, the document is larger than 256
        MB, or the disk refuses. What was there before is unchanged then, and nothing is left behind.

    Notes
    -----
    One process writes an archive at a time; with several, let one of them save.
    """
    files = _files(dir, prefix)
    if files.document.exists() and not overwrite:
        raise ArchiveError(f"{files.document} already exists. Name another folder, or pass overwrite=True.")
    tensors, body = _packed(arrays, document)
    with writing_into(files.folder):
        _commit(files, tensors, body)
    return files.folder


def _packed(arrays: dict[str, Any], document: dict[str, Any]) -> tuple[bytes, bytes]:
    """Bytes of the tensor file and of the document file."""
    reserved = [name for name in arrays if name.startswith(STORED)]
    if reserved:
        raise ArchiveError(
            f"The array name {reserved[0]!r} begins with {STORED!r}, which archives keep for themselves. Choose "
            "another name."
        )
    encoded, set_aside = encode(document)
    if len(arrays) + len(set_aside) > MAX_TENSORS:
        raise ArchiveError(f"There are more than {MAX_TENSORS:,} arrays, the most that an archive holds. Join some.")
    kinds = {name: _kind(name, array) for name, array in (arrays | set_aside).items()}
    stored = {name: _stored(name, array) for name, array in (arrays | set_aside).items()}
    tensors = safetensors.torch.save(stored, metadata={"format": "pt"})
    return tensors, _document_bytes(encoded, kinds, hashlib.sha256(tensors).hexdigest())


def _kind(name: str, array: object) -> dict[str, Any] | None:
    """How an array comes back: None for a tensor, dtype and shape for a numpy array."""
    if isinstance(array, Tensor):
        return None
    if not isinstance(array, np.ndarray):
        raise ArchiveError(
            f"The array {name!r} is a {type(array).__name__}: pass a tensor or a numpy array, and other things "
            "in the document."
        )
    return {"dtype": checked_dtype(array.dtype, f"the array {name!r}"), "shape": list(array.shape)}


def _stored(name: str, array: Any) -> Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype.kind in "SU":
            raise ArchiveError(f"The array {name!r} holds text: put it into the document.")
        return torch.from_numpy(to_stored(array).copy())
    if array.layout != torch.strided or array.dtype == torch.complex128 or array.is_quantized:
        raise ArchiveError(
            f"The tensor {name!r} ({array.dtype}, {array.layout}) is of a kind that archives do not hold. Make "
            "it a plain dense one."
        )
    # A copy of its own memory: safetensors refuses tensors that share.
    return array.detach().to("cpu", copy=True).contiguous()


def _document_bytes(encoded: object, kinds: dict[str, Any], tensors_digest: str) -> bytes:
    body = {"celbo_archive": FORMAT, "tensors_sha256": tensors_digest, "arrays": kinds, "document": encoded}
    rest = json.dumps(body, allow_nan=False, indent=None).removeprefix("{").encode("ascii")
    if len(rest) > MAX_DOCUMENT_BYTES:
        raise ArchiveError(
            f"The document is {len(rest) / 2**20:,.0f} MB, above the limit of {MAX_DOCUMENT_BYTES / 2**20:,.0f} MB. "
            f"Its heaviest part is {_heaviest(encoded)}. Pass numbers as arrays, and leave data out."
        )
    if _n_values(rest) > MAX_VALUES:
        raise ArchiveError(
            f"The document has {_n_values(rest):,} values, above the limit of {MAX_VALUES:,}. Its heaviest part is "
            f"{_heaviest(encoded)}. Pass numbers as arrays, and leave data out."
        )
    return f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}", '.encode() + rest


def _n_values(raw: bytes) -> int:
    """At least as many as the values of a JSON text; each takes some ten times its letters in memory."""
    return sum(raw.count(sign) for sign in (b",", b"[", b"{"))


def _heaviest(encoded: object) -> str:
    """Path and size of the largest value, as deep as one value outweighs the rest."""
    path, total = "", len(json.dumps(encoded))
    while isinstance(encoded, dict) and encoded:
        sizes = {key: len(json.dumps(value)) for key, value in encoded.items()}
        key = max(sizes, key=sizes.__getitem__)
        if path and sizes[key] < total / 2:
            break
        path, total, encoded = f"{path}[{key!r}]", sizes[key], encoded[key]
    return f"{path} ({total / 2**20:,.1f} MB)"


def _commit(files: _Files, tensors: bytes, body: bytes) -> None:
    _finish_interrupted(files)
    digest = hashlib.sha256(tensors).hexdigest()
    in_transit = files.tensors_in_transit(digest)
    try:
        with replacing(in_transit) as partial:
            partial.write_bytes(tensors)
        with replacing(files.document) as partial:
            partial.write_bytes(body)
    except BaseException:
        _finish_interrupted(files)
        raise
    try:
        os.replace(in_transit, files.tensors)
        sync_folder(files.folder)
    except OSError as error:  # the archive is whole all the same: it is read under either name
        logger.warning("%s keeps its temporary name (%s); the next save puts it right.", in_transit, error.strerror)


def _finish_interrupted(files: _Files) -> None:
    """Bring a save that was killed to its end: put its tensors in place if its document was, remove them if not."""
    leftovers = files.leftovers()
    if not leftovers:
        return
    wanted = _tensors_of(files)
    for path in leftovers:
        if path == wanted:
            os.replace(path, files.tensors)
        else:
            path.unlink(missing_ok=True)


def _tensors_of(files: _Files) -> Path | None:
    """The file in transit that the present document names, if there is a readable one."""
    try:
        return files.tensors_in_transit(_read_body(files)["tensors_sha256"])
    except ArchiveError:
        return None


@checked
def read_archive(dir: str | PathLike[str], *, prefix: str = "") -> Archive:
    """Read an archive whole, or not at all.

    Parameters
    ----------
    dir
        The folder.
    prefix
        What the file names begin with.

    Raises
    ------
    ArchiveNotFoundError
        The folder holds no archive, or one of its two files is missing.
    ArchiveError
        A file is damaged, or a newer celbo wrote it; the message names the file and what to do.
    """
    files = _files(dir, prefix)
    body = _read_body(files)
    raw = _tensor_bytes(files, body["tensors_sha256"])
    try:
        _check_header(raw)
        arrays = _unpacked(safetensors.torch.load(raw), body["arrays"])
    except Exception as error:  # the digests are right, so another program wrote this; it may hold anything
        raise ArchiveError(
            f"{files.tensors} cannot be read as {files.document.name} lists it: {in_words(error)}. {_SAVE_AGAIN}"
        ) from error
    try:
        document = decode(body["document"], arrays, Budget(files.document.stat().st_size + len(raw)))
    except ArchiveError as error:
        raise ArchiveError(f"{files.document} cannot be read: {error}. {_SAVE_AGAIN}") from error
    named = {name: array for name, array in arrays.items() if not name.startswith(STORED)}
    if not isinstance(document, dict):
        raise ArchiveError(f"{files.document} cannot be read: its document is no dictionary. {_SAVE_AGAIN}")
    return Archive(named, document)


def _check_header(raw: bytes) -> None:
    """Bound the number of tensors before any is made; the library compares their shapes with the bytes."""
    end = 8 + int.from_bytes(raw[:8], "little")
    if end > len(raw) or raw.count(b"{", 8, end) > MAX_TENSORS + 2:
        raise ArchiveError("its header is damaged, or lists more tensors than archives hold")


def _bytes_of(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError as error:
        raise ArchiveNotFoundError(
            f"{path} is not there. Name the folder that the model was saved to, and its prefix if it had one; "
            "copy all of its files."
        ) from error
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise ArchiveError(f"{path} cannot be read: it is larger than the memory that is free.") from error


def _read_body(files: _Files) -> dict[str, Any]:
    """The JSON object of the document file, checked against its digest."""
    path, raw = files.document, _bytes_of(files.document)
    head = _HEAD.match(raw)
    if head is None:
        raise ArchiveError(
            f"{path} does not begin as a celbo archive does: it is damaged, or another program's file. Copy it again."
        )
    if hashlib.sha256(memoryview(raw)[head.end() :]).hexdigest().encode() != head[1]:
        raise ArchiveError(
            f"{path} was changed or cut short after it was saved: its checksum is wrong. Copy it again, or save "
            "the model again."
        )
    if len(raw) > MAX_DOCUMENT_BYTES + head.end() or _n_values(raw) > MAX_VALUES + 1:
        raise ArchiveError(f"{path} is larger than any archive that celbo writes: it was made by another program.")
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ArchiveError(f"{path} is no JSON document ({error}). Save the model again.") from error
    _check_body(path, body)
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_body(path: Path, body: dict[str, Any]) -> None:
    number = body.get("celbo_archive")
    if isinstance(number, int) and number > FORMAT:
        raise ArchiveError(
            f"{path} has format {number}, and this celbo reads formats up to {FORMAT}. Install a newer celbo."
        )
    wanted = {"celbo_archive": int, "tensors_sha256": str, "arrays": dict, "document": dict}
    wrong = [key for key, kind in wanted.items() if not isinstance(body.get(key), kind)]
    if wrong:
        raise ArchiveError(
            f"{path} is no celbo archive: {wrong[0]!r} is missing or of the wrong kind. Save the model again."
        )


def _tensor_bytes(files: _Files, digest: str) -> bytes:
    """Bytes of the tensor file with this digest, under its final name or, after a killed save, its name in transit."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ArchiveError(
            f"{files.document} is no celbo archive: it does not name its tensor file. Save the model again."
        )
    in_transit = files.tensors_in_transit(digest)
    path = in_transit if in_transit.is_file() else files.tensors
    raw = _bytes_of(path)
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ArchiveError(
            f"{path} is not the file that was saved with {files.document.name}: its checksum is wrong. "
            "It was changed, cut short, or belongs to another model. Copy both files again, or save the model again."
        )
    return raw


def _unpacked(tensors: dict[str, Tensor], kinds: dict[str, Any]) -> dict[str, Any]:
    if tensors.keys() != kinds.keys():
        raise ArchiveError("its list of arrays is not that of the tensor file")
    return {name: tensors[name] if kind is None else _array(name, tensors[name], kind) for name, kind in kinds.items()}


def _array(name: str, stored: Tensor, kind: object) -> np.ndarray:
    if not isinstance(kind, dict) or not {"dtype", "shape"} <= kind.keys():
        raise ArchiveError(f"the array {name[:60]!r} has no dtype or no shape")
    dtype = dtype_of_text(kind["dtype"])
    shape = Budget(stored.nbytes).shape(kind["shape"], dtype.itemsize)
    return from_stored(stored.numpy(), dtype, shape)
