"""How much directions vary, and whether a gene has a path: vectorised over cells and genes, in numpy.

Dims: s draws, n cells, g genes, m neighbours.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial import cKDTree

__all__ = ["directional_statistics", "permuted_within", "t_statistics", "transitions"]

_SHARPNESS = 10.0
_CELLS_AT_ONCE = 256


def directional_statistics(vectors: np.ndarray, names: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """How much the direction of each cell's vector varies.

    Parameters
    ----------
    vectors
        Draws, ``(s, n, g)``.
    names
        Of the cells, ``(n,)``.

    Returns
    -------
    A frame with, of the angles in radians between each draw and the mean of all (each less its mean over genes: the
    cosines are correlations, as in scvi-tools), the variance
    (``directional_variance``) and the difference of 95th and 5th percentile (``directional_difference``); the same of
    their cosines (``directional_cosine_sim_variance``, ``directional_cosine_sim_difference``), and the mean of these
    (``directional_cosine_sim_mean``). And the cosines, ``(n, s)``.
    """
    vectors = vectors - vectors.mean(-1, keepdims=True)
    mean_ng = vectors.mean(0)
    lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(mean_ng, axis=-1)
    inner = np.einsum("sng,ng->sn", vectors, mean_ng)
    cosines_ns = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0).T
    angles_ns = np.arccos(np.clip(cosines_ns, -1, 1))

    def spread(x_ns: np.ndarray) -> np.ndarray:
        low, high = np.percentile(x_ns, [5, 95], axis=1)
        return high - low

    columns = {
        "directional_variance": angles_ns.var(1),
        "directional_difference": spread(angles_ns),
        "directional_cosine_sim_variance": cosines_ns.var(1),
        "directional_cosine_sim_difference": spread(cosines_ns),
        "directional_cosine_sim_mean": cosines_ns.mean(1),
    }
    return pd.DataFrame(columns, index=pd.Index(names)), cosines_ns


def transitions(x: np.ndarray, velocities: np.ndarray, n_neighbors: int) -> np.ndarray:
    r"""Mean step of each cell to its neighbours, those ahead counting most.

    .. math:: \sum_m w_{nm} (x_m - x_n), \qquad w_{nm} \propto \exp\bigl(10 \cos(v_n, x_m - x_n)\bigr)

    Parameters
    ----------
    x
        Where cells are, ``(n, g)``.
    velocities
        Draws of their velocities, ``(s, n, g)``.
    n_neighbors
        Nearest cells that each may move to.

    Returns
    -------
    ``(s, n, g)``.
    """
    n_cells = len(x)
    _, neighbours_nm = cKDTree(x).query(x, min(n_neighbors + 1, n_cells))
    steps = np.empty_like(velocities)
    for start in range(0, n_cells, _CELLS_AT_ONCE):
        part = slice(start, start + _CELLS_AT_ONCE)
        towards = x[neighbours_nm[part, 1:]] - x[part, None]
        unit = towards / np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-12)
        v = velocities[:, part]
        v = v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
        weights = np.exp(_SHARPNESS * (np.einsum("nmg,sng->snm", unit, v) - 1))
        weights /= weights.sum(-1, keepdims=True)
        steps[:, part] = np.einsum("snm,nmg->sng", weights, towards)
    return steps


def permuted_within(x: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each column permuted independently among the rows of each label.

    Parameters
    ----------
    x
        ``(n, g)``.
    labels
        ``(n,)``.
    rng
        The random generator.
    """
    out = np.array(x)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        out[rows] = rng.permuted(x[rows], axis=0)
    return out


def t_statistics(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Student's t of each column, ``(g,)``: positive where ``a`` is larger; NaN for a single row."""
    if len(a) < 2:
        return np.full(a.shape[1], np.nan)
    return np.asarray(stats.ttest_ind(a, b, axis=0).statistic)
