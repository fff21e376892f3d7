r"""Where each sample's cells are dense: the log-density of every sample's aggregated posterior at every cell.

.. math:: \ell_{ns} = \log \frac{1}{|s|} \sum_{m \in s} q(z_n \mid x_m), \qquad z_n = \mathbb{E}[q(z \mid x_n)]

Of normal components only a block of pairs of cells is held at a time, and its log-densities come from two matrix
products in float64. Differences between columns (or between means over groups of them) say in which sample cells like
n abound.

Dims: n cells, m components (cells of a sample), k latents, s samples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from ..core import settings
from ..ops.random import fresh_seed
from .embedding import aggregated_posterior
from .passes import MAX_DECODED

__all__ = ["blocks_of_pairs", "by_sample", "sample_densities", "sample_log_densities"]

_PAIRS = 2**23


def blocks_of_pairs(
    u_nk: np.ndarray, mean_mk: np.ndarray, variance_mk: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Log-density of normal components at cells, ``(n, m)``, some cells at a time.

    Parameters
    ----------
    u_nk
        Where the cells are.
    mean_mk, variance_mk
        Of each component.
    """
    centre = mean_mk.mean(0, dtype=float)
    u_nk, mean_mk = u_nk - centre, mean_mk - centre
    precision_mk = 1 / variance_mk.astype(float)
    weights = np.concatenate([-0.5 * precision_mk, mean_mk * precision_mk], axis=1).T
    constant_m = -0.5 * (np.square(mean_mk) * precision_mk + np.log(2 * np.pi / precision_mk)).sum(1)
    step = max(1, _PAIRS // len(mean_mk))
    for start in range(0, len(u_nk), step):
        part = slice(start, start + step)
        yield part, np.concatenate([np.square(u_nk[part]), u_nk[part]], axis=1) @ weights + constant_m


def by_sample(
    u_nk: np.ndarray, variance_nk: np.ndarray, cells_of: Sequence[np.ndarray], reduce: Callable[..., np.ndarray]
) -> np.ndarray:
    """A figure of the log-densities of each sample's components at each cell, ``(n, s)``.

    Parameters
    ----------
    u_nk, variance_nk
        Mean and variance of the posterior of each cell.
    cells_of
        Row numbers of the cells of each sample.
    reduce
        ``(values, axis)``: what is made of them, such as the largest.
    """
    values_ns = np.empty((len(u_nk), len(cells_of)), np.float32)
    for s, cells in enumerate(cells_of):
        for part, density_nm in blocks_of_pairs(u_nk, u_nk[cells], variance_nk[cells]):
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
    densities_ns = by_sample(u_nk, variance_nk, cells_of, logsumexp)
    return densities_ns - np.log([len(cells) for cells in cells_of]).astype(np.float32)


def sample_log_densities(
    mean_nk: np.ndarray,
    variance_nk: np.ndarray,
    sample_n: np.ndarray,
    samples: Sequence[Any],
    *,
    dof: float | None = None,
    max_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Log-density of each sample at the posterior mean of each cell.

    Parameters
    ----------
    mean_nk, variance_nk
        Of each cell's posterior, ``(n, k)``.
    sample_n
        Sample of each cell.
    samples
        The samples to give, in order; each has a cell.
    dof
        Degrees of freedom of Student's t components; None: normal ones.
    max_cells
        Cells of a sample that its mixture has at most, drawn without replacement; None: all.
    seed
        Of that draw; None: ``celbo.settings.seed``, and fresh randomness where that is None too.

    Returns
    -------
    ``(n, s)`` float32, in nats.
    """
    rng = np.random.default_rng(fresh_seed(settings.seed if seed is None else seed))
    cells_of = [np.flatnonzero(sample_n == sample) for sample in samples]
    if max_cells is not None:
        cells_of = [c if len(c) <= max_cells else np.sort(rng.choice(c, max_cells, replace=False)) for c in cells_of]
    if dof is None:
        return sample_densities(mean_nk, variance_nk, cells_of)
    z_nk, columns = torch.from_numpy(mean_nk), []
    for cells in cells_of:
        mixture = aggregated_posterior(mean_nk[cells], variance_nk[cells], dof)
        at_once = max(1, MAX_DECODED // (len(cells) * mean_nk.shape[1]))
        columns.append(torch.cat([mixture.log_prob(block_nk) for block_nk in z_nk.split(at_once)]))
    return torch.stack(columns, dim=1).numpy()
