"""Which cells of a MuData have which modality: its own map says so, and never counts that are zero.

Dims: n cells, m registered matrices.
"""

import logging

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ..core import REGISTRY_KEYS
from .manager import AnnDataManager
from .modalities import no_link

__all__ = ["presence", "presence_report", "tell_presence"]

logger = logging.getLogger("celbo")

_SHOWN = 5
_WORTH_SAYING = 0.01
"""Share of cells without counts in a modality from which on it is asked what these zeros mean."""


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


def presence_report(manager: AnnDataManager) -> pd.DataFrame:
    """How many cells have which modalities, in all and in each batch.

    Parameters
    ----------
    manager
        Of a MuData.

    Returns
    -------
    A row for each combination of modalities that some cell has (``"rna + atac"``), the most frequent first; a column
    ``cells``, and one for each batch where there are several.
    """
    has = presence(manager)
    names = [_modality(manager, key) for key in map(str, has)]
    code_n = has.to_numpy() @ (1 << np.arange(len(names)))

    def words(code: int) -> str:
        return " + ".join(name for bit, name in enumerate(names) if code >> bit & 1) or "none"

    combination = pd.Series(code_n, index=has.index).map({code: words(code) for code in np.unique(code_n)})
    report = combination.value_counts().rename("cells").to_frame()
    if REGISTRY_KEYS.BATCH_KEY in manager.data_registry and manager.summary_stats["n_batch"] > 1:
        known = manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        batch = np.asarray(known)[np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()]
        report = report.join(pd.crosstab(combination.to_numpy(), batch))
    return report


def tell_presence(manager: AnnDataManager) -> None:
    """Say which cells have which modalities, where not all have all, and what may be meant otherwise than it stands.

    Raises
    ------
    ValueError
        No cell has more than one modality: their names do not match.
    """
    has = presence(manager)
    keys = [str(key) for key in has]
    n_of_cell = has.sum(axis=1)
    _require_links(manager, has)
    if (n_of_cell < has.shape[1]).any():
        logger.info("Cells by the modalities that they have:\n%s", presence_report(manager).to_string())
    for key in keys:
        _tell_empty_cells(manager, key)


def _require_links(manager: AnnDataManager, has: pd.DataFrame) -> None:
    """Raise where modalities fall into groups that share no cell."""
    has = has.loc[:, has.any()]
    flags = has.to_numpy(np.int64)
    n_groups, group_m = connected_components(flags.T @ flags, directed=False)
    if n_groups < 2:
        return
    names = np.array([_modality(manager, str(key)) for key in has], dtype=object)
    first = {
        " + ".join(names[group_m == group]): has.index[has.loc[:, group_m == group].any(axis=1)][0]
        for group in range(n_groups)
    }
    which = "in more than one modality" if n_groups == len(names) else "in " + " and in ".join(map(repr, first))
    raise ValueError(f"No cell is {which}, so that {no_link(first)}")


def _tell_empty_cells(manager: AnnDataManager, key: str) -> None:
    x, name = manager.get_from_registry(key), _modality(manager, key)
    if not sp.issparse(x) and not isinstance(x, np.ndarray):
        return  # what lies on disk is not read once more for this
    n_empty = int((np.asarray((x != 0).sum(axis=1)).ravel() == 0).sum())
    if n_empty > _WORTH_SAYING * x.shape[0]:
        logger.warning(
            "%d of the %d cells of modality %r have no counts there, and count as measured. If these zeros stand for "
            "what was not measured, take the cells out of it: mdata.mod[%r] = "
            "mdata.mod[%r][mdata.mod[%r].X.sum(1) > 0].copy(), then mdata.update().",
            *(n_empty, x.shape[0], name, name, name, name),
        )


def _modality(manager: AnnDataManager, key: str) -> str:
    return str(manager.data_registry[key]["mod_key"])
