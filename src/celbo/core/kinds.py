"""Kinds of arguments: what may be given, as what it is taken, and how it is reported. No torch here.

A kind gives the value to go on with, or :data:`REFUSED`. Whole floats (R passes every number as a float), scalars of
numpy and arrays of no dimension are taken as the numbers they are; booleans are no numbers.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

__all__ = [
    "REFUSED",
    "AnyOf",
    "Flag",
    "Instance",
    "Kind",
    "Number",
    "OneOf",
    "Several",
    "Text",
    "Whole",
    "described",
    "shape_of",
]

REFUSED: Final = object()
"""What a kind gives for a value that it does not take."""

_SHOWN = 60


def shape_of(value: object) -> tuple[int, ...] | None:
    """Shape of an array, a tensor or a table, also of another framework; None for what has none."""
    shape = getattr(value, "shape", None)
    return shape if isinstance(shape, tuple) else None


def described(value: object) -> str:
    """A value in a message: short ones as they are typed, tables and long ones by what they are."""
    if shape := shape_of(value):
        name = type(value).__name__
        return f"{_article('array' if name == 'ndarray' else name)} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= _SHOWN and "\n" not in text else _article(type(value).__name__)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def _plain(value: object) -> Any:
    """Scalars of numpy, and arrays and tensors without dimension, as numbers of Python."""
    if hasattr(value, "item") and shape_of(value) == ():
        return value.item()
    return value


def _is_finite_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


class Kind:
    """A kind of argument.

    Attributes
    ----------
    wanted
        What may be given, after "must be".
    types
        Types of Python that it is about.
    """

    wanted: str
    types: frozenset[type] = frozenset()

    def __repr__(self) -> str:
        return self.wanted  # what help() shows of an annotation

    def take(self, value: object) -> Any:
        """The value to go on with, or :data:`REFUSED`."""
        raise NotImplementedError

    def hint(self, value: object) -> str:
        """What else to say of a value that is not taken: the nearest word, a way to make it right."""
        return ""


class Whole(Kind):
    """A whole number.

    Attributes
    ----------
    least, most
        The smallest and the largest that may be given; None: there is no bound.
    """

    types = frozenset({int})

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.least, self.most = least, most

    @property
    def wanted(self) -> str:  # type: ignore[override]
        """What may be given."""
        if self.least is None:
            return "a whole number"
        return f"a whole number of at least {self.least}" + ("" if self.most is None else f" and at most {self.most}")

    def take(self, value: Any) -> Any:
        """The number as an ``int``."""
        value = _plain(value)
        if not _is_finite_number(value):
            return REFUSED
        whole = int(value)
        too_small = self.least is not None and whole < self.least
        too_large = self.most is not None and whole > self.most
        return REFUSED if whole != value or too_small or too_large else whole


class Number(Kind):
    """A finite number.

    Attributes
    ----------
    least, most
        Bounds; None: there is none.
    above, below
        Whether the bounds themselves are left out.
    """

    types = frozenset({int, float})

    def __init__(
        self, least: float | None = None, most: float | None = None, above: bool = False, below: bool = False
    ) -> None:
        self.least, self.most, self.above, self.below = least, most, above, below

    @property
    def wanted(self) -> str:  # type: ignore[override]
        """What may be given."""
        low = "" if self.least is None else f"greater than {self.least}" if self.above else f"of at least {self.least}"
        high = "" if self.most is None else f"less than {self.most}" if self.below else f"at most {self.most}"
        return " ".join(part for part in ("a number", " and ".join(filter(None, (low, high)))) if part)

    def take(self, value: Any) -> Any:
        """The number, an ``int`` or a ``float``."""
        value = _plain(value)
        if not _is_finite_number(value):
            return REFUSED
        if self.least is not None and (value < self.least or (self.above and value == self.least)):
            return REFUSED
        if self.most is not None and (value > self.most or (self.below and value == self.most)):
            return REFUSED
        return value


class Flag(Kind):
    """True or False; also 0 and 1, and None for False."""

    wanted = "True or False"
    types = frozenset({bool})

    def take(self, value: object) -> Any:
        """The value as a ``bool``."""
        value = False if value is None else _plain(value)
        if isinstance(value, bool):
            return value
        return bool(value) if isinstance(value, numbers.Real) and value in (0, 1) else REFUSED


class Text(Kind):
    """Text."""

    wanted = "text"
    types = frozenset({str})

    def take(self, value: object) -> Any:
        """The text."""
        return value if isinstance(value, str) else REFUSED


class OneOf(Kind):
    """One of a few words or other values, compared by value.

    Attributes
    ----------
    words
        What there is.
    """

    def __init__(self, words: Iterable[Any]) -> None:
        self.words = tuple(words)

    @property
    def wanted(self) -> str:  # type: ignore[override]
        """What may be given."""
        *most, last = map(repr, self.words)
        return f"{', '.join(most)} or {last}" if most else last

    @property
    def types(self) -> frozenset[type]:  # type: ignore[override]
        """Types of the words."""
        return frozenset(map(type, self.words))

    def take(self, value: object) -> Any:
        """The word itself."""
        value = _plain(value)
        for word in self.words:
            if isinstance(value, bool) == isinstance(word, bool) and isinstance(value, type(word)) and value == word:
                return word
        return REFUSED

    def hint(self, value: object) -> str:
        """The nearest word."""
        if not isinstance(value, str):
            return ""
        words = {str(word).lower(): word for word in self.words if isinstance(word, str)}
        near = difflib.get_close_matches(value.lower(), words, n=1)
        return f" Did you mean {words[near[0]]!r}?" if near else ""


class Instance(Kind):
    """Something that can be told by what it has or does.

    Attributes
    ----------
    wanted
        What may be given.
    is_one
        Tells whether a value is one.
    advice
        What to do about another.
    """

    def __init__(
        self, wanted: str, is_one: Callable[[Any], bool], advice: str = "", types: frozenset[type] = frozenset()
    ) -> None:
        self.wanted, self.is_one, self.advice, self.types = wanted, is_one, advice, types

    def take(self, value: object) -> Any:
        """The value."""
        return value if self.is_one(value) else REFUSED

    def hint(self, value: object) -> str:
        """The advice."""
        return f" {self.advice}" if self.advice else ""


class Several(Kind):
    """One or several of a kind: several come as a list.

    Attributes
    ----------
    kind
        Of each.
    or_none_of_it
        Whether the list may be empty.
    """

    def __init__(self, kind: Kind, or_none_of_it: bool = False) -> None:
        self.kind, self.or_none_of_it = kind, or_none_of_it

    @property
    def wanted(self) -> str:  # type: ignore[override]
        """What may be given."""
        return f"{self.kind.wanted}, or a list of such" + ("" if self.or_none_of_it else " that is not empty")

    @property
    def types(self) -> frozenset[type]:  # type: ignore[override]
        """Types of one."""
        return self.kind.types

    def take(self, value: object) -> Any:
        """One as it is taken, several as a list."""
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable) or shape_of(value) == ():
            return self.kind.take(value)
        taken = [self.kind.take(one) for one in value]
        too_few = not taken and not self.or_none_of_it
        return REFUSED if too_few or any(one is REFUSED for one in taken) else taken


class AnyOf(Kind):
    """Any of several kinds, tried in turn.

    Attributes
    ----------
    kinds
        The kinds.
    """

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds

    @property
    def wanted(self) -> str:  # type: ignore[override]
        """What may be given."""
        return " or ".join(kind.wanted for kind in self.kinds)

    @property
    def types(self) -> frozenset[type]:  # type: ignore[override]
        """Types of all of them."""
        return frozenset().union(*(kind.types for kind in self.kinds))

    def take(self, value: object) -> Any:
        """As the first kind that takes it."""
        for kind in self.kinds:
            if (taken := kind.take(value)) is not REFUSED:
                return taken
        return REFUSED

    def hint(self, value: object) -> str:
        """The first that has something to say."""
        return next(filter(None, (kind.hint(value) for kind in self.kinds)), "")
