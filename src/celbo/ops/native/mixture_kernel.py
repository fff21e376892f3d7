r"""Numba kernel: log-probability and gradients of a mixture of two negative binomials, rows in one pass.

With :math:`w` the weight of the first, :math:`\ell_k = \log(1 + \mu_k/\theta)` and the brackets B and S of
``gamma_terms``, which both components share:

.. math::
    \log \mathrm{NB}_k &= -\theta\ell_k + x(\log\mu_k - \ell_k) + B(x, \theta), \qquad
    \log p = \log\bigl(w\,\mathrm{NB}_1 + (1 - w)\,\mathrm{NB}_2\bigr), \quad r = w\,\mathrm{NB}_1 / p \\
    \partial / \partial \mu_k &= r_k \Bigl(\frac{x}{\mu_k} - \frac{x + \theta}{\theta + \mu_k}\Bigr), \qquad
    \partial / \partial a = r - w \\
    \partial / \partial \theta &= \sum_k r_k \Bigl(\frac{(x + \theta)\, \mu_k/\theta}{\theta + \mu_k} - \ell_k\Bigr)
        - S(x, \theta)/\theta

Every entry is computed in float64.
"""

import math

import numpy as np
from numba import njit

from .kernels import INNER, F, Floats, gamma_terms

__all__ = ["mixture_rows"]

SMALLEST, LARGEST = 1e-30, 1e18
"""Outside of these inverse dispersions nothing changes any more, as in ``elementwise``."""


@njit(**INNER)
def component(x: float, mu: float, theta: float) -> tuple[float, float, float]:
    """Log-probability without the bracket, and its derivatives by the mean and the inverse dispersion."""
    ell = math.log1p(mu / theta)
    value, by_mu = -theta * ell, -(x + theta) / (theta + mu)
    if x > 0.0:
        value += x * (math.log(mu) - ell)
        by_mu += x / mu
    return value, by_mu, (x + theta) * (mu / theta) / (theta + mu) - ell


@njit(**INNER)
def mixture_rows(
    x_np: Floats,
    mu1_np: Floats,
    mu2_np: Floats,
    theta_np: Floats,
    logits_np: Floats,
    values_n: Floats,
    grad_mu1_np: Floats,
    grad_mu2_np: Floats,
    grad_theta_np: Floats,
    grad_logits_np: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop. Counts of NaN add nothing. Without rows in ``grad_mu1_np`` there are no gradients."""
    wants_gradients = grad_mu1_np.shape[0] > 0
    for i in range(start, stop):
        total = 0.0
        for j in range(x_np.shape[1]):
            x, a = np.float64(x_np[i, j]), np.float64(logits_np[i, j])
            theta = min(max(np.float64(theta_np[i, j]), SMALLEST), LARGEST)
            if math.isnan(x):
                continue
            bracket, slope = 0.0, 0.0
            if x != 0.0:
                bracket, slope = gamma_terms(x, theta, math.log(theta))
            mu1, mu2 = np.float64(mu1_np[i, j]), np.float64(mu2_np[i, j])
            value1, by_mu1, by_theta1 = component(x, mu1, theta)
            value2, by_mu2, by_theta2 = component(x, mu2, theta)
            t = math.exp(-abs(a))
            log_w = (a if a < 0.0 else 0.0) - math.log1p(t)
            first, second = value1 + log_w, value2 + log_w - a
            gap = math.exp(-abs(first - second)) if first != second else 1.0
            total += (first if first > second else second) + math.log1p(gap) + bracket
            if wants_gradients:
                share1 = (1.0 if first > second else gap) / (1.0 + gap)
                share2 = (gap if first > second else 1.0) / (1.0 + gap)
                grad_mu1_np[i, j] = F(share1 * by_mu1)
                grad_mu2_np[i, j] = F(share2 * by_mu2)
                grad_theta_np[i, j] = F(share1 * by_theta1 + share2 * by_theta2 - slope / theta)
                grad_logits_np[i, j] = F(share1 - (1.0 if a > 0.0 else t) / (1.0 + t))
        values_n[i] = F(total)
