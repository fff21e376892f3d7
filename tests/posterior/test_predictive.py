"""Counts drawn from a module against the moments of its likelihood."""

import numpy as np
import pytest

from celbo.posterior import likelihood_parameters, posterior_predictive_sample

pytest.importorskip("sparse", reason="posterior_predictive_sample gives arrays of the package sparse")


@pytest.mark.parametrize(("n_samples", "shape"), [(1, (23, 12)), (3, (23, 12, 3))])
def test_shapes(vae, loader, n_samples, shape, global_rng_untouched):
    found = posterior_predictive_sample(vae, loader, n_samples=n_samples, seed=0)
    assert type(found).__name__ == "GCXS"
    assert found.shape == shape
    dense = found.todense()
    assert (dense == np.round(dense)).all()
    assert dense.min() == 0
    again = posterior_predictive_sample(vae, loader, n_samples=n_samples, seed=0).todense()
    np.testing.assert_array_equal(dense, again)
    some = posterior_predictive_sample(vae, loader, n_samples=n_samples, genes=np.array([2, 4]), seed=0).todense()
    np.testing.assert_array_equal(some, dense[:, [2, 4]])


def test_mean_in_a_batch(make, loader):
    module = make.vae(gene_likelihood="poisson")
    rows = np.repeat(6, 5000)
    counts = posterior_predictive_sample(module, loader.of(rows), transform_batch=[2], seed=0).todense()
    moved = {**loader.tables, "batch": loader.tables["batch"] * 0 + 2}
    mean = likelihood_parameters(module, type(loader)(moved, rows), seed=1)["mean"]
    error = np.hypot(counts.std(0), mean.std(0)) / np.sqrt(5000)
    assert (np.abs(counts.mean(0) - mean.mean(0)) < 5 * error + 1e-9).all()


def test_no_cells(vae, loader):
    with pytest.raises(ValueError, match="no cells"):
        posterior_predictive_sample(vae, loader.of([]))


def test_several_batches_are_averaged(vae, loader):
    drawn = [posterior_predictive_sample(vae, loader, transform_batch=[code], seed=0).todense() for code in (0, 2)]
    both = posterior_predictive_sample(vae, loader.of(loader.rows), transform_batch=[0, 2], seed=0).todense()
    assert not (both == np.round(both)).all()  # halves
    assert both.sum() == pytest.approx(np.mean(drawn) * both.size, rel=0.1)
