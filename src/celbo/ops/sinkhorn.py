r"""The Sinkhorn divergence of two clouds of points: what moving one onto the other costs, entropy's bias apart.

.. math::

    \mathrm{OT}_\varepsilon(\alpha, \beta) &= \min_{\pi \ge 0} \langle \pi, C \rangle
        + \varepsilon\,\mathrm{KL}(\pi \,\|\, \alpha \otimes \beta)
        + \rho\,\mathrm{KL}(\pi \mathbf{1} \,\|\, \alpha) + \rho\,\mathrm{KL}(\pi^\top \mathbf{1} \,\|\, \beta) \\
    S_\varepsilon(\alpha, \beta) &= \mathrm{OT}_\varepsilon(\alpha, \beta)
        - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta)

with :math:`C_{ij} = \|x_i - y_j\|^p / p`; with :math:`\rho = \infty` all mass must move. Potentials are found in log
space without gradient. The value is that of the dual objective there, so its error is of second order in theirs, and
its gradient with respect to the points is the plan's (the envelope theorem).

Dims: n, m points, k dimensions.
References: Sejourne, Feydy, Vialard, Trouve and Peyre, *Sinkhorn divergences for unbalanced optimal transport*, 2019;
for the shift Sejourne, Vialard and Peyre, *Faster unbalanced optimal transport: translation invariant Sinkhorn*,
AISTATS 2022.
"""

import math

import torch
from torch import Tensor

__all__ = ["moving_costs", "sinkhorn_divergence"]

_LEAST = 1e-12
"""Added to squared distances under a root, whose slope at 0 is infinite."""


def moving_costs(x: Tensor, y: Tensor, p: int = 2) -> Tensor:
    r"""Cost of moving each point onto each other one, :math:`\|x_i - y_j\|^p / p`.

    Parameters
    ----------
    x, y
        ``(n, k)`` and ``(m, k)``.
    p
        1 or 2.

    Returns
    -------
    ``(n, m)``.
    """
    center_k = x.detach().mean(0)  # differences of large numbers have no digits
    x, y = x - center_k, y - center_k
    squared_nm = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
    return squared_nm / 2 if p == 2 else (squared_nm + _LEAST).sqrt()


def sinkhorn_divergence(
    x: Tensor, y: Tensor, epsilon: Tensor | float, rho: Tensor | float | None = None, p: int = 2, n_rounds: int = 5
) -> Tensor:
    """The divergence of two clouds of points of equal weights, at least 0.

    Parameters
    ----------
    x, y
        ``(n, k)`` and ``(m, k)``.
    epsilon
        Strength > 0 of the entropy, in the unit of the costs.
    rho
        Price of mass that does not move, in the unit of the costs; None: all must move.
    p
        Order of the cost, 1 or 2.
    n_rounds
        Rounds in which each potential is brought up to date once. Five do where epsilon is half the mean cost; a
        small one takes thousands.

    Returns
    -------
    One number, with a gradient with respect to the points.
    """
    settings = (epsilon, rho, n_rounds)
    across = _transport(moving_costs(x, y, p), *settings)
    within = [_transport_within(moving_costs(one, one, p), *settings) for one in (x, y)]
    return across - 0.5 * (within[0] + within[1])


def _transport(costs_nm: Tensor, epsilon: Tensor | float, rho: Tensor | float | None, n_rounds: int) -> Tensor:
    """Each round ends with the best shift of one potential against the other, which rounds alone find slowly."""
    with torch.no_grad():
        g_m = torch.zeros_like(costs_nm[0])
        for _ in range(n_rounds):
            f_n = _best_against(g_m, costs_nm, epsilon, rho)
            g_m = _best_against(f_n, costs_nm.T, epsilon, rho)
            if rho is not None:
                shift = 0.5 * rho * ((-f_n / rho).logsumexp(0) - (-g_m / rho).logsumexp(0) + _log_ratio(costs_nm))
                f_n, g_m = f_n + shift, g_m - shift
    return _dual(f_n, g_m, costs_nm, epsilon, rho)


def _transport_within(costs_nn: Tensor, epsilon: Tensor | float, rho: Tensor | float | None, n_rounds: int) -> Tensor:
    """Of a cloud onto itself: both potentials are one, which the mean of old and new finds fast."""
    with torch.no_grad():
        f_n = torch.zeros_like(costs_nn[0])
        for _ in range(n_rounds):
            f_n = 0.5 * (f_n + _best_against(f_n, costs_nn, epsilon, rho))
    return _dual(f_n, f_n, costs_nn, epsilon, rho)


def _log_ratio(costs_nm: Tensor) -> float:
    """Of the weights of a point of the one cloud and of the other."""
    n, m = costs_nm.shape
    return math.log(m) - math.log(n)


def _best_against(g_m: Tensor, costs_nm: Tensor, epsilon: Tensor | float, rho: Tensor | float | None) -> Tensor:
    """The potential at which the dual objective is largest, given the other one."""
    f_n = -epsilon * (((g_m - costs_nm) / epsilon).logsumexp(1) - math.log(len(g_m)))
    return f_n if rho is None else f_n / (1 + epsilon / rho)


def _dual(f_n: Tensor, g_m: Tensor, costs_nm: Tensor, epsilon: Tensor | float, rho: Tensor | float | None) -> Tensor:
    moved = ((f_n[:, None] + g_m - costs_nm) / epsilon).exp().mean() - 1
    return _price(f_n, rho) + _price(g_m, rho) - epsilon * moved


def _price(f_n: Tensor, rho: Tensor | float | None) -> Tensor:
    return f_n.mean() if rho is None else -rho * (-f_n / rho).expm1().mean()
