"""numpy in documents: scalars, dtypes and arrays, exact to the bit."""

import base64
import math
import re
from typing import Any

import numpy as np

from .codec import INLINE_BYTES, Reader, Writer, decodes, encodes, text_of
from .errors import ArchiveError

__all__ = ["checked_dtype", "dtype_of_text", "from_stored", "has_letters", "to_stored"]

_KINDS = "biufcMmSU"
_DTYPE_TEXT = re.compile(r"[<>|=](([biufcSU])(\d{1,9})|[mM]8(\[[0-9a-zA-Z]{1,12}\])?)")
_LAST_LETTER = 0x10FFFF


def checked_dtype(dtype: np.dtype[Any], place: str) -> str:
    """Text form of a dtype that can be stored: numbers up to 64 bits a part, text, times.

    Raises
    ------
    ArchiveError
        It is structured, an object dtype, or a long double (whose bytes differ between machines).
    """
    if (
        dtype.kind not in _KINDS
        or dtype.names is not None
        or dtype.subdtype is not None
        or dtype.str[1:] in ("f16", "c32", "f12", "c24")
    ):
        raise ArchiveError(
            f"{place} has the numpy dtype {dtype}, which archives do not hold. Convert it to a plain number or "
            "text dtype."
        )
    return dtype.str


@encodes(np.generic)
def _scalar(w: Writer, value: np.generic) -> Any:
    array = np.asarray(value)
    return {
        "$": "numpy.scalar",
        "dtype": checked_dtype(array.dtype, w.place),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


@decodes("numpy.scalar")
def _read_scalar(r: Reader, node: dict[str, Any]) -> Any:
    dtype = dtype_of_text(node["dtype"])
    return _of_bytes(r, base64.b64decode(node["data"], validate=True), dtype, [])[()]


@encodes(*{type(np.dtype(kind)) for kind in ("?", *"bhilqBHILQefdFDSUMmO")}, np.dtype)
def _dtype(w: Writer, value: np.dtype[Any]) -> Any:
    return {"$": "numpy.dtype", "v": "|O" if value.hasobject and value.names is None else checked_dtype(value, w.place)}


@decodes("numpy.dtype")
def _read_dtype(r: Reader, node: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(object) if node["v"] == "|O" else dtype_of_text(node["v"])


def dtype_of_text(text: Any) -> np.dtype[Any]:
    """The dtype of a text that :func:`checked_dtype` gave; an ``ArchiveError`` for any other text."""
    if not _DTYPE_TEXT.fullmatch(text_of(text)):
        raise ArchiveError(f"it holds the numpy dtype {text!r}, which archives do not hold")
    dtype = np.dtype(text)
    checked_dtype(dtype, "a numpy value")
    return dtype


@encodes(np.ndarray)
def _array(w: Writer, value: np.ndarray) -> Any:
    if value.dtype == object:
        elements = [w.encode(element, f"[{i}]") for i, element in enumerate(value.ravel().tolist())]
        return {"$": "numpy.objects", "shape": list(value.shape), "v": elements}
    head = {"$": "numpy.array", "dtype": checked_dtype(value.dtype, w.place), "shape": list(value.shape)}
    if value.nbytes > INLINE_BYTES and value.dtype.kind not in "SU":
        return head | {"ref": w.store(to_stored(value))}
    return head | {"data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}


def to_stored(value: np.ndarray) -> np.ndarray:
    """The same bytes, flat, under a dtype that safetensors has: times as their integers, complex numbers as bytes."""
    flat = np.ascontiguousarray(value).reshape(-1)
    native = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
    return native.view({"M": np.int64, "m": np.int64, "c": np.uint8}.get(native.dtype.kind, native.dtype))


def from_stored(flat: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """The array that :func:`to_stored` flattened; an ``ArchiveError`` where bytes and shape do not fit."""
    if dtype.kind in "SU" or flat.nbytes != math.prod(shape) * dtype.itemsize:
        raise ArchiveError(f"an array of shape {shape} and dtype {dtype} comes with {flat.nbytes} bytes")
    return flat.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def has_letters(array: np.ndarray) -> bool:
    """Whether all code points of a text array are letters that Unicode may have; arrays of numbers are passed over."""
    if array.dtype.kind != "U" or not array.size:
        return True
    codes = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return bool(codes.max() <= _LAST_LETTER)


def _of_bytes(r: Reader, raw: bytes, dtype: np.dtype[Any], sizes: object) -> np.ndarray:
    shape = r.budget.shape(sizes, dtype.itemsize)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ArchiveError(f"an array of shape {shape} and dtype {dtype} comes with {len(raw)} bytes")
    if not raw:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(raw, dtype)
    if not has_letters(flat):
        raise ArchiveError("an array of text holds what is no text")
    return flat.reshape(shape).copy()


@decodes("numpy.array")
def _read_array(r: Reader, node: dict[str, Any]) -> np.ndarray:
    dtype = dtype_of_text(node["dtype"])
    if "ref" not in node:
        return _of_bytes(r, base64.b64decode(node["data"], validate=True), dtype, node["shape"])
    flat = r.arrays[text_of(node["ref"])]
    if not isinstance(flat, np.ndarray):
        raise ArchiveError("a tensor stands where an array must be")
    return from_stored(flat, dtype, r.budget.shape(node["shape"], dtype.itemsize))


@decodes("numpy.objects")
def _read_objects(r: Reader, node: dict[str, Any]) -> np.ndarray:
    shape = r.budget.shape(node["shape"], 8)
    if not isinstance(node["v"], list) or math.prod(shape) != len(node["v"]):
        raise ArchiveError(f"an array of shape {shape} does not come with as many objects")
    flat = np.empty(len(node["v"]), dtype=object)
    for i, element in enumerate(node["v"]):
        flat[i] = r.decode(element, i)
    return flat.reshape(shape)
