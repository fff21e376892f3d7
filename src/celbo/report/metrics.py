"""How good a latent space is: labels kept apart, batches mixed.

Dims: n cells, k latents, b batches, c labels, m neighbours. Neighbours are exact, in Euclidean distance, and never the
cell itself.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..core import checked, optional
from ..core.kinds import Whole, described
from ..dataloaders.row_sources.source import as_indices

__all__ = ["BatchMixing", "batch_mixing", "graph_connectivity", "knn_label_accuracy", "neighbours", "nmi_ari"]

_SEARCH_STEPS = 60


def neighbours(latent: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours of each cell among the others.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    k
        Neighbours; at most ``n - 1`` are given.

    Returns
    -------
    Distances and row numbers, ``(n, m)`` each, nearest first.

    Raises
    ------
    ValueError
        For fewer than two cells, no neighbour, or coordinates that are not finite.
    """
    z_nk = _coordinates(latent)
    n = len(z_nk)
    if n < 2 or k < 1:
        raise ValueError(f"Neighbours need at least two cells and k of at least 1, got {n} cells and k={k}.")
    m = min(k, n - 1)
    distance_nm, index_nm = cKDTree(z_nk).query(z_nk, k=m + 1)
    other_nm = index_nm != np.arange(n)[:, None]
    # Of many cells at one place the cell itself may not be among the nearest: then the last one goes.
    other_nm[other_nm.all(1), -1] = False
    return distance_nm[other_nm].reshape(n, m), index_nm[other_nm].reshape(n, m)


@checked
def knn_label_accuracy(
    latent: np.ndarray, labels: object, train_idx: np.ndarray, test_idx: np.ndarray, k: Annotated[int, Whole(1)] = 15
) -> float:
    """Share of cells whose label their nearest neighbours name by majority.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    labels
        ``(n,)`` labels.
    train_idx, test_idx
        Rows whose labels are known, and rows to name; neighbours are sought among the first.
    k
        Neighbours; of labels with equal votes the first in sorted order wins.

    Returns
    -------
    Accuracy in [0, 1].

    Raises
    ------
    ValueError
        When either set is empty or holds a row twice over in both.
    """
    z_nk = _coordinates(latent)
    train_idx = as_indices(train_idx, len(z_nk), "cell", "train_idx")
    test_idx = as_indices(test_idx, len(z_nk), "cell", "test_idx")
    if not len(train_idx) or not len(test_idx):
        raise ValueError(f"Both sets need cells, got {len(train_idx)} to learn from and {len(test_idx)} to name.")
    if len(np.intersect1d(train_idx, test_idx)):
        raise ValueError("train_idx and test_idx share cells: a cell would name itself.")
    code_n, name_c = _codes(labels, len(z_nk), "labels")
    m = min(k, len(train_idx))
    _, index_tm = cKDTree(z_nk[train_idx]).query(z_nk[test_idx], k=np.arange(1, m + 1))
    vote_tc = _shares(code_n[train_idx][index_tm], np.ones(index_tm.shape), len(name_c))
    return float(np.mean(vote_tc.argmax(1) == code_n[test_idx]))


@dataclass(frozen=True)
class BatchMixing:
    """How well batches mix.

    Attributes
    ----------
    foreign_share
        Share of neighbours from other batches, as a multiple of what random neighbours would give: 0 for separate
        batches, 1 where the batch says nothing about the place.
    ilisi
        Median inverse Simpson's index of the batches around a cell, scaled so that 0 is one batch and 1 all in
        equal parts.
    """

    foreign_share: float
    ilisi: float


@checked
def batch_mixing(
    latent: np.ndarray, batches: object, k: Annotated[int, Whole(1)] = 50, perplexity: float = 30.0
) -> BatchMixing:
    r"""Measure how well batches mix.

    .. math::
        \frac{\sum_n |\{j \in N_k(n): b_j \ne b_n\}| / k}{\sum_n |\{j \ne n: b_j \ne b_n\}| / (N - 1)}, \qquad
        \mathrm{iLISI} = \frac{\mathrm{median}_n \bigl(\sum_b p_{nb}^2\bigr)^{-1} - 1}{B - 1}

    :math:`p_{nb}` is the weight of batch b among the :math:`3 \times` ``perplexity`` nearest neighbours of cell n,
    weighted by :math:`e^{-\beta_n d_{nj}}` with :math:`\beta_n` such that the weights have that perplexity.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    batches
        ``(n,)`` batch of each cell.
    k
        Neighbours of the first measure.
    perplexity
        Of the second; a third of the neighbours there are when that is less.

    Raises
    ------
    ValueError
        For a single batch: there is nothing to mix.

    References
    ----------
    Korsunsky et al., *Fast, sensitive and accurate integration of single-cell data with Harmony*, Nature Methods 2019
    (LISI); Luecken et al., *Benchmarking atlas-level data integration*, Nature Methods 2022 (the scaling).
    """
    code_n, name_b = _codes(batches, len(_coordinates(latent)), "batches")
    if len(name_b) < 2:
        raise ValueError(f"Mixing needs at least two batches, got {len(name_b)}.")
    n_sought = max(k, int(np.ceil(3 * perplexity)))
    distance_nm, index_nm = neighbours(latent, n_sought)
    near_nm = index_nm[:, :k]
    foreign = np.mean(code_n[near_nm] != code_n[:, None])
    count_b = np.bincount(code_n)
    chance = np.mean((len(code_n) - count_b[code_n]) / (len(code_n) - 1))
    m = min(int(np.ceil(3 * perplexity)), index_nm.shape[1])
    weight_nm = perplexity_weights(distance_nm[:, :m], min(perplexity, max(1.0, m / 3)))
    share_nb = _shares(code_n[index_nm[:, :m]], weight_nm, len(name_b))
    lisi = float(np.median(1 / np.square(share_nb).sum(1)))
    return BatchMixing(float(foreign / chance), (lisi - 1) / (len(name_b) - 1))


