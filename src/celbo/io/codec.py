"""Documents to JSON and back, exactly: what registries, init arguments and histories hold.

Plain JSON values stay themselves. Everything else is an object ``{"$": tag, ...}``, written by the encoder of its
exact type and read by the decoder of its tag; both are rows of one table. Large numeric arrays leave the document:
they are put into ``arrays`` and referred to by name. No type is guessed and none degrades: a value without an encoder
is an error that says where it sits.
"""

import base64
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ArchiveError

__all__ = ["DECODERS", "ENCODERS", "Reader", "Writer", "decode", "decodes", "encode", "encodes"]

INLINE_BYTES = 1024
"""Numeric arrays up to this size are written inside the document."""
STORED = "document:"
"""Beginning of the names under which large arrays of the document are stored."""
_TAG = "$"
_MAX_DEPTH = 150
_MAX_PLAIN_INT = 2**63


@dataclass
class Writer:
    """State of one encoding: where it stands, and the arrays set aside."""

    path: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    open_ids: set[int] = field(default_factory=set)

    @property
    def place(self) -> str:
        """Key path of the value at hand, for messages."""
        return "".join(self.path) or "the document"

    def store(self, array: np.ndarray | Tensor) -> str:
        """Set a numeric array aside and return the name it got."""
        name = f"{STORED}{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def encode(self, value: Any, step: str = "") -> Any:
        """JSON form of a value; ``step`` is how the path goes on to it."""
        self.path.append(step)
        encoder = _encoder(type(value))
        if encoder is None:
            raise ArchiveError(_unknown(value, self.place))
        if id(value) in self.open_ids or len(self.open_ids) >= _MAX_DEPTH:
            raise ArchiveError(
                f"{self.place} contains itself or is nested more than {_MAX_DEPTH} levels deep: it cannot be saved."
            )
        is_container = not isinstance(value, _LEAVES)
        if is_container:
            self.open_ids.add(id(value))
        encoded = encoder(self, value)
        if is_container:
            self.open_ids.discard(id(value))
        self.path.pop()
        return encoded


@dataclass(frozen=True)
class Reader:
    """State of one decoding: the arrays that the document refers to."""

    arrays: dict[str, Any]

    def decode(self, node: Any) -> Any:
        """Value of a JSON node."""
        if isinstance(node, list):
            return [self.decode(element) for element in node]
        if not isinstance(node, dict):
            return node
        if _TAG not in node:
            return {key: self.decode(value) for key, value in node.items()}
        decoder = DECODERS.get(node[_TAG]) if isinstance(node[_TAG], str) else None
        if decoder is None:
            raise ArchiveError(
                f"it holds a value of the unknown kind {str(node[_TAG])[:60]!r}; a newer celbo may have written it"
            )
        return decoder(self, node)


Encoder = Callable[[Writer, Any], Any]
Decoder = Callable[[Reader, dict[str, Any]], Any]
ENCODERS: dict[type, Encoder] = {}
DECODERS: dict[str, Decoder] = {}
_LEAVES = (type(None), bool, int, float, str, bytes)
# Kinds whose every subclass is the same kind; of all other types only the exact class is taken.
_FAMILIES: tuple[type, ...] = (np.generic, PurePath)


def encodes(*kinds: type) -> Callable[[Encoder], Encoder]:
    """Register the encoder of some types."""

    def register(function: Encoder) -> Encoder:
        ENCODERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def decodes(tag: str) -> Callable[[Decoder], Decoder]:
    """Register the decoder of a tag."""

    def register(function: Decoder) -> Decoder:
        DECODERS[tag] = function
        return function

    return register


def _encoder(kind: type) -> Encoder | None:
    if kind in ENCODERS:
        return ENCODERS[kind]
    return next((ENCODERS[family] for family in _FAMILIES if issubclass(kind, family)), None)


def _unknown(value: Any, place: str) -> str:
    if isinstance(value, FunctionType | BuiltinFunctionType | MethodType | type):
        sort = "class" if isinstance(value, type) else "function"
        return (
            f"{place} is the {sort} {value.__qualname__!r}: archives hold no code. "
            "Pass a name instead, or set it on the model after loading."
        )
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{place} is of the type {kind!r}, which archives do not hold. Pass plain Python, numpy or pandas values."


def encode(document: Any) -> tuple[Any, dict[str, Any]]:
    """JSON form of a document and the arrays that left it.

    Parameters
    ----------
    document
        None, bool, int, float (NaN and infinities too), complex, str, bytes, list, tuple, set, frozenset, slice, dict
        (any hashable keys),
        ``OrderedDict``, ``defaultdict`` of a builtin, ``Counter``, date, datetime, timedelta, paths, numpy scalars
        and arrays, numpy and torch dtypes, torch sizes, devices and tensors, pandas frames, series, indices,
        categoricals, dtypes and missing values; nested in one another.

    Returns
    -------
    A value for ``json.dumps`` and a dict of numpy arrays and tensors by the names used in it.

    Raises
    ------
    ArchiveError
        A value is of another type; the message gives its place.
    """
    writer = Writer()
    return writer.encode(document), writer.arrays


def decode(node: Any, arrays: dict[str, Any]) -> Any:
    """Document of its JSON form; the inverse of :func:`encode`."""
    return Reader(arrays).decode(node)


# -- plain Python
# ------------------------------------------------------------------------------------------------------------------


