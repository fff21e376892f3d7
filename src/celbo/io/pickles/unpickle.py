"""Unpickle what archives hold, and refuse everything else.

Two steps. :func:`~celbo.io.pickles.pickle_machine.run_pickle` turns the pickle into a tree of inert records, running
nothing.
:class:`Rebuilder` then walks the tree and makes values: plain Python ones by itself, others only through the tables
of granted names below, whose functions check what they are given and rebuild the value (a ``numpy`` array from its
bytes, a data frame from its columns). No class of the pickle's choosing is ever called, no attribute set, no
``__setstate__`` run.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from ..budget import Budget
from ..errors import ArchiveError
from .pickle_machine import Call, DictItems, Name, PersistentId, SetItems

__all__ = ["Grant", "Rebuilder"]

MAX_DEPTH = 120
_NODE_BYTES = 150
"""What is kept of a node that is no plain value, beside the value itself."""
_ELEMENT_BYTES = 100
"""What an element of a set or dict takes that is remade from one that is there."""

Grant = Callable[["Rebuilder", Call], Any]
"""Builds the value of one granted call, or raises :class:`ArchiveError`."""


class Rebuilder:
    """Makes values of a pickle's tree.

    Parameters
    ----------
    grants
        Full name (``"numpy.dtype"``) to the function that builds such a call's value.
    constants
        Full name to the value that the bare name stands for (``"torch.float32"``).
    load_reference
        Turns the (unbuilt) value of a persistent id into the thing it refers to.
    budget
        What may be made of the file.
    """

    def __init__(
        self,
        grants: dict[str, Grant],
        constants: dict[str, Any],
        load_reference: "Callable[[Rebuilder, Any], Any]",
        budget: Budget,
    ) -> None:
        self.grants = grants
        self.constants = constants
        self.load_reference = load_reference
        self.budget = budget
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def value(self, node: object) -> Any:
        """Value of a node; the same object for the same node."""
        self.budget.count(1)
        if node is None or isinstance(node, bool | int | float | str | bytes | bytearray):
            return node
        known = self._done.get(id(node))
        if known is not None:
            self.budget.count(known[1])
            return known[0]
        return self._make_once(node)

    def _make_once(self, node: object) -> Any:
        if id(node) in self._open:
            raise ArchiveError("it holds a value that contains itself")
        if len(self._open) >= MAX_DEPTH:
            raise ArchiveError(f"it is nested more than {MAX_DEPTH} levels deep")
        self.budget.charge(_NODE_BYTES)
        self._open.add(id(node))
        before = self.budget.values_left
        value = _MAKERS[type(node)](self, node)
        self._open.discard(id(node))
        self._done[id(node)] = (value, before - self.budget.values_left)
        return value

    def values(self, nodes: object, n: int | None = None) -> list[Any]:
        """Values of a tuple or list of nodes, ``n`` of them if given; an ``ArchiveError`` where that is wrong."""
        if not isinstance(nodes, tuple | list) or (n is not None and len(nodes) != n):
            raise ArchiveError("a list of values does not have the length it must have")
        return [self.value(node) for node in nodes]

    def pairs(self, nodes: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Pairs for a dict."""
        return [(self.key(key), self.value(value)) for key, value in nodes]

    def key(self, node: object) -> Any:
        """Value of a node that is to be a key or an element of a set."""
        return self.budget.key(self.value(node))

    def of(self, node: object, kind: type) -> Any:
        """Value of a node that must be of a type, exactly; else an ``ArchiveError``."""
        value = self.value(node)
        if type(value) is not kind:
            raise ArchiveError(f"a {type(value).__name__} stands where a {kind.__name__} must be")
        return value

    def call(self, call: Call) -> Any:
        """Value of a granted call; an ``ArchiveError`` for any other call."""
        if not isinstance(call.function, Name):
            raise ArchiveError("it calls something that is no plain name")
        grant = self.grants.get(str(call.function))
        if grant is None:
            raise ArchiveError(refusal(call.function))
        return grant(self, call)

    def name(self, name: Name) -> Any:
        """Value of a bare name; an ``ArchiveError`` for a name that is not granted."""
        if str(name) not in self.constants:
            raise ArchiveError(refusal(name))
        return self.constants[str(name)]


def refusal(name: Name) -> str:
    """What is wrong with a name that is not granted."""
    top = name.module.partition(".")[0]
    advice = {
        "jax": "it was saved by a JAX model, of which no more than arrays is read",
        "jaxlib": "it was saved by a JAX model, of which no more than arrays is read",
        "flax": "it was saved by a JAX model, of which no more than arrays is read",
        "scipy": "it holds a scipy object among the model's arguments",
        "sklearn": "it holds a scikit-learn object among the model's arguments",
    }.get(top, "archives of models have no use for it, and it could run code")
    return f"it asks for {str(name)[:120]!r}, which is refused: {advice}"


