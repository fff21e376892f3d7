"""Linear projections: what a latent space is drawn with and compared to. No randomness.

Dims: n cells, g genes, k components.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["log_normalised", "principal_components"]


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
