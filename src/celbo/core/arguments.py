"""The door of a function: every argument is looked at on entry, by its name and by its annotation.

One mechanism for models, verbs, plans, the trainer and loaders. What a name means everywhere (``n_samples``,
``library_size``, ...) is a row of :data:`~celbo.core.argument_names.NAMES`; what only one function means by it is in
its signature: ``int``, ``float``, ``bool``, ``Path``, ``Literal[...]`` and unions of these are read from there, and
``Annotated[int, Whole(0)]`` wins over the table. Defaults are not looked at, nor what goes through ``**kwargs``: the
function that takes it has a door too.
"""

import functools
import inspect
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from .argument_names import NAMES
from .errors import noted, unknown_name
from .homes import Home, home_of, homes_among, sent_home
from .kinds import REFUSED, AnyOf, Flag, Instance, Kind, Number, OneOf, Several, Text, Whole, described
from .rules import rules

__all__ = [
    "ArgumentError",
    "Door",
    "UnknownArgumentError",
    "as_shown",
    "checked",
    "checked_methods",
    "door_of",
    "show_types_alone",
]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_A_PATH = NAMES["path"]
_PLAIN: Mapping[Any, Kind] = {int: Whole(), float: Number(), bool: Flag(), str: Text(), Path: _A_PATH}
_KEYWORDS = Instance("a mapping of names to values", lambda value: isinstance(value, Mapping))
_FUNCTION = Instance("a function", callable)
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")


class ArgumentError(ValueError, TypeError):
    """An argument that cannot be meant as it was given. Of both kinds that Python has for it.

    Attributes
    ----------
    argument
        Its name.
    """

    argument: str = ""

    @classmethod
    def of(cls, argument: str, message: str) -> "ArgumentError":
        """The error about an argument."""
        error = cls(message)
        error.argument = argument
        return error


class UnknownArgumentError(ArgumentError):
    """A keyword that nobody knows.

    Attributes
    ----------
    known
        Keywords that there are.
    home
        Where this one goes, if anybody knows.
    """

    known: tuple[str, ...] = ()
    home: Home | None = None

    @classmethod
    def among(cls, argument: str, of_what: str, known: Iterable[str]) -> "UnknownArgumentError":
        """The error about a keyword, which names the nearest of those that there are."""
        known = tuple(dict.fromkeys(known))
        error = cls(unknown_name(f"argument of {of_what}", argument, known))
        error.argument, error.known = argument, known
        return error

    @classmethod
    def of_call(
        cls, argument: str, value: object, of_what: str, known: Iterable[str], homes: Iterable[Home]
    ) -> "UnknownArgumentError":
        """The same, or if one of some homes takes the keyword, that it goes there."""
        error = cls.among(argument, of_what, known)
        error.home = home_of(argument, homes)
        if error.home is not None:
            error.args = (sent_home(argument, value, of_what, error.home, error.known),)
        return error


