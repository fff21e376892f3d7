r"""Numba kernel: log-probability and gradients of open and closed regions, rows in one pass.

With :math:`t = e^{-|a|}`, :math:`q = d f` and :math:`r = 1 - q` (given without cancellation), the odds of a region
being seen to be open are

.. math:: e = P / (1 - P) = q / (t + r) \quad (a > 0), \qquad t q / (1 + t r) \quad (a \le 0)

so :math:`\log(1 - P) = -\log(1 + e)`, and the derivatives of it are :math:`-e (1 - p)`, :math:`-e (1 - d)` and
:math:`-e (1 - f)`; those of :math:`\log P` are the same with :math:`-e` replaced by 1. All regions are taken as closed
first, and the open ones, which are few, put right one by one in float64. Odds above 1e30 are taken as 1e30.
"""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from .kernels import INNER, LARGEST_RATIO, STRICT, F, Floats, exp_negative, log1p, sum_row

__all__ = ["accessibility_rows"]

SMALLEST = F(1e-30)


@njit(fastmath=STRICT, **INNER)
def odds_row(logits: Floats, d: np.float32, not_d: np.float32, f: Floats, not_f: Floats, odds: Floats) -> None:
    """Fill ``odds`` with P / (1 - P)."""
    for j in range(logits.size):
        a = logits[j]
        t = exp_negative(-abs(a))
        q = d * f[j]
        r = not_d + d * not_f[j]
        rest = t + r if a > F(0.0) else F(1.0) + t * r
        rest = SMALLEST if rest < SMALLEST else rest
        value = (q if a > F(0.0) else t * q) / rest
        odds[j] = LARGEST_RATIO if value > LARGEST_RATIO else value


@njit(fastmath=STRICT, **INNER)
def closed_row(odds: Floats, log_closed: Floats) -> None:
    """Log-probability of closed regions."""
    for j in range(odds.size):
        log_closed[j] = -log1p(odds[j])


@njit(fastmath=STRICT, **INNER)
def plain_row(logits: Floats, log_closed: Floats) -> None:
    """The same where there are no factors, for any logits: -softplus(a)."""
    for j in range(logits.size):
        a = logits[j]
        log_closed[j] = -((a if a > F(0.0) else F(0.0)) + log1p(exp_negative(-abs(a))))


@njit(fastmath=STRICT, **INNER)
def grad_closed_row(logits: Floats, odds: Floats, grad: Floats) -> None:
    """d/d logits of closed regions."""
    for j in range(logits.size):
        a = logits[j]
        t = exp_negative(-abs(a))
        grad[j] = -odds[j] * ((t if a > F(0.0) else F(1.0)) / (F(1.0) + t))


@njit(fastmath=STRICT, **INNER)
def grad_plain_row(logits: Floats, grad: Floats) -> None:
    """The same where there are no factors: -sigmoid(a)."""
    for j in range(logits.size):
        a = logits[j]
        t = exp_negative(-abs(a))
        grad[j] = -((F(1.0) if a > F(0.0) else t) / (F(1.0) + t))


@njit(fastmath=STRICT, **INNER)
def negate_row(odds: Floats, slopes: Floats) -> None:
    """Slopes = -odds."""
    for j in range(odds.size):
        slopes[j] = -odds[j]


@njit(**INNER)
def accessibility_rows(
    starts_n: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int32],
    counts: Floats,
    logits_ng: Floats,
    d_n: Floats,
    not_d_n: Floats,
    log_d_n: Floats,
    f_g: Floats,
    not_f_g: Floats,
    log_f_g: Floats,
    values_n: Floats,
    grad_logits_ng: Floats,
    grad_depth_n: Floats,
    slopes_ng: Floats,
    scratch: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop; which regions are open is given as CSR (counts of 0 are closed).

    Without rows in ``d_n`` there are no factors; without rows in ``grad_logits_ng`` no gradients, without rows in
    ``slopes_ng`` none for the regions. ``slopes_ng`` is the derivative by the logarithm of any factor.
    """
    odds, log_closed = scratch[0], scratch[1]
    has_factors, wants_gradients = d_n.size > 0, grad_logits_ng.shape[0] > 0
    for i in range(start, stop):
        logits = logits_ng[i]
        log_d, total = 0.0, 0.0
        if has_factors:
            odds_row(logits, d_n[i], not_d_n[i], f_g, not_f_g, odds)
            closed_row(odds, log_closed)
            log_d = np.float64(log_d_n[i])
        else:
            plain_row(logits, log_closed)
        total = sum_row(log_closed)
        slope = -sum_row(odds) if has_factors else 0.0
        if wants_gradients:
            if has_factors:
                grad_closed_row(logits, odds, grad_logits_ng[i])
            else:
                grad_plain_row(logits, grad_logits_ng[i])
            if slopes_ng.shape[0] > 0:
                negate_row(odds, slopes_ng[i])
        for k in range(starts_n[i], starts_n[i + 1]):
            if counts[k] > F(0.0):
                j = columns[k]
                a = np.float64(logits[j])
                t = math.exp(-abs(a))
                log_open = (a if a < 0.0 else 0.0) - math.log1p(t) + log_d
                if has_factors:
                    log_open += np.float64(log_f_g[j])
                    slope += 1.0 + np.float64(odds[j])
                total += log_open - np.float64(log_closed[j])
                if wants_gradients:
                    grad_logits_ng[i, j] = F((t if a > 0.0 else 1.0) / (1.0 + t))
                    if slopes_ng.shape[0] > 0:
                        slopes_ng[i, j] = F(1.0)
        values_n[i] = F(total)
        if wants_gradients and has_factors:
            grad_depth_n[i] = F(slope * np.float64(not_d_n[i]))
