"""Every cell's counts under every decoded mean: scipy's log-probabilities, in float64."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, softmax

from celbo.ops.crossed import nb_log_prob_sums, poisson_log_prob_sums


@pytest.fixture(params=[50, 100_000], ids=["shallow", "deep"])
def case(request, rng):
    """Counts of 4 anchors, logs of their libraries, logits of 6 samples, log dispersions and logits of added zeros."""
    logits, log_theta, zi = rng.normal(0, 2, (6, 30)), rng.normal(0, 2, 30), rng.normal(0, 3, (6, 30))
    log_library = np.log(request.param * np.array([0.5, 1, 2, 3]))
    x = rng.poisson(np.exp(log_library)[:, None] * softmax(logits[:4], -1))
    x[:, 20:] = 0
    return [torch.tensor(array, dtype=torch.float32) for array in (x, log_library, logits, log_theta, zi)]


def means(log_library, logits):
    return np.exp(log_library[:, None, None] + log_softmax(logits, -1)[None])


@pytest.mark.parametrize("adds_zeros", [False, True])
def test_negative_binomial(case, adds_zeros):
    x, log_library, logits, log_theta, zi = (table.double().numpy() for table in case)
    mu, theta = means(log_library, logits), np.exp(log_theta)
    log_p = stats.nbinom.logpmf(x[:, None], theta, theta / (theta + mu))
    if adds_zeros:
        lost = 1 / (1 + np.exp(-zi))
        log_p = np.where(x[:, None] > 0, np.log1p(-lost) + log_p, np.log(lost + (1 - lost) * np.exp(log_p)))
    found = nb_log_prob_sums(*case[:4], case[4] if adds_zeros else None)
    np.testing.assert_allclose(found, log_p.sum(-1), rtol=2e-6)


def test_poisson(case):
    x, log_library, logits, *_ = (table.double().numpy() for table in case)
    expected = stats.poisson.logpmf(x[:, None], means(log_library, logits)).sum(-1)
    np.testing.assert_allclose(poisson_log_prob_sums(*case[:3]), expected, rtol=2e-6)


def test_an_empty_cell_and_a_share_of_nothing():
    x, log_library = torch.tensor([[0.0, 0.0], [0.0, 3.0]]), torch.tensor([-torch.inf, 1.0])
    logits = torch.tensor([[0.0, 0.0], [-torch.inf, 0.0]])
    for found in (
        nb_log_prob_sums(x, log_library, logits, torch.zeros(2)),
        poisson_log_prob_sums(x, log_library, logits),
    ):
        assert (found[0] == 0).all()  # an empty cell is certain
        assert found.isfinite().all()
