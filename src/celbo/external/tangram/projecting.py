"""From a mapping to the tissue: labels and genes of cells, clusters in place of cells.

Dims: n cells, s spots, g genes, c classes.
"""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ...core import ArgumentError, checked, unknown_name

__all__ = ["by_clusters", "project_cell_annotations", "project_genes"]


def _require_mapper(mapper: Any, n_sc: int, n_sp: int) -> np.ndarray:
    mapper = np.asarray(mapper)
    if mapper.shape != (n_sc, n_sp):
        raise ArgumentError(
            f"mapper has shape {mapper.shape}, and there are {n_sc} cells and {n_sp} spots: give adata_sc and adata_sp "
            "as they were mapped, and what get_mapper_matrix gave."
        )
    return mapper


@checked
def project_cell_annotations(
    adata_sc: AnnData, adata_sp: AnnData, mapper: np.ndarray, labels: pd.Series
) -> pd.DataFrame:
    """How many cells of each label every spot has; divided by its sum, the shares.

    Parameters
    ----------
    adata_sc, adata_sp
        Cells and spots, as they were mapped.
    mapper
        ``(n, s)``, of :meth:`~celbo.external.Tangram.get_mapper_matrix`.
    labels
        A label for each cell, ``(n,)``.

    Returns
    -------
    ``(s, c)``, rows by spot, columns by label.

    Raises
    ------
    ArgumentError
        Sizes that do not fit.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> cells, spots = (celbo.data.synthetic_iid(batch_size=n, n_genes=20, seed=n) for n in (20, 15))
    >>> mapper = np.full((40, 30), 1 / 30)  # yours: model.get_mapper_matrix()
    >>> project_cell_annotations(cells, spots, mapper, cells.obs["labels"]).shape
    (30, 3)
    """
    mapper = _require_mapper(mapper, adata_sc.n_obs, adata_sp.n_obs)
    if len(labels) != adata_sc.n_obs:
        raise ArgumentError(f"labels has {len(labels)} values, adata_sc {adata_sc.n_obs} cells.")
    has_nc = pd.get_dummies(pd.Series(np.asarray(labels)), dtype=float)
    return pd.DataFrame(mapper.T @ has_nc.to_numpy(), index=adata_sp.obs_names, columns=has_nc.columns)


@checked
def project_genes(adata_sc: AnnData, adata_sp: AnnData, mapper: np.ndarray) -> AnnData:
    """Expression of all genes of the cells in every spot.

    Parameters
    ----------
    adata_sc, adata_sp, mapper
        As in :func:`project_cell_annotations`; ``adata_sc`` may have more genes than were mapped by.

    Returns
    -------
    Spots by genes, with the columns of ``adata_sp.obs`` and ``adata_sc.var``.

    Raises
    ------
    ArgumentError
        Sizes that do not fit, or cells without ``X``.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> cells, spots = (celbo.data.synthetic_iid(batch_size=n, n_genes=20, seed=n) for n in (20, 15))
    >>> mapper = np.full((40, 30), 1 / 30)  # yours: model.get_mapper_matrix()
    >>> project_genes(cells, spots, mapper).shape
    (30, 20)
    """
    mapper = _require_mapper(mapper, adata_sc.n_obs, adata_sp.n_obs)
    x = adata_sc.X
    if x is None:
        raise ArgumentError("adata_sc has no X to project.")
    projected = (x.T @ mapper).T if sp.issparse(x) else mapper.T @ np.asarray(x)
    return AnnData(np.asarray(projected), obs=adata_sp.obs.copy(), var=adata_sc.var.copy(), uns=dict(adata_sc.uns))


@checked
def by_clusters(adata_sc: AnnData, labels_key: str, layer: str | None = None) -> AnnData:
    """Clusters in place of cells, to be mapped in seconds: sums of their cells, and their sizes.

    Parameters
    ----------
    adata_sc
        Cells.
    labels_key
        Column of ``adata_sc.obs`` with the cluster of each.
    layer
        Layer with the expression; None: ``X``.

    Returns
    -------
    Clusters by genes; ``obs["n_cells"]`` has their sizes, to be given as ``cell_weights``.

    Raises
    ------
    ArgumentError
        No such column.
    """
    if labels_key not in adata_sc.obs:
        raise ArgumentError(unknown_name("column of adata_sc.obs", labels_key, list(adata_sc.obs)))
    labels = adata_sc.obs[labels_key].astype("category").cat.remove_unused_categories()
    codes, names = labels.cat.codes.to_numpy(), labels.cat.categories
    x = adata_sc.X if layer is None else adata_sc.layers[layer]
    known = np.flatnonzero(codes >= 0)
    sums = sp.csr_matrix((np.ones(len(known)), (codes[known], known)), (len(names), len(codes))) @ x
    obs = pd.DataFrame(
        {labels_key: names.to_numpy(), "n_cells": np.bincount(codes[known], minlength=len(names))},
        index=[str(name) for name in names],
    )
    return AnnData(
        np.asarray(sums.todense() if sp.issparse(sums) else sums, dtype=np.float32), obs, adata_sc.var.copy()
    )
