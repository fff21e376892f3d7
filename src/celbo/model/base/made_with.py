"""The arguments that a model is made with: noted as its constructor is entered, in scvi-tools' layout."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "arguments_for",
    "flat",
    "given_arguments",
    "init_params",
    "noted_arguments",
    "noting_arguments",
    "setup_call",
]

_INNERMOST = "_arguments_of_constructor"
_SETUP_DATA = ("adata", "mdata")


def noting_arguments(constructor: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor note its arguments on the model, with defaults.

    Those of the constructor that was called become ``init_params_``, unless it sets that itself. While it runs, and a
    constructor it calls, :func:`given_arguments` tells those of the innermost one: a subclass may hand on others than
    it was given.
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = init_params_of(signature, bound.arguments)
        state = vars(self)
        outer = state.get(_INNERMOST)
        if outer is None:
            self.init_params_ = given
        state[_INNERMOST] = given
        try:
            constructor(self, *args, **kwargs)
        finally:
            state.pop(_INNERMOST)
            if outer is not None:
                state[_INNERMOST] = outer

    return noted


def noted_arguments(model: Any) -> dict[str, dict[str, Any]]:
    """Arguments of the constructor that is running, data apart; of a finished model, those it was made with."""
    return vars(model).get(_INNERMOST) or model.init_params_


def given_arguments(model: object) -> dict[str, Any]:
    """As :func:`noted_arguments`, by name."""
    return flat(noted_arguments(model))


def arguments_for(
    module_cls: type, noted: Mapping[str, Mapping[str, Any]], renamed: Mapping[str, str | None]
) -> dict[str, Any]:
    """Arguments that go on to the module: of those the constructor names, the ones that the module has; all others.

    Parameters
    ----------
    module_cls
        Class of the module.
    noted
        What :func:`noted_arguments` gives.
    renamed
        Name of the constructor's argument -> name of the module's; None: none of its.
    """
    parameters = inspect.signature(module_cls.__init__).parameters  # type: ignore[misc]
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {renamed.get(name, name): value for name, value in noted["non_kwargs"].items()}
    known = {name: value for name, value in named.items() if name and (takes_more or name in parameters)}
    further = {renamed.get(name, name): value for name, value in flat({"kwargs": noted["kwargs"]}).items()}
    return known | {name: value for name, value in further.items() if name}


def init_params(cls: type, arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Constructor arguments in scvi-tools' layout: ``{"kwargs": {name of **: {...}}, "non_kwargs": {...}}``.

    Parameters
    ----------
    cls
        Class of the model.
    arguments
        By name, those of the data and others among them, as ``locals()`` gives them.
    """
    return init_params_of(inspect.signature(cls.__init__), arguments)  # type: ignore[misc]


def init_params_of(signature: inspect.Signature, arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As :func:`init_params`, of a constructor's signature."""
    _, *parameters = signature.parameters.values()
    data = {"registry", *(parameter.name for parameter in parameters[:1])}  # data come first, by whatever name
    data |= {parameter.name for parameter in parameters if parameter.name.startswith("adata_")}  # of several sets
    named: dict[str, Any] = {}
    star: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in arguments and parameter.name not in data:
            (star if parameter.kind is parameter.VAR_KEYWORD else named)[parameter.name] = arguments[parameter.name]
    return {"kwargs": star, "non_kwargs": named}


def flat(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All arguments by name, from scvi-tools' layout."""
    arguments = dict(params.get("non_kwargs", {}))
    for star in params.get("kwargs", {}).values():
        arguments |= star
    return arguments


def setup_call(**setup_locals: Any) -> dict[str, Any]:
    """The call of the setup method that this is called in, for methods written as scvi-tools has them.

    Parameters
    ----------
    **setup_locals
        ``locals()`` of the method, in which ``cls`` is.
    """
    cls = setup_locals["cls"]
    name = sys._getframe(1).f_code.co_name
    known = inspect.signature(getattr(cls, name)).parameters
    arguments = {
        key: setup_locals[key]
        for key, parameter in known.items()
        if key in setup_locals and key not in _SETUP_DATA and parameter.kind is not parameter.VAR_KEYWORD
    }
    return {"model_name": cls.__name__, "setup_method_name": name, "setup_args": arguments}
