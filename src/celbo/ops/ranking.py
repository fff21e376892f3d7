r"""Area under the receiver operating characteristic: how often a positive scores above a negative.

.. math:: \mathrm{AUROC} = P(s_+ > s_-) + \tfrac{1}{2} P(s_+ = s_-)

exactly, by a sort of all scores, or from counts of scores in bins, which add up over minibatches.
"""

import torch
from torch import Tensor

__all__ = ["area_of", "auroc", "binned"]

_REACH = 12.0
"""Logits beyond which scores share the last bin: probabilities within 6e-6 of 0 or 1."""


def auroc(scores: Tensor, is_positive: Tensor) -> Tensor:
    """The area, exactly; NaN where all or none are positive.

    Parameters
    ----------
    scores
        Any shape, larger for positives.
    is_positive
        Booleans of that shape.
    """
    order = scores.flatten().double()
    positive = is_positive.flatten()
    values, place = order.unique(return_inverse=True)
    counts = torch.zeros(2, len(values), dtype=torch.float64, device=scores.device)
    return area_of(counts.index_put_((positive.long(), place), torch.ones_like(order), accumulate=True))


def binned(logits: Tensor, is_positive: Tensor, n_bins: int) -> Tensor:
    """How many negatives, and how many positives, have logits in each of equal bins from -12 to 12, ``(2, n_bins)``.

    Parameters
    ----------
    logits, is_positive
        Any shape, the same for both. A logit that is no number counts as the lowest: whoever trains on it is told.
    n_bins
        Bins; scores within one count as equal. With 512 a bin is 0.05 wide.
    """
    step = 2 * _REACH / n_bins
    place = ((logits.detach().flatten().float() + _REACH) / step).nan_to_num(0.0).clamp(0, n_bins - 1).long()
    place += n_bins * is_positive.flatten()
    counts = torch.zeros(2 * n_bins, dtype=torch.float64, device=logits.device)
    return counts.index_add_(0, place, torch.ones_like(place, dtype=torch.float64)).view(2, n_bins)


def area_of(counts: Tensor) -> Tensor:
    """The area from counts of negatives and of positives by ascending score, ``(2, k)``."""
    negative, positive = counts
    below = negative.cumsum(0) - negative / 2
    return (positive * below).sum() / (positive.sum() * negative.sum())