class Door:
    """Looks at the arguments of one function.

    Parameters
    ----------
    function
        The function, method or constructor.

    Attributes
    ----------
    known
        Names of its arguments.
    takes_more
        Whether it passes other keywords on.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = parameters_of(function)
        self.takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        self.known = tuple(p.name for p in named if p.name not in ("self", "cls") and p.kind is not p.POSITIONAL_ONLY)
        self._in_order = tuple(p.name for p in named if p.kind is not p.KEYWORD_ONLY)
        self._kinds = {p.name: found for p in named if (found := kinds_of(p))}
        self._usual = getattr(function, "__celbo_usual__", None)
        self._may_be_none = frozenset(p.name for p in named if _may_be_none(p))

    def take(self, args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments to go on with.

        Parameters
        ----------
        args, kwargs
            As they were given.
        what
            Name of the function in messages.

        Raises
        ------
        ArgumentError
            The first that cannot be meant.
        UnknownArgumentError
            A keyword that nobody knows; the nearest is named.
        """
        if not self.takes_more:
            for name in kwargs:
                if name not in self.known:
                    homes = self._homes(args, kwargs)
                    raise UnknownArgumentError.of_call(name, kwargs[name], what, self.known, homes)
        if args:
            args = tuple(self.value(name, one) for name, one in zip(self._in_order, args)) + args[len(self._in_order) :]
        return args, {name: self.value(name, one) for name, one in kwargs.items()}

    def value(self, name: str, value: object) -> Any:
        """One argument, as it is taken."""
        if value is None and name in self._may_be_none:
            return None
        for kind in self._kinds.get(name, ()):
            value = _taken(name, value, kind, name in self._may_be_none)
        return value

    def name_unknown(self, error: TypeError, args: Iterable[Any], kwargs: Mapping[str, Any], what: str) -> None:
        """Raise a better error about a keyword that was passed on and that nobody took: where it goes, what is known.

        Parameters
        ----------
        error
            What came of the call.
        args, kwargs, what
            As in :meth:`take`.

        Raises
        ------
        UnknownArgumentError
            The error is about such a keyword.
        """
        homes = self._homes(args, kwargs)
        if isinstance(error, UnknownArgumentError):
            name, further = error.argument, error.known
            homes = homes or [home for home in (error.home,) if home is not None]
        else:
            found = _UNEXPECTED.search(str(error))
            name, further = (found.group(1) if found else ""), ()
        if self.takes_more and name in kwargs and name not in self.known:
            known = (*self.known, *further)
            raise UnknownArgumentError.of_call(name, kwargs[name], what, known, homes) from error
        for keyword, passed_on in kwargs.items():
            home = home_of(name, homes) if isinstance(passed_on, Mapping) and name in passed_on else None
            if home is not None and home.keyword != keyword:
                raise UnknownArgumentError.of_call(name, passed_on[name], keyword, (), homes) from error

    def _homes(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Sequence[Home]:
        return homes_among((*args, *kwargs.values(), self._usual))


def _taken(name: str, value: object, kind: Kind, or_none: bool) -> Any:
    taken = kind.take(value)
    if taken is REFUSED:
        wanted = f"{kind.wanted}, or None" if or_none else kind.wanted
        message = f"{name} must be {wanted}, got {described(value)}.{kind.hint(value)}"
        there = rules().refusals.get(name)
        raise ArgumentError.of(name, message) if there is None else noted(ArgumentError.of(name, there), message)
    return taken


@functools.cache
def door_of(function: Callable[..., Any]) -> Door:
    """The door of a function; made once."""
    return Door(function)


def checked(function: F) -> F:
    """Let a function look at its arguments on entry; for a class, its constructor.

    Parameters
    ----------
    function
        The function or class.

    Returns
    -------
    The same function with a door before it: its signature, name and documentation stay. A class is changed in place.

    Raises
    ------
    ArgumentError
        Of every later call with an argument that cannot be meant.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function  # type: ignore[return-value]
    if hasattr(function, "__celbo_door__"):
        return function

    @functools.wraps(function)
    def through_door(*args: Any, **kwargs: Any) -> Any:
        door, what = door_of(function), _name_of_call(function, args)
        args, kwargs = door.take(args, kwargs, what)
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            door.name_unknown(error, args, kwargs, what)
            if str(error).startswith(f"{function.__qualname__}() missing "):
                raise TypeError(str(error).replace(function.__qualname__, what, 1)) from None
            raise

    through_door.__celbo_door__ = True  # type: ignore[attr-defined]
    if _has_more_than_types(function):
        show_types_alone(through_door)
    return through_door  # type: ignore[return-value]


def _name_of_call(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Name of a function in messages; a method has that of the class that was called, which may have inherited it."""
    owner, _, name = function.__qualname__.rpartition(".")
    if owner and args:
        cls = args[0] if isinstance(args[0], type) else type(args[0])
        if any(base.__qualname__ == owner for base in cls.__mro__):
            owner = cls.__qualname__
    return owner if name == "__init__" else f"{owner}.{name}".lstrip(".")


def checked_methods(cls: C) -> C:
    """Give every public method that a class defines itself a door; properties are left alone."""
    for name, method in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(method, classmethod | staticmethod):
            setattr(cls, name, type(method)(checked(method.__func__)))
        elif isinstance(method, types.FunctionType):
            setattr(cls, name, checked(method))
    return cls


# From a parameter to its kinds.


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters of a function as they were annotated, as objects where they can be resolved."""
    function = inspect.unwrap(function, stop=lambda outer: vars(outer).get("__celbo_shown__") is not outer)
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, SyntaxError, TypeError):  # annotations of others that cannot be resolved here
        signature = inspect.signature(function)
    return list(signature.parameters.values())


def _has_more_than_types(function: Callable[..., Any]) -> bool:
    """Whether a signature is worth the time: there are a thousand, made at import."""
    parts = (part for one in function.__annotations__.values() for part in (one, *typing.get_args(one)))
    return hasattr(function, "__signature__") or any(typing.get_origin(part) is Annotated for part in parts)


def show_types_alone(wrapper: Any) -> None:
    """Let ``help`` show types alone, not what is asked of their values; doors still read that off what is wrapped."""
    wrapper.__signature__ = as_shown(inspect.signature(wrapper))
    wrapper.__celbo_shown__ = wrapper  # a wrapper around it, which gets its attributes, shows what it shows itself


def as_shown(signature: inspect.Signature) -> inspect.Signature:
    """The signature with types alone."""
    parameters = [p.replace(annotation=_type_alone(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters)


def _type_alone(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Annotated:
        return _type_alone(typing.get_args(annotation)[0])
    parts = typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else ()
    if any(typing.get_origin(part) is Annotated for part in parts):
        return functools.reduce(operator.or_, map(_type_alone, parts))
    return annotation


def kinds_of(parameter: inspect.Parameter) -> tuple[Kind, ...]:
    """Kinds that an argument must be of, one after the other: that of its name, and that of its annotation."""
    own = _own_kind(parameter.annotation)
    if own is not None:
        return (own,)
    by_name, (by_type, says_all) = NAMES.get(parameter.name), _annotated_kind(parameter.annotation)
    if by_name is None and isinstance(by_type, Text):
        return ()  # a path may be no str, and a category no text: those who take them look
    if by_name is None or isinstance(by_type, OneOf):
        return (by_type,) if by_type is not None and says_all else ()
    if isinstance(by_name, Several) or by_type is None or not says_all:
        applies = says_all or not by_name.types or isinstance(by_name, Several)
        wider = isinstance(by_type, Flag) and not says_all  # such as `AnnData | bool`
        return (AnyOf((by_name, Flag())) if wider else by_name,) if applies else ()
    if isinstance(by_type, Whole) and isinstance(by_name, Number):
        return by_name, by_type
    return (by_name,) if by_name.types & by_type.types or not by_name.types else (by_type,)


def _own_kind(annotation: object) -> Kind | None:
    """The kind in an ``Annotated``, which may be one side of ``| None``."""
    for part in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(part) is Annotated:
            return next((extra for extra in typing.get_args(part)[1:] if isinstance(extra, Kind)), None)
    return None


def _annotated_kind(annotation: object) -> tuple[Kind | None, bool]:
    """The kind that an annotation tells of, None aside, and whether it tells of all that may be given."""
    if annotation in (inspect.Parameter.empty, Any, object):
        return None, True
    if isinstance(annotation, type) and annotation in _PLAIN:
        return _PLAIN[annotation], True
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return OneOf(parts), True
    if origin in (dict, Mapping):
        return _KEYWORDS, True
    if origin is Callable:
        return _FUNCTION, True
    if annotation is os.PathLike or origin is os.PathLike:
        return _A_PATH, True
    if origin not in (Union, types.UnionType):
        return None, False
    found = [_annotated_kind(part) for part in parts if part is not type(None)]
    known = tuple(kind for kind, _ in found if kind is not None)
    if _A_PATH in known:  # which may be text
        known = tuple(kind for kind in known if not isinstance(kind, Text))
    if {str, float} <= set(parts):  # a category, which may be NaN
        return None, False
    whole = all(says_all and kind is not None for kind, says_all in found)
    return (known[0] if len(known) == 1 else AnyOf(known) if known else None), whole


def _may_be_none(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return parameter.default is None or annotation is None or type(None) in typing.get_args(annotation)
