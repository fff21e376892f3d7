"""Cells that doublets are made of, and the doublets."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, position_of, settings
from ...data import AnnDataManager
from ...data.constants import RAW
from ...data.fields import LayerField
from ...dataloaders.row_sources.open import rows
from ...dataloaders.row_sources.source import as_indices
from .module import draw_parents, sums_of_pairs

__all__ = ["cells_of_batch", "simulated_doublets"]


def cells_of_batch(manager: AnnDataManager, batch: str | None) -> np.ndarray:
    """Row numbers of the cells of a batch; None: of all, with a warning where there are several batches.

    Raises
    ------
    ValueError
        No such batch.
    """
    names = manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    codes_n = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).reshape(-1)
    if batch is None:
        if len(names) > 1:
            warnings.warn(
                f"These cells are of {len(names)} batches. Doublets arise within a batch: pass restrict_to_batch and "
                "take them one by one.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel + 1,
            )
        return np.arange(len(codes_n))
    return np.flatnonzero(codes_n == position_of(batch, list(names), "batch (restrict_to_batch)"))


def simulated_doublets(
    adata_manager: AnnDataManager, doublet_ratio: int, indices: Sequence[int] | np.ndarray | None, seed: int
) -> AnnData:
    """As :meth:`.SOLO.create_doublets`.

    Raises
    ------
    ValueError
        ``doublet_ratio`` is not positive.
    """
    if doublet_ratio <= 0:
        raise ValueError(f"doublet_ratio is the number of doublets per cell and must be positive, got {doublet_ratio}.")
    adata = adata_manager.adata
    assert adata is not None
    cells_n = np.arange(adata.n_obs) if indices is None else as_indices(indices, adata.n_obs)
    parents_m2 = cells_n[draw_parents(len(cells_n), int(doublet_ratio * len(cells_n)), seed)]
    counts = adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    columns = adata_manager.get_column_indexer(REGISTRY_KEYS.X_KEY)
    own = [name for name in adata.obs if not str(name).startswith("_scvi_")]
    obs = adata.obs[own].iloc[parents_m2[:, 0]].set_axis([f"sim_doublet_{m}" for m in range(len(parents_m2))])
    names = adata_manager.get_state_registry(REGISTRY_KEYS.X_KEY)[LayerField.COLUMN_NAMES_KEY]
    doublets = AnnData(sums_of_pairs(rows(counts, columns=columns), parents_m2), obs, pd.DataFrame(index=names))
    place = adata_manager.data_registry[REGISTRY_KEYS.X_KEY]
    if place.attr_name == "layers":
        doublets.layers[place.attr_key] = doublets.X
    if place.attr_name == RAW:
        doublets.raw = doublets
    return doublets
