r"""Where CellAssign begins: an EM of its own on some cells, started from the markers and chosen by its likelihood.

The model here is the mixture without covariates, with rates :math:`r_{gc}` and one inverse dispersion a gene,

.. math:: x_{ng} \mid y_n = c \sim \mathrm{NB}(s_n r_{gc}, \theta_g), \qquad
          r_{gc} = b_g \text{ for } \rho_{gc} = 0, \quad r_{gc} \ge e^{2} b_g \text{ for } \rho_{gc} = 1,

whose maximization has a closed form. The likelihood has poor optima, in which a type without markers takes the cells of
another one; gradient steps from random values end there for some seeds.

Dims: n cells, g genes, c cell types.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import gammaln, logsumexp
from torch import Tensor

from ...core import REGISTRY_KEYS
from .module import CellAssignModule

__all__ = ["Start", "Survey", "marker_start", "start_from_markers", "survey_of"]

_MOST_ITERATIONS = 200
_TOLERANCE = 1e-7
_PRIOR_COUNT = 0.1
_THETA_BETWEEN = (0.2, 1e3)


_CELLS_TO_START_FROM = 20_000


class Survey(NamedTuple):
    """What training begins with.

    Attributes
    ----------
    low, high
        Smallest and largest count of all cells.
    counts_ng, size_n
        Counts ``(n, g)`` and size factors ``(n,)`` of some cells.
    """

    low: float
    high: float
    counts_ng: np.ndarray
    size_n: np.ndarray

    @property
    def sizes_are_totals(self) -> bool:
        """Whether the size factors are a multiple of the totals of the marker genes."""
        ratio_n = self.counts_ng.sum(1) / self.size_n
        return len(ratio_n) > 1 and bool(np.ptp(ratio_n) <= 1e-4 * ratio_n.max()) and bool(np.ptp(self.size_n) > 0)


def survey_of(batches: Iterable[Mapping[str, Tensor]], n_cells: int) -> Survey:
    """Look at all cells, and keep at most 20,000 to begin with.

    Parameters
    ----------
    batches
        Minibatches with counts and size factors.
    n_cells
        Cells in all.
    """
    low, high, counts, sizes = math.inf, -math.inf, [], []
    every = -(-n_cells // _CELLS_TO_START_FROM)
    for tensors in batches:
        x_ng = tensors[REGISTRY_KEYS.X_KEY]
        low, high = min(low, float(x_ng.min())), max(high, float(x_ng.max()))
        counts.append(x_ng[::every].numpy())
        sizes.append(tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY][::every, 0].numpy())
    counts_ng, size_n = np.concatenate(counts).astype(np.float64), np.concatenate(sizes).astype(np.float64)
    return Survey(low, max(high, low + 1), counts_ng, size_n)


@torch.no_grad()
def start_from_markers(module: CellAssignModule, survey: Survey) -> None:
    """Put the values that :func:`marker_start` finds into the module."""
    start = marker_start(survey.counts_ng, survey.size_n, module.rho.numpy(), module.min_delta)
    module.b_g_0.copy_(torch.as_tensor(start.log_base_g))
    module.delta_log.copy_(torch.as_tensor(start.log_fold_gc).log())
    module.theta_logit.copy_(torch.as_tensor(start.log_share_c))


class Start(NamedTuple):
    """Values to begin with.

    Attributes
    ----------
    log_base_g
        Log rate of each gene in cells of types that it does not mark, ``(g,)``.
    log_fold_gc
        Log fold change where it marks the type, ``(g, c)``; the smallest allowed elsewhere.
    log_share_c
        Log share of each type, ``(c,)``.
    log_likelihood
        Of the cells, in nats.
    """

    log_base_g: np.ndarray
    log_fold_gc: np.ndarray
    log_share_c: np.ndarray
    log_likelihood: float


def marker_start(x_ng: np.ndarray, size_n: np.ndarray, rho_gc: np.ndarray, smallest_fold: float) -> Start:
    """Fit the mixture by EM from two assignments by markers, and give the likelier.

    Parameters
    ----------
    x_ng
        Counts, ``(n, g)``.
    size_n
        Size factors, positive, ``(n,)``.
    rho_gc
        Which gene marks which type, ``(g, c)`` of 0 and 1.
    smallest_fold
        Smallest log fold change of a marker.
    """
    score_nc = _scores(x_ng / size_n[:, None], rho_gc)
    fitted = [_em(x_ng, size_n, rho_gc, smallest_fold, gamma_nc) for gamma_nc in _assignments(score_nc, rho_gc)]
    return max(fitted, key=lambda start: start.log_likelihood)


def _scores(rate_ng: np.ndarray, rho_gc: np.ndarray) -> np.ndarray:
    """Mean of each type's markers on a log scale, each gene scaled by its spread; -inf for a type without markers."""
    log_ng = np.log1p(rate_ng)
    log_ng = (log_ng - log_ng.mean(0)) / np.maximum(log_ng.std(0), 1e-6)
    n_markers_c = rho_gc.sum(0)
    return np.where(n_markers_c > 0, log_ng @ rho_gc / np.maximum(n_markers_c, 1), -np.inf)


