"""numpy in documents: scalars, dtypes and arrays, exact to the bit."""

import base64
from typing import Any

import numpy as np

from .codec import INLINE_BYTES, Reader, Writer, decodes, encodes
from .errors import ArchiveError

__all__ = ["checked_dtype", "from_stored", "to_stored"]

_KINDS = "biufcMmSU"


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
    dtype = _dtype_of(node["dtype"])
    raw = base64.b64decode(node["data"], validate=True)
    return np.zeros((), dtype)[()] if not dtype.itemsize else np.frombuffer(raw, dtype, count=1)[0]


@encodes(*{type(np.dtype(kind)) for kind in ("?", *"bhilqBHILQefdFDSUMmO")}, np.dtype)
def _dtype(w: Writer, value: np.dtype[Any]) -> Any:
    return {"$": "numpy.dtype", "v": "|O" if value.hasobject and value.names is None else checked_dtype(value, w.place)}


@decodes("numpy.dtype")
def _read_dtype(r: Reader, node: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(object) if node["v"] == "|O" else _dtype_of(node["v"])


def _dtype_of(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
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
    """The array that :func:`to_stored` flattened."""
    return flat.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


@decodes("numpy.array")
def _read_array(r: Reader, node: dict[str, Any]) -> np.ndarray:
    dtype, shape = _dtype_of(node["dtype"]), tuple(node["shape"])
    if "ref" in node:
        return from_stored(r.arrays[node["ref"]], dtype, shape)
    raw = base64.b64decode(node["data"], validate=True)
    flat = np.frombuffer(raw, dtype) if raw else np.zeros(int(np.prod(shape)), dtype)
    return flat.reshape(shape).copy()


@decodes("numpy.objects")
def _read_objects(r: Reader, node: dict[str, Any]) -> np.ndarray:
    flat = np.empty(len(node["v"]), dtype=object)
    for i, element in enumerate(node["v"]):
        flat[i] = r.decode(element)
    return flat.reshape(node["shape"])
