"""Counts of made-up tissue spots: sums of real or simulated cells whose mixture is known."""

from typing import Annotated

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ...core import checked, settings, unknown_name
from ...core.kinds import Number

__all__ = ["simulate_spots"]


@checked
def simulate_spots(
    adata: anndata.AnnData,
    labels_key: str,
    n_spots: int = 500,
    *,
    layer: str | None = None,
    cells_per_spot: Annotated[float, Number(1)] = 10.0,
    types_per_spot: int = 3,
    concentration: float = 1.0,
    capture_rate: float = 1.0,
    seed: int | None = 0,
) -> anndata.AnnData:
    r"""Sum the counts of cells into spots, and keep the mixture beside them.

    .. math::
        S_s \sim \mathrm{Subsets}, \quad |S_s| \sim U\{1, \dots, \text{types\_per\_spot}\}, \quad
        \pi_{s, S_s} \sim \mathrm{Dirichlet}(\alpha), \quad
        m_s \sim 1 + \mathrm{Poisson}(\text{cells\_per\_spot} - 1), \quad
        a_s \sim \mathrm{Multinomial}(m_s, \pi_s), \quad
        x_{sg} \sim \mathrm{Binomial}\Bigl(\sum_{n \in s} x_{ng},\, \text{capture\_rate}\Bigr)

    where the :math:`a_{sc}` cells of type :math:`c` in a spot are drawn from that type's cells with replacement.

    Parameters
    ----------
    adata
        Cells with counts. Not changed.
    labels_key
        Column of ``adata.obs`` with the type of each cell; cells with NaN are not drawn.
    n_spots
        Number of spots.
    layer
        Layer with the counts; None: ``X``.
    cells_per_spot
        Mean number of cells in a spot, at least 1.
    types_per_spot
        Largest number of types in a spot; no more than there are types.
    concentration
        Dirichlet parameter :math:`\alpha` of the shares of the types in a spot; small: one type prevails.
    capture_rate
        Probability with which a count of a cell is seen in its spot, in (0, 1].
    seed
        None: ``settings.seed``, else fresh randomness. The global generators are not touched.

    Returns
    -------
    AnnData of ``n_spots`` spots by the genes of ``adata``, float32 CSR counts in ``X`` and the truth in
    ``obs["n_cells"]`` (:math:`m_s`), ``obsm["proportions"]`` (share of each type among the cells, a DataFrame of spots
    by types whose rows sum to 1) and ``obsm["count_shares"]`` (share of each type among the counts, which is what a
    model that does not know the types' RNA contents can find; 0 throughout for an empty spot).

    Raises
    ------
    KeyError
        No such column or layer.
    ValueError
        A number out of range, or no labelled cell.
    """
    labels, x_ng = _labels(adata, labels_key), _counts(adata, layer)
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    abundance_sc = _abundances(rng, n_spots, len(labels.categories), cells_per_spot, types_per_spot, concentration)
    counts_sg = np.zeros((n_spots, adata.n_vars))
    share_sc = np.zeros(abundance_sc.shape)
    for c in range(abundance_sc.shape[1]):
        members_sn = _draw_cells(rng, np.flatnonzero(labels.codes == c), abundance_sc[:, c], adata.n_obs)
        of_type_sg = (members_sn @ x_ng).toarray()
        if capture_rate < 1:
            of_type_sg = rng.binomial(of_type_sg.astype(np.int64), capture_rate)
        counts_sg += of_type_sg
        share_sc[:, c] = of_type_sg.sum(1)
    share_sc /= np.maximum(share_sc.sum(1, keepdims=True), 1)
    return _as_anndata(adata.var, counts_sg, abundance_sc, share_sc, labels.categories.astype(str))


def _labels(adata: anndata.AnnData, labels_key: str) -> "pd.Categorical[str]":
    if labels_key not in adata.obs:
        raise KeyError(unknown_name("labels_key, a column of adata.obs,", labels_key, adata.obs.columns))
    labels = pd.Categorical(adata.obs[labels_key]).remove_unused_categories()
    if not len(labels.categories):
        raise ValueError(f"No cell has a label in adata.obs[{labels_key!r}]: spots are made of labelled cells.")
    return labels


def _counts(adata: anndata.AnnData, layer: str | None) -> sp.csr_matrix:
    if layer is not None and layer not in adata.layers:
        raise KeyError(unknown_name("layer", layer, adata.layers))
    return sp.csr_matrix(adata.X if layer is None else adata.layers[layer]).astype(np.float64)


def _abundances(
    rng: np.random.Generator, s: int, c: int, cells_per_spot: float, types_per_spot: int, concentration: float
) -> np.ndarray:
    """Number of cells of each type in each spot, ``(s, c)``."""
    n_cells_s = 1 + rng.poisson(cells_per_spot - 1, s)
    n_types_s = rng.integers(1, min(types_per_spot, c), size=s, endpoint=True)
    rank_sc = rng.random((s, c)).argsort(1).argsort(1)
    weight_sc = rng.standard_gamma(concentration, (s, c)) + np.finfo(float).tiny
    weight_sc[rank_sc >= n_types_s[:, None]] = 0
    return rng.multinomial(n_cells_s, weight_sc / weight_sc.sum(1, keepdims=True))


def _draw_cells(rng: np.random.Generator, cells: np.ndarray, abundance_s: np.ndarray, n: int) -> sp.csr_matrix:
    """How often each cell is in each spot, ``(s, n)``, drawn from ``cells`` with replacement."""
    spots = np.repeat(np.arange(len(abundance_s)), abundance_s)
    drawn = rng.choice(cells, size=len(spots))
    return sp.csr_matrix((np.ones(len(spots)), (spots, drawn)), shape=(len(abundance_s), n))


def _as_anndata(
    var: pd.DataFrame, counts_sg: np.ndarray, abundance_sc: np.ndarray, share_sc: np.ndarray, types: "pd.Index[str]"
) -> anndata.AnnData:
    n_cells_s = abundance_sc.sum(1)
    names = [f"spot_{i}" for i in range(len(n_cells_s))]
    obs = pd.DataFrame({"n_cells": n_cells_s}, index=names)
    spots = anndata.AnnData(sp.csr_matrix(counts_sg, dtype=np.float32), obs=obs, var=pd.DataFrame(index=var.index))
    spots.obsm["proportions"] = pd.DataFrame(abundance_sc / n_cells_s[:, None], index=names, columns=types)
    spots.obsm["count_shares"] = pd.DataFrame(share_sc, index=names, columns=types)
    return spots
