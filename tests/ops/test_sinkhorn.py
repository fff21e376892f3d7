"""The Sinkhorn divergence against linear programming, a dual maximised by scipy, and differences of itself."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from celbo.ops.sinkhorn import moving_costs, sinkhorn_divergence


def clouds(n: int = 9, m: int = 7, k: int = 3):
    rng = np.random.default_rng(0)
    return torch.tensor(rng.normal(size=(n, k))), torch.tensor(rng.normal(size=(m, k)) + 0.7)


def transport_by_linprog(costs: np.ndarray) -> float:
    n, m = costs.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    weights = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    return linprog(costs.ravel(), A_eq=np.r_[rows, columns], b_eq=weights).fun


def unbalanced_by_scipy(costs: np.ndarray, epsilon: float, rho: float) -> float:
    """The primal problem over all plans, by its plain formula."""
    n, m = costs.shape

    def kl(p, q):
        return (p * np.log(p / q) - p + q).sum()

    def objective(log_plan):
        plan = np.exp(log_plan).reshape(n, m)
        marginals = kl(plan.sum(1), np.full(n, 1 / n)) + kl(plan.sum(0), np.full(m, 1 / m))
        return (plan * costs).sum() + epsilon * kl(plan, np.full((n, m), 1 / (n * m))) + rho * marginals

    start = np.full(n * m, -np.log(n * m))
    return minimize(objective, start, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 10**6}, tol=1e-14).fun


@pytest.mark.parametrize("p", [1, 2])
def test_costs_are_powers_of_distances(p):
    x, y = clouds()
    expected = torch.cdist(x, y) if p == 1 else torch.cdist(x, y).square() / 2
    torch.testing.assert_close(moving_costs(x + 1e3, y + 1e3, p), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_without_entropy_it_is_the_cost_of_transport(p):
    x, y = clouds()
    exact = transport_by_linprog(moving_costs(x, y, p).numpy())
    near = sinkhorn_divergence(x, y, epsilon=1e-3, p=p, n_rounds=8000)
    assert float(near) == pytest.approx(exact, rel=2e-3)


def test_mass_may_stay_at_a_price():
    x, y = clouds(5, 4, 2)
    epsilon, rho = 0.3, 2.0
    across, within_x, within_y = (
        unbalanced_by_scipy(moving_costs(a, b).numpy(), epsilon, rho) for a, b in ((x, y), (x, x), (y, y))
    )
    expected = across - 0.5 * (within_x + within_y)
    assert float(sinkhorn_divergence(x, y, epsilon, rho, n_rounds=300)) == pytest.approx(expected, rel=1e-4)
    far = sinkhorn_divergence(x, y + 1e3, epsilon, rho, n_rounds=300)
    assert 0 < float(far) < 2 * rho + epsilon  # what it costs to move nothing


def test_clouds_that_are_alike_are_at_no_distance_and_others_are():
    x, y = clouds(40, 40)
    epsilon = 0.5 * float(moving_costs(x, y).mean())
    assert float(sinkhorn_divergence(x, x.flip(0), epsilon, 9 * epsilon)) == pytest.approx(0, abs=1e-4)
    assert float(sinkhorn_divergence(x, y, epsilon, 9 * epsilon)) > 0.01


@pytest.mark.parametrize("rho", [None, 4.0])
def test_gradients_are_differences_of_values_and_five_rounds_are_enough(rho):
    x, y = clouds()
    epsilon = 0.5 * float(moving_costs(x, y).mean())
    few, many = (sinkhorn_divergence(x, y, epsilon, rho, n_rounds=n) for n in (5, 2000))
    assert float(few) == pytest.approx(float(many), rel=1e-3)
    moving = x.clone().requires_grad_()
    sinkhorn_divergence(moving, y, epsilon, rho, n_rounds=2000).backward()
    for place in ((0, 0), (4, 2)):
        step = torch.zeros_like(x)
        step[place] = 1e-4
        up, down = (sinkhorn_divergence(x + s, y, epsilon, rho, n_rounds=2000) for s in (step, -step))
        assert float(moving.grad[place]) == pytest.approx(float(up - down) / 2e-4, rel=1e-4, abs=1e-8)


def test_single_precision_is_enough_far_from_the_origin():
    x, y = clouds(64, 48, 10)
    epsilon = 0.5 * float(moving_costs(x, y).mean())
    exact = sinkhorn_divergence(x, y, epsilon, 9 * epsilon)
    near = sinkhorn_divergence((x + 50).float(), (y + 50).float(), epsilon, 9 * epsilon)
    assert float(near) == pytest.approx(float(exact), rel=1e-3)
