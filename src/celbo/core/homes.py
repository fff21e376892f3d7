"""Where an argument belongs that was given to something else."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeVar

__all__ = ["Home", "home_of", "homes_among", "sent_home", "usually"]

F = TypeVar("F", bound=Callable[..., Any])


class Home(NamedTuple):
    """A function that takes arguments, as one around it may be told of them.

    Attributes
    ----------
    keyword
        Argument by which functions pass others on to it, such as ``"train_kwargs"``.
    owner
        Its name.
    known
        Names of its arguments.
    call
        How it is called, with ``{}`` for the argument.
    """

    keyword: str
    owner: str
    known: Collection[str]
    call: str


def homes_among(given: Iterable[object]) -> tuple[Home, ...]:
    """Homes that the first of some objects tells of that can tell of any: a model, or the class of one."""
    for one in given:
        tell = getattr(one if isinstance(one, type) else type(one), "_argument_homes", None)
        if tell is not None:
            return tuple(tell())
    return ()


def usually(cls: type) -> Callable[[F], F]:
    """Let a function send arguments to the homes of the class that it makes a model of where none is given."""

    def mark(function: F) -> F:
        function.__celbo_usual__ = cls  # type: ignore[attr-defined]
        return function

    return mark


def home_of(argument: str, homes: Iterable[Home]) -> Home | None:
    """The first home that knows an argument."""
    return next((home for home in homes if argument in home.known), None)


def sent_home(argument: str, value: object, of_what: str, home: Home, known: Collection[str]) -> str:
    """Message about an argument that goes elsewhere.

    Parameters
    ----------
    argument, value
        As it was given.
    of_what
        What it was given to.
    home
        Where it goes.
    known
        Arguments of what it was given to, which may pass others on.

    Returns
    -------
    For example ``max_epochs is an argument of SCVI.train, not of SCVI: model.train(max_epochs=3).``
    """
    shown = repr(value) if isinstance(value, bool | int | float | str) else "..."
    if home.keyword in known:
        how = f"{home.keyword}={{{argument!r}: {shown}}}"
    else:
        how = home.call.format(f"{argument}={shown}")
    return f"{argument} is an argument of {home.owner}, not of {of_what}: {how}."
