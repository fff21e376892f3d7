r"""How well labels are predicted: pure functions of logits and labels.

Averages are micro averages: every cell counts alike, whatever its class.

Dims: n cells, c classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["METRIC_KEYS", "accuracy", "calibration_error", "classification_metrics", "f1_score"]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of cells whose most probable class is their label.

    Parameters
    ----------
    logits
        ``(n, c)``.
    labels
        ``(n,)`` or ``(n, 1)`` class codes.

    Returns
    -------
    Tensor of no dimension; NaN for no cells.
    """
    return (logits.argmax(-1) == labels.reshape(-1)).float().mean()


def f1_score(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Micro-averaged F1 score.

    .. math:: F_1 = \frac{2 \sum_c \mathrm{TP}_c}{2 \sum_c \mathrm{TP}_c + \sum_c \mathrm{FP}_c + \sum_c \mathrm{FN}_c}

    A cell with one label and one prediction that is wrong is one false positive and one false negative, so this is
    the :func:`accuracy`; it is worked out by its own formula.

    Parameters and return value are those of :func:`accuracy`.
    """
    codes_c = torch.arange(logits.shape[-1], device=logits.device)
    predicted_nc = logits.argmax(-1)[:, None] == codes_c
    true_nc = labels.reshape(-1, 1) == codes_c
    doubled = 2 * (predicted_nc & true_nc).sum()
    return doubled / (doubled + (predicted_nc ^ true_nc).sum())


def calibration_error(logits: Tensor, labels: Tensor, n_bins: int = 15) -> Tensor:
    r"""Expected calibration error: how far confidence is from accuracy.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    over cells binned by confidence, the probability of the most probable class.

    Parameters
    ----------
    logits
        ``(n, c)``. Always taken for logits, also where all lie in [0, 1].
    labels
        ``(n,)`` or ``(n, 1)`` class codes.
    n_bins
        Bins of equal width between 0 and 1.

    Returns
    -------
    Tensor of no dimension.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, *On calibration of modern neural networks*, ICML 2017.
    """
    confidence_n, predicted_n = logits.softmax(-1).max(-1)
    gap_n = (predicted_n == labels.reshape(-1)).to(confidence_n.dtype) - confidence_n
    bin_n = (confidence_n * n_bins).ceil().long().clamp(1, n_bins) - 1
    gap_b = gap_n.new_zeros(n_bins).index_add_(0, bin_n, gap_n)  # n_b (acc_b - conf_b)
    return gap_b.abs().sum() / len(gap_n)


@torch.no_grad()
def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``accuracy``, ``f1_score`` and ``calibration_error`` of a minibatch."""
    return {
        "accuracy": accuracy(logits, labels),
        "f1_score": f1_score(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }


class _MetricKeys(NamedTuple):
    TRAINING_KEY: str = "training"
    VALIDATION_KEY: str = "validation"
    ACCURACY_KEY: str = "accuracy"
    F1_SCORE_KEY: str = "f1_score"
    CALIBRATION_ERROR_KEY: str = "calibration_error"
    AUROC_KEY: str = "auroc"
    CLASSIFICATION_LOSS_KEY: str = "classification_loss"
    TRUE_LABELS_KEY: str = "true_labels"
    LOGITS_KEY: str = "logits"


METRIC_KEYS = _MetricKeys()
