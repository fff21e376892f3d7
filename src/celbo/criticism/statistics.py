r"""Statistics of counts that a generative model should reproduce.

Dims: n cells, g genes, s samples. Counts are ``sparse.COO`` arrays: ``(n, g)`` observed, ``(n, g, s)`` drawn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["coefficient_of_variation", "coverage", "zero_fraction"]

_NUMBERS_AT_ONCE = 2**22
"""Numbers of a dense table of draws."""


def coefficient_of_variation(counts: Any, axis: int) -> np.ndarray:
    r"""Standard deviation over mean along an axis, :math:`\sqrt{E x^2 - (E x)^2} / E x`; NaN where the mean is 0.

    Parameters
    ----------
    counts
        ``(n, g)`` or ``(n, g, s)``.
    axis
        0: over cells; 1: over genes.
    """
    counts = counts.astype(np.float64)
    mean = _dense(counts.mean(axis=axis))
    variance = np.maximum(_dense((counts * counts).mean(axis=axis)) - mean**2, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(variance) / mean


def zero_fraction(counts: Any) -> np.ndarray:
    """Share of cells without a count of each gene, ``(g,)`` or ``(g, s)``."""
    return 1.0 - _dense((counts != 0).sum(axis=0)) / counts.shape[0]


def coverage(observed: Any, drawn: Any, intervals: Sequence[tuple[float, float]]) -> np.ndarray:
    """Share of the observed entries that lie between two quantiles of their draws, both included.

    Parameters
    ----------
    observed, drawn
        Counts ``(n, g)`` and ``(n, g, s)``.
    intervals
        Levels of the lower and the upper quantile.

    Returns
    -------
    ``(i,)``.
    """
    n, g, s = drawn.shape
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, g * s))
    lower, upper = np.asarray(intervals, dtype=np.float64).T
    inside_i = np.zeros(len(lower))
    for start in range(0, n, at_once):
        x_ng = _dense(observed[start : start + at_once])
        draws_ngs = _dense(drawn[start : start + at_once])
        low_ing, high_ing = np.quantile(draws_ngs, lower, axis=-1), np.quantile(draws_ngs, upper, axis=-1)
        inside_i += ((low_ing <= x_ng) & (x_ng <= high_ing)).sum(axis=(1, 2))
    return inside_i / max(n * g, 1)


def _dense(array: Any) -> np.ndarray:
    """A ``sparse`` array, or what its reductions gave, as numpy's."""
    return np.asarray(array if isinstance(array, np.ndarray | np.generic) else array.todense())
