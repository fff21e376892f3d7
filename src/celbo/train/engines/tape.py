"""Minibatches done again on the CPU as a list of operations, without modules and without autograd.

A step of a small network is some hundreds of operations, each of which takes torch a few microseconds: what modules,
autograd and its bookkeeping add takes longer. A tape notes what one minibatch asked torch for, below autograd, and
writes it down as a function that asks for the same again: same operations, same order, same bits. What is noted is
computed, too, and a minibatch's tensors live only as long as the next operation that wants them.
"""

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from ...ops.calls import listening
from .graphs import CannotBeRecorded, Recorded, Watch

__all__ = ["Tapes"]

Result = TypeVar("Result")

_SAME_TENSOR = ("aten::detach", "aten::alias")


@dataclass(eq=False)
class _Name:
    """A tensor in the function that is written.

    Attributes
    ----------
    text
        Its name there.
    tensor
        The tensor, for as long as it lives.
    is_kept
        Whether it was there before and stays where it is: a weight, a running mean, a number.
    """

    text: str
    tensor: Callable[[], Tensor | None]
    is_kept: bool = False


@dataclass
class _Entry:
    """One operation: what is called with what, and the names of what comes back."""

    text: str
    takes: set[str]
    gives: set[str]
    has_effects: bool


class _Tape(TorchDispatchMode):
    """Notes operations while they are done.

    Parameters
    ----------
    given
        The tensors of the minibatch.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.entries: list[_Entry] = []
        self.constants: dict[str, Any] = {}
        self._by_value: dict[int, str] = {}
        self._names: dict[int, _Name] = {}
        self._numbers = itertools.count()
        self._given = given
        self.given = [self._new("x", tensor).text for tensor in given]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see Watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do one operation, and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.name()
        if name in _SAME_TENSOR:
            known = self._name_of(args[0])
            self._names[result._cdata] = _Name(known.text, weakref.ref(result), known.is_kept)
        elif name == "aten::empty.memory_format" and result.layout == torch.strided and "memory_format" not in kwargs:
            self._note(torch.empty, (list(result.shape),), {"dtype": result.dtype}, result, has_effects=False)
        elif _is_view(func) and all(self._name_of(tensor).is_kept for tensor in _tensors((args, kwargs))):
            for tensor in _tensors(result):
                self._keep(tensor)
        else:
            self._note(_entrance(func, args), args, kwargs, result, _has_effects(func))
        return result

    def as_one(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Do a piece that is one operation, and note it."""
        with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
            result = function(*args)
        self._note(function, args, {}, result, has_effects=True, may_be_another=True)
        return result

    def _note(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: object,
        has_effects: bool,
        may_be_another: bool = False,
    ) -> None:
        takes: set[str] = set()
        parts = [self._written(arg, takes) for arg in args]
        parts += [f"{key}={self._written(value, takes)}" for key, value in kwargs.items()]
        call = f"{self._bound(function)}({', '.join(parts)})"
        gives: set[str] = set()
        target = self._target(result, gives, may_be_another)
        if gives or has_effects:
            self.entries.append(_Entry(f"{target} = {call}" if gives else call, takes, gives, has_effects))

    def _target(self, result: object, gives: set[str], may_be_another: bool) -> str:
        """What an operation's result is assigned to; a tensor that was there before keeps its name."""
        if isinstance(result, tuple | list):
            return f"({''.join(self._target(part, gives, may_be_another) + ', ' for part in result)})"
        if not isinstance(result, Tensor) or (self._known(result) is not None and not may_be_another):
            return "_"
        name = self._new("t", result).text
        gives.add(name)
        return name

    def _new(self, kind: str, tensor: Tensor) -> _Name:
        name = _Name(f"{kind}{next(self._numbers)}", weakref.ref(tensor))
        self._names[tensor._cdata] = name
        return name

    def _known(self, tensor: Tensor) -> _Name | None:
        """The name of a tensor; None for one that is new, though it may lie where a former one lay."""
        name = self._names.get(tensor._cdata)
        return name if name is not None and name.tensor() is tensor else None

    def _name_of(self, tensor: Tensor) -> _Name:
        return self._known(tensor) or self._keep(tensor)

    def _keep(self, tensor: Tensor) -> _Name:
        name = self._names[tensor._cdata] = _Name(self._bound(tensor), lambda: tensor, is_kept=True)
        return name

    def _bound(self, value: object) -> str:
        """The name of something that the function is bound to."""
        key = id(value)  # stays its own: the constants hold it
        if key not in self._by_value:
            self._by_value[key] = f"c{len(self.constants)}"
            self.constants[self._by_value[key]] = value
        return self._by_value[key]

    def _written(self, value: object, takes: set[str]) -> str:
        """An argument as source code."""
        if isinstance(value, Tensor):
            name = self._name_of(value).text
            takes.add(name)
            return name
        if isinstance(value, tuple | list):
            inner = "".join(self._written(part, takes) + ", " for part in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        return self._bound(value)

    def outlived(self) -> Iterator[tuple[Tensor, str]]:
        """Tensors that were made and are still there, with their names: somebody looks at them after the minibatch."""
        for name in self._names.values():
            tensor = name.tensor()
            if tensor is None or name.is_kept or any(tensor is given for given in self._given):
                continue
            if any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)):
                raise CannotBeRecorded("a table is left whose entries lie in one place")
            yield tensor, name.text

    def name_of_gradient(self, gradient: Tensor) -> str:
        """The name of a gradient that the minibatch has left."""
        name = self._known(gradient)
        if name is None or name.is_kept:
            raise CannotBeRecorded("a gradient comes from elsewhere")
        return name.text

    def written(self, results: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
        """The function: tensors of a minibatch -> the tensors with these names."""
        lines = [f"    {line}" for line in _with_ends(_needed(self.entries, set(results)), set(results))]
        given = "".join(f"{name}, " for name in self.given)
        bound = "".join(f"{name}={name}, " for name in self.constants)
        source = f"def again({given}{bound}):\n" + "\n".join(
            [*lines, f"    return ({''.join(f'{r}, ' for r in results)})"]
        )
        scope = dict(self.constants)
        exec(compile(source, "<tape>", "exec"), scope)
        return scope["again"]


def _has_effects(func: OpOverload) -> bool:
    """Whether an operation changes a tensor or a generator; that of running means does not say so."""
    changes = func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags
    return changes or "batch_norm" in func._schema.name


def _is_view(func: OpOverload) -> bool:
    return any(made.alias_info is not None and not made.alias_info.is_write for made in func._schema.returns)


def _entrance(func: OpOverload, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The entrance that torch made for an operation takes half as long as the general one."""
    if any(part is None for arg in args if isinstance(arg, list) for part in arg):  # which that one does not take
        return func
    name = func._schema.name.removeprefix("aten::")
    found: Any = vars(torch).get(name) or vars(torch._C.TensorBase).get(name)
    generated = isinstance(found, BuiltinFunctionType | MethodDescriptorType)
    return found if generated and func.namespace == "aten" else func


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _needed(entries: Sequence[_Entry], wanted: set[str]) -> list[_Entry]:
    """Without what nobody looks at."""
    wanted, kept = set(wanted), []
    for entry in reversed(entries):
        if entry.has_effects or entry.gives & wanted:
            kept.append(entry)
            wanted |= entry.takes
    return kept[::-1]


def _with_ends(entries: Sequence[_Entry], results: set[str]) -> Iterator[str]:
    """The lines, and after each the end of what no later one wants."""
    last = {name: i for i, entry in enumerate(entries) for name in entry.takes | entry.gives}
    for i, entry in enumerate(entries):
        yield entry.text
        ended = [name for name in sorted(entry.takes | entry.gives) if last[name] == i and name.startswith("t")]
        if ended := [name for name in ended if name not in results]:
            yield f"del {', '.join(ended)}"


class Tapes:
    """:class:`.graphs.Graphs` on the CPU: what is recorded is done, too, and optimizers move outside of it."""

    device = torch.device("cpu")
    moves = False

    def place(self, batch: Result) -> Result:
        """The minibatch: it is handed on at each replay."""
        return batch

    def record(
        self, compute: Callable[[], Result], given: Sequence[Tensor], parameters: Iterable[Tensor] = ()
    ) -> Recorded[Result]:
        """See :class:`.graphs.Graphs`."""
        tape = _Tape(given)
        with listening(tape.as_one), tape:
            result = compute()
        try:
            return Recorded(result, _replay_of(tape, parameters), is_done=True)
        except CannotBeRecorded as error:
            return Recorded(result, None, is_done=True, why_not=str(error))

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """See :class:`.graphs.Graphs`."""
        found: list[str] = []
        with Watch(found), listening(_unwatched):
            yield found


def _unwatched(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
        return function(*args)


def _replay_of(tape: _Tape, parameters: Iterable[Tensor]) -> Callable[[Sequence[Tensor]], None]:
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [tape.name_of_gradient(parameter.grad) for parameter in moved if parameter.grad is not None]
    of_moved = {id(parameter.grad) for parameter in moved}
    seen = [(tensor, name) for tensor, name in tape.outlived() if id(tensor) not in of_moved]
    again = tape.written([*gradients, *(name for _, name in seen)])
    n, places = len(moved), [tensor.detach() for tensor, _ in seen]

    def replay(given: Sequence[Tensor]) -> None:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            made = again(*given)
            if places:
                torch._foreach_copy_(places, made[n:])
        for parameter, gradient in zip(moved, made, strict=False):
            parameter.grad = gradient

    return replay