def perplexity_weights(distance_nm: np.ndarray, perplexity: float) -> np.ndarray:
    r"""Weights :math:`\propto e^{-\beta_n d_{nj}}` whose entropy is the logarithm of the perplexity, ``(n, m)``.

    Found by bisection of :math:`\log \beta_n`. Equal distances get equal weights, whatever the perplexity.
    """
    spread_nm = distance_nm - distance_nm[:, :1]
    scale_n1 = np.where(spread_nm[:, -1:] > 0, spread_nm[:, -1:], 1.0)
    spread_nm = spread_nm / scale_n1
    low_n1, high_n1 = np.full_like(scale_n1, -12.0), np.full_like(scale_n1, 25.0)
    for _ in range(_SEARCH_STEPS):
        middle_n1 = (low_n1 + high_n1) / 2
        too_flat_n1 = _entropy(_softmax(-np.exp(middle_n1) * spread_nm)) > np.log(perplexity)
        low_n1, high_n1 = np.where(too_flat_n1, middle_n1, low_n1), np.where(too_flat_n1, high_n1, middle_n1)
    return _softmax(-np.exp(low_n1) * spread_nm)


@checked
def graph_connectivity(latent: np.ndarray, labels: object, k: Annotated[int, Whole(1)] = 15) -> float:
    """Mean over labels of the share of a label's cells in its largest connected part of the graph of neighbours.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    labels
        ``(n,)`` labels.
    k
        Neighbours each cell is joined with, in either direction.

    Returns
    -------
    Value in (0, 1]; 1 where every label is in one piece.

    References
    ----------
    Luecken et al., *Benchmarking atlas-level data integration in single-cell genomics*, Nature Methods 2022.
    """
    code_n, name_c = _codes(labels, len(_coordinates(latent)), "labels")
    _, index_nm = neighbours(latent, k)
    n, m = index_nm.shape
    graph = sp.csr_matrix((np.ones(n * m), index_nm.ravel(), np.arange(0, n * m + 1, m)), shape=(n, n))
    return float(np.mean([_largest_part(graph, np.flatnonzero(code_n == c)) for c in range(len(name_c))]))


def _largest_part(graph: sp.csr_matrix, rows: np.ndarray) -> float:
    _, part_n = connected_components(graph[rows][:, rows], directed=False)
    return float(np.bincount(part_n).max() / len(rows))


@checked
def nmi_ari(latent: np.ndarray, labels: object, seed: int = 0) -> tuple[float, float]:
    """Agreement of k-means clusters with labels.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    labels
        ``(n,)`` labels; there are as many clusters as labels.
    seed
        Seed of k-means, the best of ten runs.

    Returns
    -------
    Normalised mutual information (arithmetic mean) and adjusted Rand index.

    Raises
    ------
    ModuleNotFoundError
        When scikit-learn is not installed.
    """
    cluster = optional("sklearn.cluster", extra="sklearn", purpose="nmi_ari")
    scores = optional("sklearn.metrics", extra="sklearn", purpose="nmi_ari")
    z_nk = _coordinates(latent)
    code_n, name_c = _codes(labels, len(z_nk), "labels")
    found_n = cluster.KMeans(len(name_c), n_init=10, random_state=seed).fit_predict(z_nk)
    return float(scores.normalized_mutual_info_score(code_n, found_n)), float(
        scores.adjusted_rand_score(code_n, found_n)
    )


def _coordinates(latent: np.ndarray) -> np.ndarray:
    try:
        z_nk = np.asarray(latent, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"latent must be an array of cells by dimensions, got {described(latent)}. Pass arrays of an AnnData, not "
            "the AnnData: adata.obsm['X_celbo'], adata.obs['batch']."
        ) from None
    if z_nk.ndim != 2:
        raise ValueError(f"A latent space is an array of cells by dimensions, got shape {z_nk.shape}.")
    if not np.isfinite(z_nk).all():
        raise ValueError(
            f"{int((~np.isfinite(z_nk)).any(1).sum())} of {len(z_nk)} cells have coordinates that are not finite."
        )
    return z_nk


def _codes(names: object, n: int, argument: str) -> tuple[np.ndarray, np.ndarray]:
    """Integers for names, and the names that occur, sorted."""
    names_n = np.asarray(names)
    if names_n.shape != (n,):
        raise ValueError(f"One name a cell is needed ({argument}), ({n},), got shape {names_n.shape}.")
    if pd.isna(names_n).any():
        raise ValueError(f"{int(pd.isna(names_n).sum())} of {n} cells have no name ({argument}): leave them out.")
    code_n, name_c = pd.factorize(names_n, sort=True)
    return code_n, np.asarray(name_c)


def _shares(code_nm: np.ndarray, weight_nm: np.ndarray, n_names: int) -> np.ndarray:
    """Sum of weights by code in each row, ``(n, n_names)``."""
    n = len(code_nm)
    cell_nm = np.arange(n)[:, None] * n_names + code_nm
    return np.bincount(cell_nm.ravel(), weight_nm.ravel(), minlength=n * n_names).reshape(n, n_names)


def _softmax(a_nm: np.ndarray) -> np.ndarray:
    weight_nm = np.exp(a_nm - a_nm.max(1, keepdims=True))
    return weight_nm / weight_nm.sum(1, keepdims=True)


def _entropy(p_nm: np.ndarray) -> np.ndarray:
    return -(p_nm * np.log(np.maximum(p_nm, 1e-300))).sum(1, keepdims=True)
