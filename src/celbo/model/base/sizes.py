"""Sizes that a module's constructor asks for, read off the registry by name."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from ...core import REGISTRY_KEYS, SCVI_TOOLS_VERSION, settings
from ...data import state_registry_of, summary_stats_of
from ...dataloaders.base import DataModule
from ...ops.draws import initial_weights

__all__ = ["build_module", "build_with_loaders", "drawing_weights", "module_sizes", "registry_of_loaders"]


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
