"""Densities of samples against scipy's."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from celbo.posterior import sample_log_densities


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    mean_nk, variance_nk = rng.normal(size=(40, 3)), rng.uniform(0.1, 2.0, (40, 3))
    return mean_nk.astype(np.float32), variance_nk.astype(np.float32), np.repeat(["a", "b", "c"], [5, 20, 15])


@pytest.mark.parametrize("dof", [None, 3.0])
def test_log_of_a_mean_of_densities(cells, dof, global_rng_untouched):
    mean_nk, variance_nk, sample_n = cells
    found = sample_log_densities(mean_nk, variance_nk, sample_n, ["c", "a"], dof=dof)
    assert found.shape == (40, 2)
    shape = stats.norm() if dof is None else stats.t(dof)
    scale_nk = np.sqrt(variance_nk)
    for column, sample in enumerate(["c", "a"]):
        rows = sample_n == sample
        standard_nmk = (mean_nk[:, None] - mean_nk[rows]) / scale_nk[rows]
        log_nm = (shape.logpdf(standard_nmk) - np.log(scale_nk[rows])).sum(-1)
        np.testing.assert_allclose(found[:, column], logsumexp(log_nm, axis=1) - np.log(rows.sum()), rtol=1e-5)


def test_at_most_some_cells_of_each_sample(cells):
    mean_nk, variance_nk, sample_n = cells
    whole = sample_log_densities(mean_nk, variance_nk, sample_n, ["a", "b"])
    some = sample_log_densities(mean_nk, variance_nk, sample_n, ["a", "b"], max_cells=5, seed=1)
    np.testing.assert_array_equal(some[:, 0], whole[:, 0])  # it has no more
    assert not np.allclose(some[:, 1], whole[:, 1])
    again = sample_log_densities(mean_nk, variance_nk, sample_n, ["a", "b"], max_cells=5, seed=1)
    np.testing.assert_array_equal(some, again)


def test_blocks_of_cells_bear_on_nothing(cells, monkeypatch):
    mean_nk, variance_nk, sample_n = cells
    whole = sample_log_densities(mean_nk, variance_nk, sample_n, ["b"])
    monkeypatch.setattr("celbo.posterior.abundance.MAX_DECODED", 7 * 20 * 3)
    np.testing.assert_allclose(sample_log_densities(mean_nk, variance_nk, sample_n, ["b"]), whole, rtol=1e-6)
