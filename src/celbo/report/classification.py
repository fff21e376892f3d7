"""Predicted labels beside true ones, as plain arrays.

Dims: n cells, c classes, b bins of confidence.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Calibration", "area_under_roc", "calibration", "confusion_matrix"]


def confusion_matrix(true_n: np.ndarray, predicted_n: np.ndarray, n_classes: int) -> np.ndarray:
    """Cells by true and predicted class.

    Parameters
    ----------
    true_n, predicted_n
        Class codes below ``n_classes``, ``(n,)`` each.
    n_classes
        Classes.

    Returns
    -------
    ``(c, c)`` integers: row the true class, column the predicted one.
    """
    pair_n = np.asarray(true_n, dtype=np.intp) * n_classes + np.asarray(predicted_n, dtype=np.intp)
    return np.bincount(pair_n, minlength=n_classes**2).reshape(n_classes, n_classes)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy of cells binned by confidence; bins without cells are left out.

    Attributes
    ----------
    confidence_b
        Mean probability of the predicted class, ``(b,)``, rising.
    accuracy_b
        Share of the bin's cells whose predicted class is the true one, ``(b,)``.
    count_b
        Cells in the bin, ``(b,)``.
    """

    confidence_b: np.ndarray
    accuracy_b: np.ndarray
    count_b: np.ndarray

    @property
    def error(self) -> float:
        r"""Expected calibration error, :math:`\sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|`."""
        gap_b = np.abs(self.accuracy_b - self.confidence_b)
        return float(np.sum(self.count_b * gap_b) / self.count_b.sum())


def calibration(probability_nc: np.ndarray, true_n: np.ndarray, n_bins: int = 15) -> Calibration:
    """Bin cells by the probability of their most probable class.

    Parameters
    ----------
    probability_nc
        ``(n, c)``, rows that sum to 1; at least one row.
    true_n
        Codes of the true classes, ``(n,)``.
    n_bins
        Bins of equal width between 0 and 1; the upper end belongs to the bin.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, *On calibration of modern neural networks*, ICML 2017.
    """
    confidence_n = probability_nc.max(1).astype(np.float64)
    is_right_n = probability_nc.argmax(1) == true_n
    bin_n = np.clip(np.ceil(confidence_n * n_bins).astype(int), 1, n_bins) - 1
    count_b = np.bincount(bin_n, minlength=n_bins)
    used = count_b > 0
    confidence_b = np.bincount(bin_n, confidence_n, n_bins)[used] / count_b[used]
    accuracy_b = np.bincount(bin_n, is_right_n, n_bins)[used] / count_b[used]
    return Calibration(confidence_b, accuracy_b, count_b[used])


def area_under_roc(positive_n: np.ndarray, negative_m: np.ndarray) -> float:
    """Probability that the score of a positive is above that of a negative; ties count one half.

    Parameters
    ----------
    positive_n, negative_m
        Scores, at least one each.
    """
    negative_m = np.sort(negative_m)
    below_n = np.searchsorted(negative_m, positive_n, side="left")
    not_above_n = np.searchsorted(negative_m, positive_n, side="right")
    return float((below_n + not_above_n).mean() / (2 * len(negative_m)))
