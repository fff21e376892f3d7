r"""Differential expression of each group against all other cells, by Welch's test on log-normalized counts.

.. math:: t_{cg} = \frac{\bar x_{cg} - \bar x_{\neg c g}}{\sqrt{s_{cg}^2 / n_c + s_{\neg cg}^2 / n_{\neg c}}}, \qquad
          \mathrm{lfc}_{cg} = \log_2 \frac{e^{\bar x_{cg}} - 1 + \epsilon}{e^{\bar x_{\neg cg}} - 1 + \epsilon}

Dims: n cells, g genes, c groups.
Reference: Welch, Biometrika 1947; p values are adjusted by Benjamini and Hochberg, 1995.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy import stats

__all__ = ["GroupTests", "compare_groups", "log_normalized"]

_TINY = 1e-9


@dataclass(frozen=True)
class GroupTests:
    """What the test found, each ``(c, g)``.

    Attributes
    ----------
    log_fold_change
        Binary logarithm of the fold change of the mean.
    adjusted_p
        p values, adjusted over the genes of a group.
    score
        The statistic t; 0 where nothing varies.
    """

    log_fold_change: np.ndarray
    adjusted_p: np.ndarray
    score: np.ndarray


def log_normalized(counts: sp.csr_matrix, target: float) -> sp.csr_matrix:
    """``log(1 + x)`` of counts scaled to the same total in every cell; empty cells stay empty."""
    counts = sp.csr_matrix(counts, dtype=np.float64)
    total_n = np.asarray(counts.sum(axis=1)).ravel()
    scale_n = target / np.where(total_n > 0, total_n, 1.0)
    return (sp.diags(scale_n) @ counts).tocsr().log1p()


def compare_groups(logs: sp.csr_matrix, codes: np.ndarray, n_groups: int) -> GroupTests:
    """Compare each group with all other cells.

    Parameters
    ----------
    logs
        Log-normalized counts, ``(n, g)``.
    codes
        Group of each cell, ``(n,)``.
    n_groups
        Number of groups, each with two cells or more inside and outside.
    """
    member_cn = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_groups, len(codes)))
    size_c1 = np.bincount(codes, minlength=n_groups)[:, None].astype(np.float64)
    sums_cg, squares_cg = (member_cn @ logs).toarray(), (member_cn @ logs.multiply(logs)).toarray()
    inside = _moments(sums_cg, squares_cg, size_c1)
    outside = _moments(sums_cg.sum(0) - sums_cg, squares_cg.sum(0) - squares_cg, size_c1.sum() - size_c1)
    with np.errstate(invalid="ignore", divide="ignore"):
        score, p = stats.ttest_ind_from_stats(
            inside[0], np.sqrt(inside[1]), size_c1, outside[0], np.sqrt(outside[1]), size_c1.sum() - size_c1, False
        )
    p = np.where(np.isnan(p), 1.0, p)
    fold = (np.expm1(inside[0]) + _TINY) / (np.expm1(outside[0]) + _TINY)
    adjusted = stats.false_discovery_control(p, axis=1)
    return GroupTests(np.log2(fold), adjusted, np.nan_to_num(score, nan=0.0))


def _moments(sums: np.ndarray, squares: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance."""
    mean = sums / n
    return mean, np.maximum(squares - n * mean**2, 0.0) / np.maximum(n - 1, 1)
