"""Arguments of a module that depend on the library sizes of the data."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import REGISTRY_KEYS
from ...data.library import library_size_moments

if TYPE_CHECKING:
    from .model import BaseModelClass

__all__ = ["library_arguments"]


def library_arguments(model: "BaseModelClass", use_observed_lib_size: bool) -> dict[str, Any]:
    """Prior of a latent library size, and the size factor's key.

    Parameters
    ----------
    model
        The model being made.
    use_observed_lib_size
        Whether the library size is observed, so that it needs no prior.

    Returns
    -------
    ``use_size_factor_key`` and, for a latent library, ``library_log_means`` and ``library_log_vars``, each ``(1,
    b)``: of the data, or placeholders that the weights of an archive will replace.
    """
    fields = model.registry_["field_registries"]
    has_factor = bool(fields.get(REGISTRY_KEYS.SIZE_FACTOR_KEY, {}).get("data_registry"))
    arguments: dict[str, Any] = {"use_size_factor_key": has_factor}
    if use_observed_lib_size or has_factor:
        return arguments
    n_batch = model.summary_stats["n_batch"]
    if model.adata is None:
        moments = np.zeros((1, n_batch), np.float32), np.ones((1, n_batch), np.float32)
    else:
        manager = model.adata_manager
        batch_n = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))
        moments = library_size_moments(manager.get_from_registry(REGISTRY_KEYS.X_KEY), batch_n, n_batch)
    return arguments | {"library_log_means": moments[0], "library_log_vars": moments[1]}