def _tuple(r: Rebuilder, node: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(r.values(node))


def _reference(r: Rebuilder, node: PersistentId) -> Any:
    return r.load_reference(r, node.value)


def _set(r: Rebuilder, node: SetItems) -> set[Any] | frozenset[Any]:
    elements = [r.key(element) for element in node.elements]
    return frozenset(elements) if node.frozen else set(elements)


_MAKERS: dict[type, Callable[[Rebuilder, Any], Any]] = {
    tuple: _tuple,
    list: lambda r, node: r.values(node),
    DictItems: lambda r, node: dict(r.pairs(node.items)),
    SetItems: _set,
    Name: lambda r, node: r.name(node),
    Call: lambda r, node: r.call(node),
    PersistentId: _reference,
}


def plain(call: Call, n_args: int) -> tuple[Any, ...]:
    """Arguments of a call that must have ``n_args`` of them and nothing else."""
    if len(call.args) != n_args or call.kwargs or call.states or call.items or call.elements:
        raise ArchiveError(f"{call.function} is called in an unknown way")
    return call.args


def _encode(r: Rebuilder, call: Call) -> bytes:
    text, encoding = plain(call, 2)
    if not isinstance(text, str) or encoding != "latin1":
        raise ArchiveError("bytes are written in an unknown way")
    r.budget.charge(len(text))
    return text.encode("latin1")


def _empty_or_bytes(r: Rebuilder, call: Call) -> bytes:
    if not call.args:
        return b""
    (inner,) = plain(call, 1)
    value = r.value(inner)
    if not isinstance(value, bytes | bytearray):
        raise ArchiveError("bytes are made of something else")
    r.budget.charge(len(value))
    return bytes(value)


def _ordered_dict(r: Rebuilder, call: Call) -> OrderedDict[Any, Any]:
    # Its state is torch's version table of a state_dict (`_metadata`): never needed, so never rebuilt.
    pairs = r.pairs(call.items)
    for given in call.args:
        if not isinstance(given, list) or any(not isinstance(pair, list | tuple) for pair in given):
            raise ArchiveError("an ordered dictionary is made of something else than pairs")
        r.budget.charge(_ELEMENT_BYTES * len(given))
        pairs += [(r.key(key), r.value(value)) for key, value in given]
    return OrderedDict(pairs)


def _default_dict(r: Rebuilder, call: Call) -> defaultdict[Any, Any]:
    factories = {
        "None": None,
        **{f"{b}.{t.__name__}": t for b in _BUILTINS for t in (dict, list, set, int, float, str)},
    }
    asked = str(call.args[0]) if call.args else "None"
    if asked not in factories:
        raise ArchiveError(f"it asks for a defaultdict of {asked!r}, which is refused")
    return defaultdict(factories[asked], r.pairs(call.items))


def _counter(r: Rebuilder, call: Call) -> Counter[Any]:
    counted = r.of(call.args[0], dict) if call.args else {}
    r.budget.charge(_ELEMENT_BYTES * len(counted))
    return Counter(counted)


def _collection(kind: type) -> Grant:
    def make(r: Rebuilder, call: Call) -> Any:
        (inner,) = plain(call, 1)
        elements = r.of(inner, list)
        r.budget.charge(_ELEMENT_BYTES * len(elements))
        r.budget.count(len(elements))
        return kind(r.budget.key(element) for element in elements)

    return make


def _slice(r: Rebuilder, call: Call) -> slice:
    start, stop, step = plain(call, 3)
    if any(part is not None and type(part) is not int for part in (start, stop, step)):
        raise ArchiveError("a slice is not made of integers")
    return slice(start, stop, step)


def _complex(r: Rebuilder, call: Call) -> complex:
    real, imaginary = plain(call, 2)
    return complex(r.of(real, float), r.of(imaginary, float))


def _path(kind: type[PurePath]) -> Grant:
    # Pure paths: the archive of one system must read on another.
    return lambda r, call: kind(*[r.of(part, str) for part in call.args])


_BUILTINS = ("builtins", "__builtin__")
PLAIN_GRANTS: dict[str, Grant] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _counter,
    **{f"{b}.bytes": _empty_or_bytes for b in _BUILTINS},
    **{f"{b}.bytearray": _empty_or_bytes for b in _BUILTINS},
    **{f"{b}.set": _collection(set) for b in _BUILTINS},
    **{f"{b}.frozenset": _collection(frozenset) for b in _BUILTINS},
    **{f"{b}.slice": _slice for b in _BUILTINS},
    **{f"{b}.complex": _complex for b in _BUILTINS},
    **dict.fromkeys(("pathlib.PosixPath", "pathlib.PurePosixPath"), _path(PurePosixPath)),
    **dict.fromkeys(("pathlib.WindowsPath", "pathlib.PureWindowsPath"), _path(PureWindowsPath)),
}