def _assignments(score_nc: np.ndarray, rho_gc: np.ndarray) -> list[np.ndarray]:
    """Each cell to its best type; the same, but cells below the threshold of all types to those without markers."""
    best_n = score_nc.argmax(1)
    found = [_one_hot(best_n, score_nc.shape[1])]
    unmarked_c = rho_gc.sum(0) == 0
    if unmarked_c.any() and not unmarked_c.all():
        over_nc = score_nc - np.array(
            [_threshold(score_n) if np.isfinite(score_n).all() else 0.0 for score_n in score_nc.T]
        )
        gamma_nc = found[0].copy()
        gamma_nc[over_nc.max(1) < 0] = unmarked_c / unmarked_c.sum()
        found.append(gamma_nc)
    return found


def _threshold(score_n: np.ndarray) -> float:
    """Half way between the two groups that two means find."""
    low, high = np.quantile(score_n, [0.05, 0.95])
    for _ in range(50):
        middle = (low + high) / 2
        is_high_n = score_n > middle
        if is_high_n.all() or not is_high_n.any():
            break
        low, high = score_n[~is_high_n].mean(), score_n[is_high_n].mean()
    return (low + high) / 2


def _one_hot(code_n: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes)[code_n]


def _em(x_ng: np.ndarray, size_n: np.ndarray, rho_gc: np.ndarray, smallest_fold: float, gamma_nc: np.ndarray) -> Start:
    before = -np.inf
    for _ in range(_MOST_ITERATIONS):
        rate_gc = _rates(x_ng, size_n, rho_gc, smallest_fold, gamma_nc)
        theta_g = _dispersions(x_ng, size_n, rate_gc, gamma_nc)
        share_c = (gamma_nc.sum(0) + _PRIOR_COUNT) / (len(x_ng) + _PRIOR_COUNT * gamma_nc.shape[1])
        log_joint_nc = np.log(share_c) + _log_likelihoods(x_ng, size_n, rate_gc, theta_g)
        log_total_n = logsumexp(log_joint_nc, axis=1)
        gamma_nc, now = np.exp(log_joint_nc - log_total_n[:, None]), float(log_total_n.sum())
        if now - before < _TOLERANCE * abs(now):
            break
        before = now
    base_g = _base(rate_gc, rho_gc, smallest_fold)
    log_fold_gc = np.where(rho_gc > 0, np.log(rate_gc / base_g[:, None]), smallest_fold)
    return Start(np.log(base_g), np.maximum(log_fold_gc, smallest_fold), np.log(share_c), now)


def _rates(
    x_ng: np.ndarray, size_n: np.ndarray, rho_gc: np.ndarray, smallest_fold: float, gamma_nc: np.ndarray
) -> np.ndarray:
    """Rates of each gene in each type: 1 unless it is a marker; those of markers are free but larger."""
    counts_gc, sizes_c = x_ng.T @ gamma_nc + _PRIOR_COUNT, size_n @ gamma_nc + 1.0
    own_gc, other_gc = rho_gc > 0, rho_gc == 0
    base_g = (counts_gc * other_gc).sum(1) / np.maximum((sizes_c * other_gc).sum(1), 1e-12)
    rate_gc = counts_gc / sizes_c
    nowhere_else_g = ~other_gc.any(1)
    base_g[nowhere_else_g] = rate_gc[nowhere_else_g].min(1) * np.exp(-smallest_fold)
    return np.where(own_gc, np.maximum(rate_gc, base_g[:, None] * np.exp(smallest_fold)), base_g[:, None])


def _base(rate_gc: np.ndarray, rho_gc: np.ndarray, smallest_fold: float) -> np.ndarray:
    return np.where(rho_gc > 0, rate_gc * np.exp(-smallest_fold), rate_gc).min(1)


def _dispersions(x_ng: np.ndarray, size_n: np.ndarray, rate_gc: np.ndarray, gamma_nc: np.ndarray) -> np.ndarray:
    """Inverse dispersion of each gene by the method of moments."""
    mean_ng = size_n[:, None] * (gamma_nc @ rate_gc.T)
    excess_g = (np.square(x_ng - mean_ng) - mean_ng).sum(0)
    return np.clip(np.square(mean_ng).sum(0) / np.maximum(excess_g, 1e-12), *_THETA_BETWEEN)


def _log_likelihoods(x_ng: np.ndarray, size_n: np.ndarray, rate_gc: np.ndarray, theta_g: np.ndarray) -> np.ndarray:
    """Log probability of each cell's counts under each type, ``(n, c)``."""
    of_counts_n = (gammaln(x_ng + theta_g) - gammaln(theta_g) - gammaln(x_ng + 1)).sum(1)
    log_nc = np.empty((len(x_ng), rate_gc.shape[1]))
    for c, rate_g in enumerate(rate_gc.T):
        mean_ng = size_n[:, None] * rate_g
        log_both_ng = np.log(mean_ng + theta_g)
        log_nc[:, c] = (theta_g * (np.log(theta_g) - log_both_ng) + x_ng * (np.log(mean_ng) - log_both_ng)).sum(1)
    return log_nc + of_counts_n[:, None]
