"""Which category a user means: by value, then by text, so that ``1`` finds ``"1"`` and the other way round."""

from collections.abc import Iterable, Sequence
from typing import Any

from .errors import unknown_name
from .kinds import shape_of

__all__ = ["listed", "position_of"]


def listed(given: object) -> list[Any]:
    """One value or several, as a list; text and numbers are one."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable) or shape_of(given) == ():
        return [given]
    return list(given)


def position_of(given: object, known: Sequence[Any], what: str) -> int:
    """Where a category is among those that there are.

    Parameters
    ----------
    given
        The category, or another value of the same text: ``1`` and ``1.0`` for ``"1"``, ``"1"`` for ``1``.
    known
        The categories.
    what
        What they are, for example ``"batch category"``.

    Raises
    ------
    ValueError
        There is none, or there are several of that text; names the nearest, and the types where they differ.
    """
    same = [i for i, one in enumerate(known) if _equal(given, one)]
    alike = same or [i for i, one in enumerate(known) if _text(given) & _text(one)]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(unknown_name(what, _plain(given), map(_plain, known)) + _types(given, known))


def _equal(given: object, one: object) -> bool:
    if _is_bool(given) != _is_bool(one):
        return False
    try:
        return bool(given == one)
    except (TypeError, ValueError):  # an array, which is no category
        return False


def _plain(value: object) -> Any:
    return value.item() if hasattr(value, "item") and shape_of(value) == () else value


def _is_bool(value: object) -> bool:
    return isinstance(_plain(value), bool)


def _text(value: object) -> set[str]:
    """As it may be typed: a whole float also without its point."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return {str(value)}
    return {str(value), str(int(value))} if isinstance(value, float) and value.is_integer() else {str(value)}


def _types(given: object, known: Sequence[Any]) -> str:
    kinds = sorted({type(_plain(one)).__name__ for one in known})
    kind = type(_plain(given)).__name__
    return "" if not kinds or kind in kinds else f" They are of type {' and '.join(kinds)}, this is of type {kind}."
