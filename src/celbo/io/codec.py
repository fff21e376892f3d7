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

from .budget import MAX_BITS, MAX_TABLES, Budget, bounded
from .errors import ArchiveError, in_words

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
    """State of one encoding: where it stands, the arrays set aside, and how many tables there are."""

    path: list[str] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    open_ids: set[int] = field(default_factory=set)
    n_tables: int = 0

    @property
    def place(self) -> str:
        """Key path of the value at hand, for messages."""
        return "".join(self.path) or "the document"

    def store(self, array: np.ndarray | Tensor) -> str:
        """Set a numeric array aside and return the name it got."""
        name = f"{STORED}{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def count_tables(self, n: int = 1) -> None:
        """Count pandas objects, of which a reader takes only so many; an ``ArchiveError`` beyond."""
        self.n_tables += n
        if self.n_tables > MAX_TABLES:
            raise ArchiveError(
                f"{self.place} is one of more than {MAX_TABLES:,} tables, columns and indices, the most that an "
                "archive holds. Put their numbers into arrays."
            )

    def encode(self, value: object, step: str = "") -> Any:
        """JSON form of a value; ``step`` is how the path goes on to it. ``ArchiveError`` for what cannot be saved."""
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


@dataclass
class Reader:
    """State of one decoding: where it stands, the arrays that the document refers to, and what may still be made."""

    arrays: dict[str, Any]
    budget: Budget
    path: list[Any] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Key path of the value at hand, for messages."""
        return "".join(f"[{str(step)[:60]!r}]" for step in self.path if step is not None) or "the document"

    def decode(self, node: object, step: object = None) -> Any:
        """Value of a JSON node; ``step`` is how the path goes on to it. The path stays at an ``ArchiveError``."""
        if not isinstance(node, list | dict):
            return _plain(node)
        if len(self.path) >= _MAX_DEPTH + 10:
            raise ArchiveError(f"it is nested more than {_MAX_DEPTH} levels deep")
        self.path.append(step)
        value = self._made(node)
        self.path.pop()
        return value

    def _made(self, node: list[Any] | dict[str, Any]) -> Any:
        if isinstance(node, list):
            return [self.decode(element, i) for i, element in enumerate(node)]
        if _TAG not in node:
            return {key: self.decode(value, key) for key, value in node.items()}
        decoder = DECODERS.get(node[_TAG]) if isinstance(node[_TAG], str) else None
        if decoder is None:
            raise ArchiveError(
                f"it holds a value of the unknown kind {str(node[_TAG])[:60]!r}; a newer celbo may have written it"
            )
        return decoder(self, node)

    def elements(self, node: dict[str, Any], n: int | None = None) -> list[Any]:
        """Values of a node's list, ``n`` of them if given; an ``ArchiveError`` where that is wrong."""
        nodes = node["v"]
        if not isinstance(nodes, list) or (n is not None and len(nodes) != n):
            raise ArchiveError("a list of values is no list, or not of the length it must have")
        return [self.decode(element, i) for i, element in enumerate(nodes)]

    def of(self, node: object, *kinds: type) -> Any:
        """Value of a node that must be of one of some kinds; an ``ArchiveError`` for another."""
        value = self.decode(node)
        if not isinstance(value, kinds):
            raise ArchiveError(f"a {type(value).__name__} stands where a {kinds[0].__name__} must be")
        return value


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


def _unknown(value: object, place: str) -> str:
    if isinstance(value, FunctionType | BuiltinFunctionType | MethodType | type):
        sort = "class" if isinstance(value, type) else "function"
        return (
            f"{place} is the {sort} {value.__qualname__!r}: archives hold no code. "
            "Pass a name instead, or set it on the model after loading."
        )
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{place} is of the type {kind!r}, which archives do not hold. Pass plain Python, numpy or pandas values."


def encode(document: object) -> tuple[Any, dict[str, Any]]:
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


def decode(node: object, arrays: dict[str, Any], budget: Budget | None = None) -> Any:
    """Document of its JSON form; the inverse of :func:`encode`.

    Parameters
    ----------
    node
        What ``json.loads`` gave.
    arrays
        Arrays and tensors that the document refers to, by name.
    budget
        What may be made of it; None: as much as a file of 64 MB may ask for.

    Raises
    ------
    ArchiveError
        A value makes no sense or asks for more than the budget has; the message gives its place.
    """
    reader = Reader(arrays, budget or Budget(2**26))
    try:
        return reader.decode(node)
    except Exception as error:  # the digests are right, so another program wrote this; it may hold anything
        raise ArchiveError(f"{reader.place}: {in_words(error)}") from error


# -- plain Python
# ------------------------------------------------------------------------------------------------------------------


@encodes(type(None), bool, str)
def _itself(w: Writer, value: object) -> Any:
    return value


def _plain(value: object) -> Any:
    """A JSON value that is no container; integers of many digits have a tag."""
    if type(value) is int and abs(value) >= _MAX_PLAIN_INT:
        raise ArchiveError(f"it holds an integer of {value.bit_length():,} bits")
    return value


@encodes(int)
def _int(w: Writer, value: int) -> Any:
    if value.bit_length() > MAX_BITS:
        raise ArchiveError(f"{w.place} is an integer of {value.bit_length():,} bits; archives hold {MAX_BITS:,}.")
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
    if not isinstance(node["v"], list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in node["v"]):
        raise ArchiveError("a dictionary is no list of pairs")
    return [(r.budget.key(r.decode(key)), r.decode(value, _short(key))) for key, value in node["v"]]


def _short(key: object) -> Any:
    return key if isinstance(key, str | int) else "..."


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


_TORCH_DTYPES = {
    str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}


def _torch_dtype(r: Reader, node: dict[str, Any]) -> torch.dtype:
    dtype = _TORCH_DTYPES.get(node["v"])
    if dtype is None:
        raise ArchiveError(f"this torch has no dtype {str(node['v'])[:60]!r}")
    return dtype


def _hexadecimal(r: Reader, node: dict[str, Any]) -> int:
    digits = text_of(node["hex"], MAX_BITS // 4 + 4)
    return bounded(int(digits, 16))


def text_of(value: object, n_most: int = 100) -> str:
    """A text of so many letters at most, for what parses it."""
    if not isinstance(value, str) or len(value) > n_most:
        raise ArchiveError("it holds a value that is written in an unknown way")
    return value


def _elements(kind: Callable[[list[Any]], Any]) -> Decoder:
    return lambda r, node: kind(r.elements(node))


def _unordered(kind: Callable[[list[Any]], Any]) -> Decoder:
    return lambda r, node: kind([r.budget.key(element) for element in r.elements(node)])


def _slice(r: Reader, node: dict[str, Any]) -> slice:
    parts = r.elements(node, 3)
    if any(isinstance(part, list | dict | set) for part in parts):
        raise ArchiveError("a slice is not made of numbers")
    return slice(*parts)


def _tensor(r: Reader, node: dict[str, Any]) -> Tensor:
    tensor = r.arrays[text_of(node["ref"])]
    if not isinstance(tensor, Tensor):
        raise ArchiveError("an array stands where a tensor must be")
    return tensor


DECODERS |= {
    "int": _hexadecimal,
    "float": lambda r, node: float(text_of(node["v"])),
    "tuple": _elements(tuple),
    "set": _unordered(set),
    "frozenset": _unordered(frozenset),
    "torch.Size": _elements(torch.Size),
    "complex": lambda r, node: complex(*r.elements(node, 2)),
    "slice": _slice,
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
    "torch.device": lambda r, node: torch.device(text_of(node["v"])),
    "tensor": _tensor,
}
