r"""Numba kernels: log-probability of open and closed regions, and its gradients, each in one pass.

With :math:`t = e^{-|a|}`, :math:`q = d f` and :math:`r = 1 - q` (given without cancellation), the odds of a region
being seen to be open are

.. math:: e = P / (1 - P) = q / (t + r) \quad (a > 0), \qquad t q / (1 + t r) \quad (a \le 0)

so :math:`\log(1 - P) = -\log(1 + e)`, and the derivatives of it are :math:`-e (1 - p)`, :math:`-e (1 - d)` and
:math:`-e (1 - f)`; those of :math:`\log P` are the same with :math:`-e` replaced by 1. All regions are taken as closed
first, and the open ones, which are few, put right one by one in float64. Odds above 1e30 are taken as 1e30.

The gradients are computed on the way back, when their factor is known, from the logits: one table as large as these is
written then, and none before. That costs a second round of exponentials and saves three tables, whose fresh pages cost
more where there are 50,000 regions.
"""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from .csr_kernel import add_scaled
from .kernels import INNER, LARGEST_RATIO, STRICT, F, Floats, exp_negative, log1p, sum_row

__all__ = ["REGIONS", "accessibility_gradient_blocks", "accessibility_rows"]

SMALLEST = F(1e-30)

REGIONS = 2048
"""Regions of which the gradients are computed together, over all rows: their sums stay in the nearest cache."""


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


@njit(**INNER)
def copy_row(source: Floats, target: Floats) -> None:
    """Target = source: numba would make a copy in between, for which the loops have no memory."""
    for j in range(target.size):
        target[j] = source[j]


@njit(fastmath=STRICT, **INNER)
def scale_row(factor: np.float32, row: Floats) -> None:
    """Row *= factor."""
    for j in range(row.size):
        row[j] *= factor


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
    grad_depth_n: Floats,
    scratch: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop, and their derivatives by the cells' factors; which regions are open is given as CSR.

    Counts of 0 are closed. Without rows in ``d_n`` there are no factors.
    """
    odds, log_closed = scratch[0], scratch[1]
    has_factors = d_n.size > 0
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
        values_n[i] = F(total)
        if has_factors:
            grad_depth_n[i] = F(slope * np.float64(not_d_n[i]))


@njit(**INNER)
def place_of(columns: npt.NDArray[np.int32], first: int, last: int, wanted: int) -> int:
    """The first place in ``first..last`` whose column is at least the one wanted."""
    while first < last:
        middle = (first + last) // 2
        if columns[middle] < wanted:
            first = middle + 1
        else:
            last = middle
    return first


@njit(**INNER)
def accessibility_gradient_blocks(
    starts_n: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int32],
    counts: Floats,
    upstream_n: Floats,
    logits_ng: Floats,
    d_n: Floats,
    not_d_n: Floats,
    f_g: Floats,
    not_f_g: Floats,
    grad_logits_ng: Floats,
    slopes_g: Floats,
    scratch: Floats,
    start: int,
    stop: int,
) -> None:
    """Blocks start..stop of the regions: gradients times those upstream; a row's open regions are in ascending order.

    Without entries in ``slopes_g`` there is none for the regions; it is the derivative by the logarithm of a region's
    factor, summed over cells in their order, whichever thread does it.
    """
    n, g = logits_ng.shape
    has_factors, wants_slopes = d_n.size > 0, slopes_g.size > 0
    for block in range(start, stop):
        left, right = block * REGIONS, min((block + 1) * REGIONS, g)
        odds, sums = scratch[0, : right - left], scratch[1, : right - left]
        sums[:] = F(0.0)
        for i in range(n):
            logits, grad = logits_ng[i, left:right], grad_logits_ng[i, left:right]
            if has_factors:
                odds_row(logits, d_n[i], not_d_n[i], f_g[left:right], not_f_g[left:right], odds)
                grad_closed_row(logits, odds, grad)
            else:
                grad_plain_row(logits, grad)
            for k in range(place_of(columns, starts_n[i], starts_n[i + 1], left), starts_n[i + 1]):
                if columns[k] >= right:
                    break
                if counts[k] > F(0.0):
                    j = columns[k] - left
                    a = np.float64(logits[j])
                    t = math.exp(-abs(a))
                    grad[j] = F((t if a > 0.0 else 1.0) / (1.0 + t))
                    odds[j] = F(-1.0)
            scale_row(upstream_n[i], grad)
            if wants_slopes:
                add_scaled(sums, odds, -upstream_n[i])
        if wants_slopes:
            copy_row(sums, slopes_g[left:right])
