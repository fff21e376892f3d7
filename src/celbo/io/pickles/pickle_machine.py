"""Read a pickle into a tree of plain data and inert nodes. Nothing named in the pickle is imported, called or built
here.

A pickle is a small program for a stack machine. This one runs the program with every import turned into a
:class:`Name` and every call into a :class:`Call`: two records that say what was asked for. What may become of them is
decided afterwards, by :mod:`celbo.io.pickles.unpickle`, against a table of what an archive may hold. Python's
``pickletools.genops`` splits the bytes into opcodes (it runs nothing either).
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from ..budget import Budget, bounded
from ..errors import ArchiveError

__all__ = ["Call", "DictItems", "Name", "PersistentId", "SetItems", "run_pickle"]

MAX_INSTRUCTIONS = 2_500_000
"""A pickle with more is refused: each may cost 60 bytes and 2 us. One million strings are two million instructions."""
_CALL_BYTES, _DICT_BYTES, _MEMO_BYTES = 500, 200, 100
"""What those take that are large beside the few bytes that ask for them."""


@dataclass(eq=False, slots=True)
class Name:
    """A module attribute that the pickle asks for, for example ``numpy`` / ``ndarray``."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}"


@dataclass(eq=False, slots=True)
class Call:
    """A call that the pickle asks for, with what it would then put into the result.

    Attributes
    ----------
    function
        What would be called; only a :class:`Name` can ever be granted.
    args, kwargs
        Its arguments, unevaluated.
    states
        The arguments of ``BUILD`` (``__setstate__``), in order.
    items, elements
        Pairs set into the result (``SETITEMS``), values appended or added to it.
    """

    function: object
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    states: list[Any] = field(default_factory=list)
    items: list[tuple[Any, Any]] = field(default_factory=list)
    elements: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class PersistentId:
    """A reference to something outside the pickle: in torch's files, to a storage."""

    value: object


@dataclass(eq=False, slots=True)
class DictItems:
    """A dict under construction: pairs, because a key may be a node that does not hash yet."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class SetItems:
    """A set or frozenset under construction."""

    elements: list[Any] = field(default_factory=list)
    frozen: bool = False


class _Mark:
    """The bottom of a group on the stack."""


_MARK = _Mark()


class _Machine:
    """Stack and memo of one pickle program."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.references: list[PersistentId] = []

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ArchiveError("an instruction takes a value that was never put there")
        return self.stack.pop()

    def peek(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                group = self.stack[i + 1 :]
                del self.stack[i:]
                return group
        raise ArchiveError("an instruction closes a group that was never opened")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_large(self, value: object, n_bytes: int) -> None:
        self.budget.charge(n_bytes)
        self.stack.append(value)

    def keep(self, index: int, value: object) -> None:
        self.budget.charge(_MEMO_BYTES)
        self.memo[index] = value


def _pairs(group: list[Any]) -> list[tuple[Any, Any]]:
    if len(group) % 2:
        raise ArchiveError("a dictionary has a key without a value")
    return list(zip(group[::2], group[1::2], strict=True))


def _set_items(machine: _Machine, pairs: list[tuple[Any, Any]]) -> None:
    target = machine.peek()
    if not isinstance(target, DictItems | Call):
        raise ArchiveError(f"items are set into a {type(target).__name__}")
    target.items.extend(pairs)


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.peek()
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, SetItems | Call):
        target.elements.extend(values)
    else:
        raise ArchiveError(f"elements are added to a {type(target).__name__}")


def _build(machine: _Machine) -> None:
    state = machine.pop()
    target = machine.peek()
    if not isinstance(target, Call):
        raise ArchiveError(f"a state is set on a {type(target).__name__}")
    target.states.append(state)


def _reduce(machine: _Machine) -> None:
    args = machine.pop()
    if not isinstance(args, tuple):
        raise ArchiveError("a call has arguments that are no tuple")
    machine.push_large(Call(machine.pop(), args), _CALL_BYTES)


