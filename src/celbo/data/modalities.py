"""Data of several modalities, told apart without importing mudata."""

import sys
from typing import Any

import numpy as np

__all__ = ["is_mudata", "require_fit"]


def is_mudata(data: Any) -> bool:
    """Whether this is a MuData: if mudata was never imported, nothing is."""
    mudata = sys.modules.get("mudata")
    return mudata is not None and isinstance(data, mudata.MuData)


def require_fit(mdata: Any, paired: bool, no_views: bool) -> None:
    """Make sure that setup can work with the modalities.

    Parameters
    ----------
    mdata
        The MuData.
    paired
        Whether every modality must have every cell, in the same order.
    no_views
        Whether none may be a view.

    Raises
    ------
    ValueError
        Names the first modality that does not fit.
    """
    for key, modality in mdata.mod.items():
        if paired:
            _require_paired(key, modality, mdata)
        if no_views and modality.is_view:
            raise ValueError(
                f"Modality {key} is a view of another AnnData, and setup writes to it: put mdata.mod[{key!r}].copy() "
                "into the MuData."
            )


def _require_paired(key: str, modality: Any, mdata: Any) -> None:
    if not modality.obs_names.isin(mdata.obs_names).all() or modality.n_obs != mdata.n_obs:
        raise ValueError(
            f"Detected unpaired observations in modality {key}: it has {modality.n_obs} cells, the MuData "
            f"{mdata.n_obs}. Take the cells that all have (muon.pp.intersect_obs), or pad the modality with zeros."
        )
    if not np.array_equal(modality.obs_names, mdata.obs_names):
        raise ValueError(
            f"The cells of modality {key} are in another order than those of the MuData: "
            f"sort it, for example mdata.mod[{key!r}] = mdata.mod[{key!r}][mdata.obs_names].copy()."
        )
