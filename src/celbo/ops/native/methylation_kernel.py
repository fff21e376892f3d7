r"""Numba kernel: log-probability and gradients of methylated reads, rows in one pass.

With :math:`B(x, \theta) = \log\Gamma(x+\theta) - \log\Gamma(\theta) - x\log\theta - \log x!` and its slope
:math:`S(x, \theta) = x - \theta(\psi(x+\theta) - \psi(\theta))`, both of ``gamma_terms``, :math:`f = N - y` and
:math:`s = \alpha + \beta`:

.. math::
    \log \mathrm{BB} &= B(y, \alpha) + B(f, \beta) - B(N, s) + y\log\tfrac{\alpha}{s} + f\log\tfrac{\beta}{s} \\
    \partial / \partial \log\alpha &= y - S(y, \alpha) - \tfrac{\alpha}{s} (N - S(N, s))

and so for :math:`\beta`; log-odds of the share move :math:`\log\alpha` by :math:`1 - \mu` and :math:`\log\beta` by
:math:`-\mu`, those of the dispersion both by -1. The B and S vanish as s grows, and the binomial remains. Entries
without reads are passed over; the others are computed in float64.
"""

import math

import numpy as np
from numba import njit

from .kernels import INNER, F, Floats, Indices, find_nonzeros, gamma_terms, log_factorial

__all__ = ["methylation_rows"]

SMALLEST = 1e-8
LOG_SMALLEST = math.log(SMALLEST)


@njit(**INNER)
def rising(x: float, theta: float, log_theta: float) -> tuple[float, float]:
    """B and S; 0 for no count."""
    if x == 0.0:
        return 0.0, 0.0
    return gamma_terms(x, theta, log_theta)


@njit(**INNER)
def log_factorial_of(x: float) -> float:
    """Log x!, also of 0."""
    return 0.0 if x == 0.0 else log_factorial(x)


@njit(**INNER)
def share_terms(a: float) -> tuple[float, float, float, float]:
    """(mu, 1 - mu, log mu, log(1 - mu)) of log-odds."""
    t = math.exp(-abs(a))
    log_mu = (a if a < 0.0 else 0.0) - math.log1p(t)
    return (1.0 if a > 0.0 else t) / (1.0 + t), (t if a > 0.0 else 1.0) / (1.0 + t), log_mu, log_mu - a


@njit(**INNER)
def binomial_entry(y: float, total: float, a: float) -> tuple[float, float, float]:
    """Value, its derivative by the log-odds of the share, 0."""
    mu, _, log_mu, log_rest = share_terms(a)
    ways = log_factorial_of(total) - log_factorial_of(y) - log_factorial_of(total - y)
    return ways + y * log_mu + (total - y) * log_rest, y - total * mu, 0.0


@njit(**INNER)
def beta_binomial_entry(y: float, total: float, a: float, gamma: float) -> tuple[float, float, float]:
    """Value, its derivatives by the log-odds of the share and of the dispersion."""
    mu, rest, log_alpha, log_beta = share_terms(a)
    size, log_size = math.exp(-gamma), -gamma
    alpha, beta = mu * size, rest * size
    log_alpha, log_beta = log_alpha - gamma, log_beta - gamma
    moves_alpha, moves_beta = 1.0, 1.0
    if alpha < SMALLEST:
        alpha, log_alpha, moves_alpha = SMALLEST, LOG_SMALLEST, 0.0
    if beta < SMALLEST:
        beta, log_beta, moves_beta = SMALLEST, LOG_SMALLEST, 0.0
    if moves_alpha * moves_beta == 0.0:
        size = alpha + beta
        log_size = math.log(size)
    failures = total - y
    terms_y, slope_y = rising(y, alpha, log_alpha)
    terms_f, slope_f = rising(failures, beta, log_beta)
    terms_n, slope_n = rising(total, size, log_size)
    value = terms_y + terms_f - terms_n + y * (log_alpha - log_size) + failures * (log_beta - log_size)
    shared = (total - slope_n) / size
    d_alpha = moves_alpha * (y - slope_y - alpha * shared)
    d_beta = moves_beta * (failures - slope_f - beta * shared)
    if moves_alpha * moves_beta == 0.0:
        return value, rest * d_alpha - mu * d_beta, -d_alpha - d_beta
    return value, rest * d_alpha - mu * d_beta, slope_y + slope_f - slope_n


@njit(**INNER)
def methylation_rows(
    y_ng: Floats,
    total_ng: Floats,
    logits_ng: Floats,
    gamma_ng: Floats,
    values_n: Floats,
    grad_logits_ng: Floats,
    grad_gamma_ng: Floats,
    index: Indices,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop; ``gamma_ng`` has no row (binomial), one, or n; ``index`` is ``(g,)``.

    Without rows in ``grad_logits_ng`` there are no gradients, without rows in ``grad_gamma_ng`` none of the dispersion.
    Gradients of entries without reads are left as they are, 0.
    """
    gamma_step = 1 if gamma_ng.shape[0] > 1 else 0
    has_gamma, wants_gradients = gamma_ng.shape[0] > 0, grad_logits_ng.shape[0] > 0
    for i in range(start, stop):
        total = total_ng[i]
        found = find_nonzeros(total, index)
        sum_of_row = 0.0
        for k in range(found):
            j = index[k]
            y, n, a = np.float64(y_ng[i, j]), np.float64(total[j]), np.float64(logits_ng[i, j])
            if y > n:
                sum_of_row -= math.inf
                continue
            if has_gamma:
                value, d_logit, d_gamma = beta_binomial_entry(y, n, a, np.float64(gamma_ng[i * gamma_step, j]))
            else:
                value, d_logit, d_gamma = binomial_entry(y, n, a)
            sum_of_row += value
            if wants_gradients:
                grad_logits_ng[i, j] = F(d_logit)
                if grad_gamma_ng.shape[0] > 0:
                    grad_gamma_ng[i, j] = F(d_gamma)
        values_n[i] = F(sum_of_row)