def _newobj_ex(machine: _Machine) -> None:
    kwargs = machine.pop()
    args = machine.pop()
    if not isinstance(kwargs, DictItems) or not isinstance(args, tuple):
        raise ArchiveError("a call has arguments of the wrong kind")
    named = {key: value for key, value in kwargs.items if isinstance(key, str)}
    machine.push_large(Call(machine.pop(), args, named), _CALL_BYTES)


def _global(machine: _Machine, arg: str) -> None:
    module, _, qualname = arg.partition(" ")
    machine.push(Name(module, qualname))


def _stack_global(machine: _Machine) -> None:
    qualname = machine.pop()
    module = machine.pop()
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise ArchiveError("an import is named by something that is no text")
    machine.push(Name(module, qualname))


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise ArchiveError("an instruction recalls a value that was never stored")
    machine.push(machine.memo[index])


def _put(machine: _Machine, index: int) -> None:
    machine.keep(index, machine.peek())


def _memoize(machine: _Machine) -> None:
    machine.keep(len(machine.memo), machine.peek())


def _set_item(machine: _Machine) -> None:
    value = machine.pop()
    _set_items(machine, [(machine.pop(), value)])


def _refer(machine: _Machine) -> None:
    machine.references.append(PersistentId(machine.pop()))
    machine.push(machine.references[-1])


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, arg: object) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return make


def _push_arg(machine: _Machine, arg: object) -> None:
    machine.push(arg)


def _push_integer(machine: _Machine, arg: int) -> None:
    machine.push(bounded(arg))


def _nothing(machine: _Machine, arg: object) -> None:
    """Framing and protocol marks carry no value."""


_OPCODES: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.push(m.peek()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.pop_mark()),
    "APPEND": lambda m, _: _append(m, [m.pop()]),
    "APPENDS": lambda m, _: _append(m, m.pop_mark()),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "EMPTY_DICT": lambda m, _: m.push_large(DictItems(), _DICT_BYTES),
    "DICT": lambda m, _: m.push_large(DictItems(_pairs(m.pop_mark())), _DICT_BYTES),
    "SETITEM": lambda m, _: _set_item(m),
    "SETITEMS": lambda m, _: _set_items(m, _pairs(m.pop_mark())),
    "EMPTY_SET": lambda m, _: m.push_large(SetItems(), _DICT_BYTES),
    "ADDITEMS": lambda m, _: _append(m, m.pop_mark()),
    "FROZENSET": lambda m, _: m.push_large(SetItems(m.pop_mark(), frozen=True), _DICT_BYTES),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, _: _stack_global(m),
    "REDUCE": lambda m, _: _reduce(m),
    "NEWOBJ": lambda m, _: _reduce(m),
    "NEWOBJ_EX": lambda m, _: _newobj_ex(m),
    "BUILD": lambda m, _: _build(m),
    "BINPERSID": lambda m, _: _refer(m),
    "MEMOIZE": lambda m, _: _memoize(m),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"), _push_arg),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), _push_integer),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"), _push_arg),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push_arg),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push_arg),
}


def run_pickle(data: BytesIO, budget: Budget, references: list[PersistentId] | None = None) -> Any:
    """Run one pickle program and return its tree; the stream is left just behind it.

    Parameters
    ----------
    data
        The bytes, at the beginning of a pickle.
    budget
        What may be made of the file.
    references
        Gets every :class:`PersistentId` in the order met, when given.

    Returns
    -------
    Plain values (None, bool, int, float, str, bytes, tuple, list), :class:`DictItems`, :class:`SetItems`,
    :class:`Name`, :class:`Call` and :class:`PersistentId`. The tree may share parts and may even contain itself.

    Raises
    ------
    ArchiveError
        The program is cut short, malformed, or uses an instruction no archive needs (extension registry, out-of-band
        buffers, ``INST``, ``OBJ``).
    """
    machine = _Machine(budget)
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                break
            if count >= MAX_INSTRUCTIONS:
                raise ArchiveError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
            action = _OPCODES.get(opcode.name)
            if action is None:
                raise ArchiveError(f"it uses the pickle instruction {opcode.name}, which no archive needs")
            action(machine, arg)
    except ArchiveError:
        raise
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise ArchiveError(f"its pickle is damaged ({error})") from error
    if references is not None:
        references.extend(machine.references)
    return machine.pop()
