"""What a model and its module are made with: the arguments of the constructor, sizes by name, the prior of libraries.

Arguments are noted as the constructor is entered, in scvi-tools' layout.
"""

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from ...core import REGISTRY_KEYS, SCVI_TOOLS_VERSION, settings
from ...core.arguments import show_types_alone
from ...data import state_registry_of, summary_stats_of
from ...data.library import library_size_moments
from ...dataloaders.base import DataModule
from ...ops.draws import initial_weights

__all__ = [
    "arguments_for",
    "build_module",
    "build_with_loaders",
    "drawing_weights",
    "flat",
    "given_arguments",
    "given_registry",
    "init_params",
    "library_arguments",
    "module_sizes",
    "noted_arguments",
    "noting_arguments",
    "registry_of_loaders",
    "setup_call",
    "with_registry",
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

    show_types_alone(noted)
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


logger = logging.getLogger("celbo")


def module_sizes(registry: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments that follow from the data.

    Parameters
    ----------
    registry
        Registry of a set-up AnnData.

    Returns
    -------
    ``n_input`` genes, ``n_batch``, ``n_labels``, ``n_continuous_cov``, ``n_cats_per_cov`` and every other summary
    statistic.
    """
    stats = summary_stats_of(registry)
    sizes = dict(stats) | {"n_input": stats.get("n_vars", 0)}
    sizes["n_continuous_cov"] = stats.get("n_extra_continuous_covs", 0)
    sizes["n_cats_per_cov"] = None
    if REGISTRY_KEYS.CAT_COVS_KEY in registry["field_registries"]:
        sizes["n_cats_per_cov"] = state_registry_of(registry, REGISTRY_KEYS.CAT_COVS_KEY).get("n_cats_per_key")
    return sizes


def build_module(
    module_cls: type[torch.nn.Module],
    registry: Mapping[str, Any],
    arguments: Mapping[str, Any],
    names: Mapping[str, str],
) -> Any:
    """Make a module: the sizes it has arguments for, and the model's own arguments over them.

    Parameters
    ----------
    module_cls
        Its class.
    registry
        Registry of a set-up AnnData.
    arguments
        Of the model.
    names
        Argument of the module -> summary statistic, where the module calls a size by a name of its own.
    """
    wanted = inspect.signature(module_cls.__init__).parameters
    known = module_sizes(registry)
    sizes = {name: value for name, value in known.items() if name in wanted}
    sizes |= {name: known[statistic] for name, statistic in names.items() if statistic in known}
    return module_cls(**(sizes | dict(arguments)))


def drawing_weights() -> AbstractContextManager[int]:
    """The randomness of initial weights: one seed for all, so that a run is fixed by ``train(seed=...)`` alone."""
    return initial_weights(settings.seed)


_registry: ContextVar[tuple[type, Mapping[str, Any]] | None] = ContextVar("celbo_registry_without_data", default=None)


@contextmanager
def with_registry(cls: type, registry: Mapping[str, Any]) -> Iterator[None]:
    """In this block a model of a class finds its sizes in a registry, where its constructor gets no data.

    Constructors of models have no common argument for it: many take the data and nothing else.

    Parameters
    ----------
    cls
        Class of the model that is made; those that its constructor makes on the way are not meant.
    registry
        Of the setup that the model was trained with.
    """
    token = _registry.set((cls, registry))
    try:
        yield
    finally:
        _registry.reset(token)


def given_registry(cls: type) -> Mapping[str, Any] | None:
    """Registry of the block that a model of this class is made in; see :func:`with_registry`."""
    found = _registry.get()
    return found[1] if found is not None and found[0] is cls else None


def registry_of_loaders(model_name: str, loaders: DataModule) -> dict[str, Any]:
    """A registry with the sizes that a custom data module reports.

    Parameters
    ----------
    model_name
        Name of the model's class.
    loaders
        Has ``n_vars`` and ``n_batch``, and may have ``n_labels`` (1), ``n_continuous_cov`` (0), ``n_cats_per_cov``
        (None) and ``var_names`` (numbers).

    Raises
    ------
    AttributeError
        A size is missing.
    """
    n_vars = loaders.n_vars
    names = np.asarray(np.arange(n_vars) if loaders.var_names is None else loaders.var_names).astype(str)
    n_cats = list(loaders.n_cats_per_cov or [])
    fields = {
        REGISTRY_KEYS.X_KEY: ({"n_vars": loaders.n_vars, "column_names": names}, {"n_vars": loaders.n_vars}),
        REGISTRY_KEYS.BATCH_KEY: (_categories(loaders.n_batch), {"n_batch": loaders.n_batch}),
        REGISTRY_KEYS.LABELS_KEY: (_categories(loaders.n_labels), {"n_labels": loaders.n_labels}),
        REGISTRY_KEYS.CONT_COVS_KEY: ({}, {"n_extra_continuous_covs": loaders.n_continuous_cov}),
        REGISTRY_KEYS.CAT_COVS_KEY: (
            {"n_cats_per_key": n_cats} if n_cats else {},
            {"n_extra_categorical_covs": len(n_cats)},
        ),
    }
    return {
        "scvi_version": SCVI_TOOLS_VERSION,
        "model_name": model_name,
        "setup_method_name": "setup_datamodule",
        "setup_args": {},
        "field_registries": {
            key: {"data_registry": {}, "state_registry": state, "summary_stats": stats}
            for key, (state, stats) in fields.items()
        },
    }


def _categories(n: int) -> dict[str, Any]:
    return {"categorical_mapping": np.arange(n).astype(str)}


def build_with_loaders(model: Any, loaders: DataModule | None) -> None:
    """Make the module of a model that was made without data, for the loaders that it is first trained with.

    Raises
    ------
    AttributeError
        No loaders, or they lack a size; see :func:`registry_of_loaders`.
    """
    if loaders is None:
        raise AttributeError(f"This {type(model).__name__} was made without data: pass datamodule= to train().")
    model._wait_no_longer(registry_of_loaders(type(model).__name__, loaders))


def library_arguments(model: Any) -> dict[str, Any]:
    """Prior of a latent library size, and the size factor's key; the ``_computed_arguments`` of models of counts.

    Parameters
    ----------
    model
        The model being made; its argument ``use_observed_lib_size`` says whether the library size is observed, so that
        it needs no prior.

    Returns
    -------
    ``use_size_factor_key`` and, for a latent library, ``library_log_means`` and ``library_log_vars``, each ``(1,
    b)``: of the data, or placeholders that the weights of an archive will replace.
    """
    fields = model.registry_["field_registries"]
    has_factor = bool(fields.get(REGISTRY_KEYS.SIZE_FACTOR_KEY, {}).get("data_registry"))
    arguments: dict[str, Any] = {"use_size_factor_key": has_factor}
    if given_arguments(model).get("use_observed_lib_size", True) or has_factor:
        return arguments
    n_batch = model.summary_stats["n_batch"]
    if model._adata is None:
        moments = np.zeros((1, n_batch), np.float32), np.ones((1, n_batch), np.float32)
    else:
        manager = model.adata_manager
        batch_n = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))
        moments = library_size_moments(manager.get_from_registry(REGISTRY_KEYS.X_KEY), batch_n, n_batch)
    return arguments | {"library_log_means": moments[0], "library_log_vars": _with_spread(moments[1])}


def _with_spread(vars_1b: np.ndarray) -> np.ndarray:
    """Variances above zero: a batch of one cell has none of its own, and the prior N(mean, 0) no density."""
    flat_1b = ~(vars_1b > 0)
    if not flat_1b.any():
        return vars_1b
    usual = float(vars_1b[~flat_1b].mean()) if not flat_1b.all() else 1.0
    logger.warning(
        f"{flat_1b.sum()} of {flat_1b.size} batches have no spread of library sizes (a single cell?): "
        f"the prior takes the variance {usual:.3g}, the mean of the other batches'."
    )
    return np.where(flat_1b, usual, vars_1b).astype(vars_1b.dtype)
