"""Errors that say what came, what was wanted and what to do."""

import difflib
import re
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["DataMismatchError", "MinifiedDataError", "misspelt", "nearest_first", "noted", "number_of", "unknown_name"]

_E = TypeVar("_E", bound=BaseException)


class MinifiedDataError(ValueError):
    """Minified data where a model wants counts: true of the data, whichever archive they are loaded with."""


class DataMismatchError(ValueError):
    """Data do not fit a model that was trained on others.

    Parameters
    ----------
    message
        What does not fit, in the words of Python.
    on_command_line
        The same in the words of the command line, which has other remedies.
    """

    def __init__(self, message: str, on_command_line: str) -> None:
        super().__init__(message)
        self.on_command_line = on_command_line

    def __reduce__(self) -> "tuple[type[DataMismatchError], tuple[str, str]]":
        return type(self), (str(self), self.on_command_line)


def noted(error: _E, note: str) -> _E:
    """The error with a note below its message, for a message that code of others compares with scvi-tools' own."""
    error.add_note(note)
    return error


def nearest_first(given: object, known: Iterable[object], limit: int = 10) -> list[str]:
    """Names in ``known``, the ones most like ``given`` first, at most ``limit`` of them."""
    target = str(given).lower()
    scored = [
        (-difflib.SequenceMatcher(None, target, str(name).lower()).ratio(), i, str(name))
        for i, name in enumerate(known)
    ]
    return [name for _, _, name in sorted(scored)[:limit]]


def misspelt(given: object, known: Iterable[object]) -> str | None:
    """The one among names that ``given`` is with a slip of the keys: other capitals, or a letter too many or too few.

    Names that differ by a number or by a single letter of their own, as ``"CD4"`` and ``"CD8"`` or ``"type a"`` and
    ``"type b"``, are two names, and no slip.
    """
    words = _words(given)
    return next((name for name in map(str, known) if name != str(given) and _is_slip(words, _words(name))), None)


def _words(name: object) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", str(name).casefold())


def _is_slip(words: list[str], others: list[str]) -> bool:
    if not words or len(words) != len(others):
        return False
    changed = [pair for pair in zip(words, others) if pair[0] != pair[1]]
    return len(changed) <= 1 and all(_is_close(*pair) for pair in changed)


def _is_close(word: str, other: str) -> bool:
    long_enough = min(len(word), len(other)) >= 5 and word.isalpha() and other.isalpha()
    return long_enough and difflib.SequenceMatcher(None, word, other).ratio() > 0.83


def number_of(count: int, noun: str) -> str:
    """How many of something there are: ``"1 epoch"``, ``"1,200 epochs"``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def unknown_name(what: str, given: object, known: Iterable[object]) -> str:
    """Message for a name that does not exist.

    Parameters
    ----------
    what
        What was looked up, for example ``"column of adata.obs"``.
    given
        The name that was asked for.
    known
        The names that exist.

    Returns
    -------
    One sentence with the nearest existing names first, for example
    ``No column of adata.obs is called 'bach'. Did you mean 'batch'? There are: 'batch', 'donor'.``
    """
    known = list(known)
    if not known:
        return f"No {what} is called {given!r}: there are none."
    near = nearest_first(given, known)
    close = difflib.get_close_matches(str(given).lower(), [name.lower() for name in near], n=1)
    hint = f" Did you mean {next(n for n in near if n.lower() == close[0])!r}?" if close else ""
    more = f" and {len(known) - len(near)} more" if len(known) > len(near) else ""
    return f"No {what} is called {given!r}.{hint} There are: {', '.join(map(repr, near))}{more}."
