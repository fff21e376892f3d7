"""Helpers of models under scvi-tools' names."""

from typing import Any

from anndata import AnnData

from ..data import AnnDataManager
from .base.minified import minified_copy

__all__ = ["get_minified_adata_scrna", "get_minified_mudata"]


def get_minified_adata_scrna(adata_manager: AnnDataManager, keep_count_data: bool = False) -> AnnData:
    """AnnData with the metadata of a set-up one, with or without its counts.

    Parameters
    ----------
    adata_manager
        Manager of the AnnData; it is not changed.
    keep_count_data
        Keep the counts. Otherwise ``X`` and all layers are empty matrices of the same shape.
    """
    return minified_copy(adata_manager, keep_count_data)


def get_minified_mudata(adata_manager: AnnDataManager, keep_count_data: bool = False) -> Any:
    """MuData with the metadata of a set-up one, with or without its counts.

    Parameters
    ----------
    adata_manager
        Manager of the MuData; it is not changed.
    keep_count_data
        Keep the counts. Otherwise ``X`` and all layers of each modality are empty matrices of the same shape.
    """
    return minified_copy(adata_manager, keep_count_data)
