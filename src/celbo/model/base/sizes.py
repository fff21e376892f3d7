"""Sizes that a module's constructor asks for, read off the registry by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ...core import REGISTRY_KEYS
from ...data import state_registry_of, summary_stats_of

__all__ = ["build_module", "module_sizes"]


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


def build_module(module_cls: type[torch.nn.Module], registry: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Make a module: the sizes it has arguments for, and the model's own arguments over them."""
    wanted = inspect.signature(module_cls.__init__).parameters
    sizes = {name: value for name, value in module_sizes(registry).items() if name in wanted}
    return module_cls(**(sizes | dict(arguments)))
