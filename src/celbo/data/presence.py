"""Which cells of a MuData have which modality: its own map says so, and never counts that are zero.

Dims: n cells, m registered matrices.
"""

import numpy as np
import pandas as pd

from .manager import AnnDataManager
from .modalities import is_mudata

__all__ = ["may_lack_modalities", "presence"]


def may_lack_modalities(manager: AnnDataManager) -> bool:
    """Whether the data are a MuData of which not every modality needs to have all cells."""
    return is_mudata(manager.adata) and not manager.validation_checks.check_fully_paired_mudata


def presence(manager: AnnDataManager) -> pd.DataFrame:
    """Which cells have which modality.

    Parameters
    ----------
    manager
        Of a MuData.

    Returns
    -------
    ``(n, m)`` booleans, a column for each matrix under its registry key, in the order of the fields.
    """
    mdata = manager.adata
    assert mdata is not None
    keys = [field.registry_key for field in manager.fields if field.mod_key and field.names_columns]
    rows = {key: manager.get_row_indexer(key) for key in keys}
    has = {key: np.ones(mdata.n_obs, bool) if rows_n is None else rows_n >= 0 for key, rows_n in rows.items()}
    return pd.DataFrame(has, index=mdata.obs_names)
