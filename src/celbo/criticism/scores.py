"""How well differential expression of drawn counts agrees with that of the observed ones.

Dims: g genes.
"""

import numpy as np
from scipy import stats

from .differential import GroupTests

__all__ = ["agreement"]


def agreement(raw: GroupTests, drawn: GroupTests, group: int, p_val_thresh: float, n_top: int) -> dict[str, float]:
    """Agreement of two tests of one group against all other cells.

    Parameters
    ----------
    raw, drawn
        Tests of the observed and of the drawn counts.
    group
        Code of the group.
    p_val_thresh
        Genes with a smaller adjusted p value are called.
    n_top
        How many genes are called where none is below it, a tenth of all at most.

    Returns
    -------
    ``gene_f1``, of the called genes; ``lfc_mae``, ``lfc_pearson`` and ``lfc_spearman`` of the log fold changes;
    ``roc_auc`` and ``pr_auc`` (average precision) of the drawn counts' ``|t|`` for the genes called in the observed
    ones. NaN where a figure does not exist.
    """
    truth, found = (_called(tests, group, p_val_thresh, n_top) for tests in (raw, drawn))
    raw_lfc, drawn_lfc = raw.log_fold_change[group], drawn.log_fold_change[group]
    strength = np.abs(drawn.score[group])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "gene_f1": 2.0 * np.count_nonzero(truth & found) / max(1, truth.sum() + found.sum()),
            "lfc_mae": float(np.abs(raw_lfc - drawn_lfc).mean()),
            "lfc_pearson": _correlation(raw_lfc, drawn_lfc),
            "lfc_spearman": _correlation(stats.rankdata(raw_lfc), stats.rankdata(drawn_lfc)),
            "roc_auc": roc_auc(truth, strength),
            "pr_auc": average_precision(truth, strength),
        }


def _called(tests: GroupTests, group: int, p_val_thresh: float, n_top: int) -> np.ndarray:
    below = tests.adjusted_p[group] < p_val_thresh
    if below.any():
        return below
    n_top = min(n_top, max(1, len(below) // 10))
    first = np.lexsort((-np.abs(tests.score[group]), tests.adjusted_p[group]))[:n_top]
    return np.isin(np.arange(len(below)), first)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def roc_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Probability that a true one scores above another one, ties half; NaN where one of the two kinds is missing."""
    n_true, n_false = np.count_nonzero(truth), np.count_nonzero(~truth)
    if not n_true or not n_false:
        return float("nan")
    above = stats.rankdata(score)[truth].sum() - n_true * (n_true + 1) / 2
    return float(above / (n_true * n_false))


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Mean, over the true ones, of the share of true ones among all that score as high or higher; NaN without any."""
    if not truth.any():
        return float("nan")
    at_least = score[None, :] >= score[truth][:, None]
    return float(((at_least & truth).sum(1) / at_least.sum(1)).mean())