@encodes(type(None), bool, str)
def _itself(w: Writer, value: Any) -> Any:
    return value


@encodes(int)
def _int(w: Writer, value: int) -> Any:
    return value if abs(value) < _MAX_PLAIN_INT else {_TAG: "int", "hex": hex(value)}


@encodes(float)
def _float(w: Writer, value: float) -> Any:
    return value if math.isfinite(value) else {_TAG: "float", "v": repr(value)}


@encodes(list)
def _list(w: Writer, value: list[Any]) -> list[Any]:
    return [w.encode(element, f"[{i}]") for i, element in enumerate(value)]


def _tagged_elements(tag: str) -> Encoder:
    return lambda w, value: {_TAG: tag, "v": _list(w, list(value))}


@encodes(dict)
def _dict(w: Writer, value: dict[Any, Any]) -> Any:
    if all(type(key) is str for key in value) and _TAG not in value:
        return {key: w.encode(element, f"[{key!r}]") for key, element in value.items()}
    return {_TAG: "dict", "v": _items(w, value)}


def _items(w: Writer, value: dict[Any, Any]) -> list[list[Any]]:
    return [[w.encode(key, f" (key {key!r})"), w.encode(element, f"[{key!r}]")] for key, element in value.items()]


def _pairs(r: Reader, node: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(r.decode(key), r.decode(value)) for key, value in node["v"]]


_FACTORIES: dict[str, Any] = {"None": None, **{kind.__name__: kind for kind in (dict, list, set, int, float, str)}}


@encodes(defaultdict)
def _defaultdict(w: Writer, value: defaultdict[Any, Any]) -> Any:
    names = [name for name, factory in _FACTORIES.items() if factory is value.default_factory]
    if not names:
        raise ArchiveError(
            f"{w.place} is a defaultdict of {value.default_factory!r}: archives hold no code. Pass a plain dict."
        )
    return {_TAG: "defaultdict", "factory": names[0], "v": _items(w, value)}


ENCODERS |= {
    tuple: _tagged_elements("tuple"),
    set: _tagged_elements("set"),
    frozenset: _tagged_elements("frozenset"),
    torch.Size: _tagged_elements("torch.Size"),
    OrderedDict: lambda w, value: {_TAG: "OrderedDict", "v": _items(w, value)},
    Counter: lambda w, value: {_TAG: "Counter", "v": _items(w, value)},
    bytes: lambda w, value: {_TAG: "bytes", "v": base64.b64encode(value).decode()},
    complex: lambda w, value: {_TAG: "complex", "v": [w.encode(value.real), w.encode(value.imag)]},
    slice: lambda w, value: {_TAG: "slice", "v": [w.encode(part) for part in (value.start, value.stop, value.step)]},
    date: lambda w, value: {_TAG: "date", "v": value.isoformat()},
    timedelta: lambda w, value: {_TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]},
    PurePath: lambda w, value: {_TAG: "path", "windows": isinstance(value, PureWindowsPath), "v": str(value)},
    torch.dtype: lambda w, value: {_TAG: "torch.dtype", "v": str(value).removeprefix("torch.")},
    torch.device: lambda w, value: {_TAG: "torch.device", "v": str(value)},
    Tensor: lambda w, value: {_TAG: "tensor", "ref": w.store(value)},
}


@encodes(datetime)
def _datetime(w: Writer, value: datetime) -> Any:
    if value.tzinfo is not None:
        raise ArchiveError(
            f"{w.place} is a time with a time zone, which archives do not hold. Convert it to UTC without a zone."
        )
    return {_TAG: "datetime", "v": value.isoformat()}


def _torch_dtype(r: Reader, node: dict[str, Any]) -> torch.dtype:
    dtype = {
        str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
    }.get(node["v"])
    if dtype is None:
        raise ArchiveError(f"this torch has no dtype {node['v']!r}")
    return dtype


def _elements(kind: Callable[[list[Any]], Any]) -> Decoder:
    return lambda r, node: kind(r.decode(node["v"]))


DECODERS |= {
    "int": lambda r, node: int(node["hex"], 16),
    "float": lambda r, node: float(node["v"]),
    "tuple": _elements(tuple),
    "set": _elements(set),
    "frozenset": _elements(frozenset),
    "torch.Size": _elements(torch.Size),
    "complex": _elements(lambda parts: complex(*parts)),
    "slice": _elements(lambda parts: slice(*parts)),
    "dict": lambda r, node: dict(_pairs(r, node)),
    "OrderedDict": lambda r, node: OrderedDict(_pairs(r, node)),
    "Counter": lambda r, node: Counter(dict(_pairs(r, node))),
    "defaultdict": lambda r, node: defaultdict(_FACTORIES[node["factory"]], _pairs(r, node)),
    "bytes": lambda r, node: base64.b64decode(node["v"], validate=True),
    "date": lambda r, node: date.fromisoformat(node["v"]),
    "datetime": lambda r, node: datetime.fromisoformat(node["v"]),
    "timedelta": lambda r, node: timedelta(*node["v"]),
    "path": lambda r, node: (PureWindowsPath if node["windows"] else PurePosixPath)(node["v"]),
    "torch.dtype": _torch_dtype,
    "torch.device": lambda r, node: torch.device(node["v"]),
    "tensor": lambda r, node: r.arrays[node["ref"]],
}
