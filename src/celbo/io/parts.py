"""What the parts of a saved document must be: declared as a value, checked by one function.

A file may hold anything where a name of the right kind stands: its checksums say that it is whole, not that it makes
sense. What is not what it must be is named here, before anything is made of it, not where a verb stumbles over it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import ArchiveError, blaming

__all__ = [
    "ANYTHING",
    "FLAG",
    "LABEL",
    "LIST",
    "MISSING",
    "NAMES",
    "NUMBER",
    "SIZE",
    "TENSOR",
    "TEXT",
    "WHOLE",
    "Part",
    "both",
    "check",
    "every",
    "exactly",
    "is_whole",
    "like",
    "listed",
    "names",
    "or_none",
]

MISSING: Final = object()
"""Stands for a part that is not there."""
_LETTERS = 60
Inner = Callable[[Any], Iterable[tuple[Any, Any, "Part"]]]


@dataclass(frozen=True)
class Part:
    """What a part must be.

    Attributes
    ----------
    wanted
        What it is, for a message.
    is_right
        Whether a value is of that kind, what lies in it apart.
    inner
        What lies in a value that is: key (None: the value itself), value, and what that must be.
    """

    wanted: str
    is_right: Callable[[Any], bool]
    inner: Inner = lambda value: ()


def check(path: Path, name: str, value: object, part: Part) -> None:
    """Refuse a part that is not what it must be.

    Parameters
    ----------
    path, name
        File and name of the part, for the message.
    value
        What the file has there.
    part
        What it must be.

    Raises
    ------
    ArchiveError
        Names file and place, what stands there and what was wanted.
    """
    with blaming(path, name):
        _check("", value, part)


def _check(place: str, value: object, part: Part) -> None:
    if not part.is_right(value):
        raise ArchiveError(f"{place or 'it'} is {_described(value)}, wanted {part.wanted}")
    for key, inside, wanted in part.inner(value):
        _check(place if key is None else f"{place}[{str(key)[:_LETTERS]!r}]", inside, wanted)


def _described(value: object) -> str:
    if value is MISSING:
        return "missing"
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."


# -- values that hold no others
# ------------------------------------------------------------------------------------------------------------------

_LISTS = (list, tuple, np.ndarray, pd.Index)
_NESTED = (Mapping, np.ndarray, list, tuple, set)


def is_whole(value: object) -> bool:
    """Whether a value is an integer, of Python or numpy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_flat(value: object) -> bool:
    """A list of anything that is not nested: texts, numbers, times, intervals; missing ones as pandas had them once."""
    if not isinstance(value, _LISTS) or (isinstance(value, np.ndarray) and value.ndim != 1):
        return False
    return not any(issubclass(kind, _NESTED) for kind in set(map(type, value)))


ANYTHING = Part("anything", lambda value: value is not MISSING)
TEXT = Part("a text", lambda value: isinstance(value, str))
FLAG = Part("true or false", lambda value: isinstance(value, bool | np.bool_))
WHOLE = Part("a whole number", is_whole)
SIZE = Part("a whole number from 0", lambda value: is_whole(value) and 0 <= int(value) < 2**53)
NUMBER = Part("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
LABEL = Part("a text or number", lambda value: isinstance(value, str | int | float | np.generic | None))
TENSOR = Part("a tensor", lambda value: isinstance(value, Tensor))
LIST = Part("a list of texts or numbers", _is_flat)

# -- values that hold others
# ------------------------------------------------------------------------------------------------------------------


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


NAMES = Part("a dictionary of names", _is_named)


def names(
    needed: Mapping[str, Part] | None = None, maybe: Mapping[str, Part] | None = None, rest: Part | None = None
) -> Part:
    """A dictionary of names, each with a kind of its own.

    Parameters
    ----------
    needed, maybe
        Names that must be there, and those that are looked at where they are.
    rest
        What all other names hold. None: what they like.
    """
    needed, maybe = needed or {}, maybe or {}

    def inner(value: Mapping[str, Any]) -> Iterable[tuple[str, Any, Part]]:
        yield from ((name, value.get(name, MISSING), part) for name, part in needed.items())
        for name, inside in value.items():
            part = maybe.get(name, rest)
            if part is not None and name not in needed:
                yield name, inside, part

    return Part(NAMES.wanted, _is_named, inner)


def every(part: Part) -> Part:
    """A dictionary of names with values of one kind."""
    return names(rest=part)


def listed(part: Part) -> Part:
    """A list of values of one kind."""
    return Part("a list", _is_list, lambda value: ((i, inside, part) for i, inside in enumerate(value)))


def exactly(parts: Sequence[Part]) -> Part:
    """A list of as many values, each with a kind of its own."""
    return Part(
        f"a list of {len(parts)}",
        lambda value: _is_list(value) and len(value) == len(parts),
        lambda value: ((i, inside, part) for i, (inside, part) in enumerate(zip(value, parts, strict=True))),
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def both(first: Part, *others: Part) -> Part:
    """A value that is all of several: the others may take for granted that it is the first, to its innermost."""
    return Part(
        first.wanted,
        first.is_right,
        lambda value: (*first.inner(value), *((None, value, other) for other in others)),
    )


def or_none(part: Part) -> Part:
    """The same, or None."""
    return Part(
        f"{part.wanted} or None",
        lambda value: value is None or part.is_right(value),
        lambda value: () if value is None else part.inner(value),
    )


def like(present: object) -> Part:
    """A value as the one that is there now: what is None on either side may be anything, if it is no tensor.

    Parameters
    ----------
    present
        A dictionary stands for its names, and more; a list for its elements, and for longer and shorter ones; a tensor
        for its shape and sort of numbers; a number for any; all else for its type.
    """
    if isinstance(present, Tensor):
        return Part(_described(present), lambda value: isinstance(value, Tensor) and _sort(value) == _sort(present))
    if isinstance(present, Mapping):
        part = names({str(name): like(value) for name, value in present.items()})
    elif isinstance(present, list | tuple):
        parts = [like(value) for value in present]
        part = Part(
            "a list", _is_list, lambda value: ((i, v, p) for i, (v, p) in enumerate(zip(value, parts, strict=False)))
        )
    elif isinstance(present, int | float) and not isinstance(present, bool):
        part = NUMBER
    else:
        kind = type(present)
        part = Part(f"a {kind.__name__}", lambda value: isinstance(value, kind))
    return ANYTHING if present is None else or_none(part)


def _sort(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype.is_floating_point, tensor.dtype == torch.bool
