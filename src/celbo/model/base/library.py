"""Arguments of a module that depend on the library sizes of the data."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import REGISTRY_KEYS
from ...data.library import library_size_moments
from .made_with import given_arguments

if TYPE_CHECKING:
    from .model import BaseModelClass

__all__ = ["library_arguments"]

logger = logging.getLogger("celbo")


def library_arguments(model: "BaseModelClass") -> dict[str, Any]:
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
    if model.adata is None:
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
