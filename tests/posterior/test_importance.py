"""Importance weights against the formula term by term, and where they are known to be equal."""

import numpy as np
import pytest
import torch

import celbo
from celbo.posterior import importance_weights
from celbo.posterior.importance import some_cells, weights_from_logs


class TestWeights:
    def test_formula(self, rng):
        prior, px, evidence, q = (
            rng.normal(size=7),
            rng.normal(size=(4, 7)),
            rng.normal(size=4),
            rng.normal(size=(4, 7)),
        )
        expected = [
            np.exp(prior[i]) * sum(np.exp(px[a, i] - evidence[a]) for a in range(4)) / np.exp(q[:, i]).sum()
            for i in range(7)
        ]
        found = weights_from_logs(*map(torch.from_numpy, (prior, px, evidence, q)))
        np.testing.assert_allclose(found, np.array(expected) / np.sum(expected), rtol=1e-12)

    def test_truncation(self):
        log_w = torch.log(torch.tensor([1.0, 1.0, 1.0, 97.0]).double())
        zeros = torch.zeros((1, 4)).double()
        found = weights_from_logs(log_w, zeros, torch.zeros(1), zeros, truncation=True)
        cut = 25.0 * np.sqrt(4)  # mean weight times the root of their number
        np.testing.assert_allclose(found, np.array([1, 1, 1, cut]) / (3 + cut))

    def test_far_from_zero(self):
        """Log-densities of thousands of counts: everything would underflow outside logarithms."""
        found = weights_from_logs(
            torch.full((3,), -2e4), torch.full((2, 3), -9e4), torch.full((2,), -8e4), torch.full((2, 3), -50.0)
        )
        np.testing.assert_allclose(found, 1 / 3)


class TestOfModules:
    def test_equal_where_the_posterior_is_exact(self, linear_gaussian, gaussian_cells):
        module = linear_gaussian()
        z = module.posterior_of(gaussian_cells.tables["X"]).sample((3,)).flatten(0, 1)
        found = importance_weights(module, gaussian_cells, z, n_mc_samples=2, n_mc_samples_per_pass=1, seed=0)
        np.testing.assert_allclose(found, 1 / len(z), rtol=1e-5)

    def test_correct_a_posterior_that_is_too_wide(self, linear_gaussian, gaussian_cells, torch_rng):
        """Weighted, the draws have the variance of the exact posterior again."""
        module, one = linear_gaussian(widen=1.6), gaussian_cells.of([0])
        q, exact = (m.posterior_of(one.tables["X"][:1]) for m in (module, linear_gaussian()))
        z = q.loc + q.scale * torch.randn((20_000, 2), generator=torch_rng, dtype=torch.float64)
        w = importance_weights(module, one, z, n_mc_samples=50, n_mc_samples_per_pass=50, seed=0)
        variance = (w[:, None] * (z.numpy() - exact.loc.numpy()) ** 2).sum(0)
        np.testing.assert_allclose(variance, exact.variance[0], rtol=0.05)

    def test_in_parts(self, vae, loader, monkeypatch):
        z = torch.linspace(-1, 1, 30).reshape(10, 3)
        options = {"n_mc_samples": 4, "n_mc_samples_per_pass": 2, "seed": 0}
        whole = importance_weights(vae, loader.of([0, 1]), z, **options)
        monkeypatch.setattr("celbo.posterior.importance._ROWS", 3)
        np.testing.assert_allclose(importance_weights(vae, loader.of([0, 1]), z, **options), whole, rtol=1e-4)
        assert whole.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [
        {"gene_likelihood": "nb", "dispersion": "gene-batch"},
        {"gene_likelihood": "zinb", "dispersion": "gene-cell"},
        {"gene_likelihood": "zinb"},
        {"gene_likelihood": "poisson"},
    ],
    ids=str,
)
def test_anchors_that_share_decodings_are_as_alone(options, monkeypatch):
    """Two batches, a continuous covariate in steps, libraries that differ between the anchors of a group."""
    adata = celbo.data.synthetic_iid(seed=0)
    adata.obs["age"] = np.arange(adata.n_obs) % 3.0
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["age"])
    model = celbo.model.SCVI(adata, **options)
    model.module.eval()
    z = torch.linspace(-1, 1, 200).reshape(20, 10)

    def weights():
        batches = model._make_data_loader(adata, indices=np.arange(0, 400, 25))
        return importance_weights(model.module, batches, z, n_mc_samples=4, n_mc_samples_per_pass=2, seed=0)

    together = weights()
    monkeypatch.setattr("celbo.posterior.importance._counts_of", lambda *args: None)
    np.testing.assert_allclose(together, weights(), rtol=1e-4)
    assert together.max() > 2 * together.min()


def test_some_cells(global_rng_untouched):
    cells = np.arange(10)
    np.testing.assert_array_equal(some_cells(cells, 10), cells)
    few = some_cells(cells, 4, seed=0)
    assert len(set(few)) == 4
    np.testing.assert_array_equal(few, some_cells(cells, 4, seed=0))
