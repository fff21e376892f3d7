r"""What a latent space is drawn with and compared to: principal components, and a layout by neighbours.

The layout's objective is UMAP's (McInnes, Healy and Melville 2018): neighbours attract each other with the gradient of
:math:`-\log q`, random pairs repel with that of :math:`-\log(1 - q)`, :math:`q = 1 / (1 + a d^{2b})`. All edges move at
once, from the first two principal components on, so that the picture is the same every time.

Dims: n cells, g genes, k components or latents, m neighbours, e edges.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..core import checked
from .metrics import neighbours, perplexity_weights

__all__ = ["log_normalised", "neighbour_layout", "principal_components"]

_A, _B = 1.577, 0.895  # the curve of min_dist 0.1
_NEIGHBOURS, _PERPLEXITY = 15, 10.0
_STEPS, _REPELLED, _RATE, _START = 200, 8, 0.15, 5.0


def principal_components(x: np.ndarray, k: int) -> np.ndarray:
    """First principal components of rows.

    Parameters
    ----------
    x
        ``(n, g)``; the covariance, ``(g, g)``, is held in memory.
    k
        Components; at most ``g`` are given.

    Returns
    -------
    ``(n, k)`` float64, centred, variance falling; the largest loading of each component is positive.
    """
    x_ng = np.asarray(x, dtype=np.float64)
    x_ng = x_ng - x_ng.mean(0)
    _, loading_gk = np.linalg.eigh(x_ng.T @ x_ng)
    loading_gk = loading_gk[:, ::-1][:, :k]
    largest_k = np.abs(loading_gk).argmax(0)
    return x_ng @ (loading_gk * np.sign(loading_gk[largest_k, np.arange(loading_gk.shape[1])]))


def log_normalised(counts: Any, total: float | None = None) -> np.ndarray:
    r"""Counts on a common scale, :math:`\log(1 + t\, x_{ng} / \sum_h x_{nh})`.

    Parameters
    ----------
    counts
        ``(n, g)`` dense or sparse.
    total
        :math:`t`; the median total when not given.

    Returns
    -------
    ``(n, g)`` float32; an empty cell stays at zero.
    """
    x_ng = counts.toarray() if sp.issparse(counts) else np.asarray(counts)
    x_ng = x_ng.astype(np.float32)
    total_n1 = x_ng.sum(1, keepdims=True)
    scale = np.median(total_n1) if total is None else total
    return np.log1p(np.divide(scale * x_ng, total_n1, out=np.zeros_like(x_ng), where=total_n1 > 0))


@checked
def neighbour_layout(latent: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay cells out in two dimensions by their nearest neighbours.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    seed
        Of the pairs that repel each other.

    Returns
    -------
    ``(n, 2)`` float64. Distances within a cluster are comparable; those between clusters, and sizes, mean little.
    """
    z_nk = np.asarray(latent, dtype=np.float64)
    n = len(z_nk)
    place_nk = principal_components(z_nk, 2)
    place_n2 = np.pad(place_nk, ((0, 0), (0, 2 - place_nk.shape[1])))
    spread = place_n2.std()
    if n < 2 * _NEIGHBOURS or z_nk.shape[1] < 3 or spread == 0:
        return place_n2
    rng = np.random.default_rng(seed)
    edges = _edges(z_nk)
    head_e = np.repeat(np.arange(n), np.diff(edges.indptr))
    tail_e = edges.indices
    pull_e = edges.data / np.asarray(edges.sum(1)).ravel()[head_e]  # of one cell they sum to 1
    place_2n = np.ascontiguousarray(place_n2.T * (_START / spread), dtype=np.float32)
    for step in range(_STEPS):
        rate = _RATE * (1.0 - step / _STEPS)
        apart_2e = place_2n[:, tail_e] - place_2n[:, head_e]
        edges.data = _NEIGHBOURS * pull_e * _pull(apart_2e[0] ** 2 + apart_2e[1] ** 2)
        force_2n = np.stack([edges @ place - np.asarray(edges.sum(1)).ravel() * place for place in place_2n])
        force_2n += _pushed(place_2n, rng.integers(n, size=(_REPELLED, n)))
        place_2n += np.clip(rate * force_2n, -1.0, 1.0)
    return (place_2n - place_2n.mean(1, keepdims=True)).T.astype(np.float64)


def _edges(z_nk: np.ndarray) -> sp.csr_matrix:
    """Weights of neighbours, ``(n, n)`` and symmetric."""
    distance_nm, index_nm = neighbours(z_nk, _NEIGHBOURS)
    n, m = index_nm.shape
    weight_nm = perplexity_weights(distance_nm, min(_PERPLEXITY, m / 1.5))
    one_way = sp.csr_matrix((weight_nm.ravel(), index_nm.ravel(), np.arange(0, n * m + 1, m)), shape=(n, n))
    return sp.csr_matrix(one_way + one_way.T, dtype=np.float32)


def _pull(square_e: np.ndarray) -> np.ndarray:
    """How strongly both ends of an edge attract each other, over their distance: the gradient of -log q."""
    power_e = np.maximum(square_e, np.float32(1e-6)) ** np.float32(_B - 1.0)
    return np.float32(2 * _A * _B) * power_e / (1 + np.float32(_A) * power_e * square_e)


def _pushed(place_2n: np.ndarray, other_rn: np.ndarray) -> np.ndarray:
    """Sum over some other cells of the gradient of -log(1 - q), which drives a cell away from them, ``(2, n)``."""
    force_2n = np.zeros_like(place_2n)
    for other_n in other_rn:
        apart_2n = place_2n - place_2n[:, other_n]
        square_n = apart_2n[0] ** 2 + apart_2n[1] ** 2
        size_n = np.float32(2 * _B) / (
            (np.float32(1e-2) + square_n) * (1 + np.float32(_A) * square_n ** np.float32(_B))
        )
        force_2n += np.clip(size_n * apart_2n, -4.0, 4.0)
    return force_2n
