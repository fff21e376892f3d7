r"""How dense the cells of each sample are where a cell lies, in u.

.. math:: \ell_{ns} = \log \tfrac{1}{|s|} \sum_{m \in s} q_m(u_n), \qquad
          h_{ns} = \max_{m \in s} \log q_m(u_n)

The sum says in which samples cells like n abound, the maximum whether a sample has any cell like it. Of pairs of cells
only a block is held at a time, and its log-densities come from two matrix products in float64.

Dims: n cells, m components (cells of a sample), s samples, k latents.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import logsumexp

from ...core import ArgumentError

__all__ = ["enrichment", "nearest_components", "outliers", "sample_densities"]

_PAIRS = 2**23


def _blocks(u_nk: np.ndarray, mean_mk: np.ndarray, variance_mk: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Log-density of components at cells, ``(n, m)``, some cells at a time."""
    centre = mean_mk.mean(0, dtype=float)
    u_nk, mean_mk = u_nk - centre, mean_mk - centre
    precision_mk = 1 / variance_mk.astype(float)
    weights = np.concatenate([-0.5 * precision_mk, mean_mk * precision_mk], axis=1).T
    constant_m = -0.5 * (np.square(mean_mk) * precision_mk + np.log(2 * np.pi / precision_mk)).sum(1)
    step = max(1, _PAIRS // len(mean_mk))
    for start in range(0, len(u_nk), step):
        part = slice(start, start + step)
        yield part, np.concatenate([np.square(u_nk[part]), u_nk[part]], axis=1) @ weights + constant_m


def _by_sample(
    u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray], reduce: Callable[..., np.ndarray]
) -> np.ndarray:
    values_ns = np.empty((len(u_nk), len(cells_of)), np.float32)
    for s, cells in enumerate(cells_of):
        for part, density_nm in _blocks(u_nk, u_nk[cells], variance_nk[cells]):
            values_ns[part, s] = reduce(density_nm, axis=1)
    return values_ns


def sample_densities(u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray]) -> np.ndarray:
    """Log-density of the mixture of each sample's posteriors at each cell, ``(n, s)`` in nats.

    Parameters
    ----------
    u_nk, variance_nk
        Mean and variance of the posterior of each cell.
    cells_of
        Row numbers of the cells of each sample.
    """
    densities_ns = _by_sample(u_nk, variance_nk, cells_of, logsumexp)
    return densities_ns - np.log([len(cells) for cells in cells_of]).astype(np.float32)


def nearest_components(u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray]) -> np.ndarray:
    """Largest log-density of a posterior of each sample at each cell, ``(n, s)`` in nats; arguments as before."""
    return _by_sample(u_nk, variance_nk, cells_of, np.max)


def enrichment(
    densities_ns: np.ndarray, own_n: np.ndarray | None, group_s: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities of groups of samples, and of each less that of all other samples, ``(n, groups)`` each.

    Parameters
    ----------
    densities_ns
        Log-density of each sample.
    own_n
        Column of each cell's own sample, which is left out of its groups: where it is, there are cells like it; None:
        it is not. Negative: none of them.
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
    """Log of the mean of densities that are there; NaN where none is."""
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
            for part, density_nm in _blocks(u_nk[cells], u_nk[cells], variance_nk[cells]):
                rows = np.arange(len(density_nm))
                density_nm[rows, part.start + rows] = -np.inf
                own.append(density_nm.max(1))
    if not own:
        raise ArgumentError("Every sample has one cell: there is no second one to say what lies near it.")
    return nearest_components(u_nk, variance_nk, cells_of), float(np.quantile(np.concatenate(own), share))
