"""Columns and latent spaces of an AnnData by the names that users give."""

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_of", "latents_of"]


def column_of(adata: AnnData, key: Any) -> "pd.Series[Any]":
    """Column of ``adata.obs``; an ``ArgumentError`` where there is none."""
    if key not in adata.obs:
        raise ArgumentError(unknown_name("column of adata.obs", key, list(adata.obs)))
    return adata.obs[key]


def latents_of(adata: AnnData, key: str) -> np.ndarray:
    """Entry of ``adata.obsm``, ``(n, k)``; an ``ArgumentError`` where there is none."""
    if key not in adata.obsm:
        raise ArgumentError(unknown_name("key of adata.obsm", key, list(adata.obsm)))
    return np.asarray(adata.obsm[key])
