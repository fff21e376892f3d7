r"""Densities of groups of samples at a cell's u, and whether a sample has a cell like it at all.

.. math:: h_{ns} = \max_{m \in s} \log q_m(u_n)

Densities of samples are those of :mod:`celbo.posterior.abundance`.

Dims: n cells, m components (cells of a sample), s samples, k latents.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from ...core import ArgumentError
from ...posterior.abundance import blocks_of_pairs, by_sample

__all__ = ["enrichment", "nearest_components", "outliers"]


def nearest_components(u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray]) -> np.ndarray:
    """Largest log-density of a posterior of each sample at each cell, ``(n, s)`` in nats.

    Parameters
    ----------
    u_nk, variance_nk, cells_of
        As in :func:`celbo.posterior.sample_densities`.
    """
    return by_sample(u_nk, variance_nk, cells_of, np.max)


def enrichment(
    densities_ns: np.ndarray, own_n: np.ndarray | None, group_s: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities of groups of samples, and how far each exceeds that of all other samples, ``(n, groups)`` each.

    Parameters
    ----------
    densities_ns
        Log-density of each sample.
    own_n
        Column of each cell's own sample, which is left out of its groups because it has cells like this one; None:
        nothing is left out. Negative: no sample of these.
    group_s
        Group of each sample.
    n_groups
        Number of groups.
    """
    kept_ns = densities_ns.astype(float)
    if own_n is not None:
        rows = np.flatnonzero(own_n >= 0)
        kept_ns[rows, own_n[rows]] = -np.inf
    inside = [_log_mean(kept_ns[:, group_s == g]) for g in range(n_groups)]
    outside = [_log_mean(kept_ns[:, group_s != g]) for g in range(n_groups)]
    return np.stack(inside, 1), np.stack(inside, 1) - np.stack(outside, 1)


def _log_mean(values_ns: np.ndarray) -> np.ndarray:
    """Log of the mean of the densities that are not missing; NaN where all are."""
    count_n = np.isfinite(values_ns).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total_n = logsumexp(values_ns, axis=1) if values_ns.shape[1] else np.full(len(values_ns), -np.inf)
        return np.where(count_n > 0, total_n - np.log(count_n), np.nan)


def outliers(
    u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray], share: float
) -> tuple[np.ndarray, float]:
    """:func:`nearest_components`, and the value that a share of all cells lies below in their own sample.

    For that value a cell's own posterior is left out.

    Raises
    ------
    ArgumentError
        Every sample has one cell only.
    """
    own: list[np.ndarray] = []
    for cells in cells_of:
        if len(cells) > 1:
            for part, density_nm in blocks_of_pairs(u_nk[cells], u_nk[cells], variance_nk[cells]):
                rows = np.arange(len(density_nm))
                density_nm[rows, part.start + rows] = -np.inf
                own.append(density_nm.max(1))
    if not own:
        raise ArgumentError("Every sample has one cell, and a distance needs two.")
    return nearest_components(u_nk, variance_nk, cells_of), float(np.quantile(np.concatenate(own), share))
