"""Correlations against numpy and scipy, denoised draws against the gamma distribution's moments."""

import numpy as np
import pytest
import scipy.stats

from celbo.posterior import EXPRESSION, feature_correlation, likelihood_parameters
from celbo.posterior.correlation import _denoised, pearson, spearman
from celbo.posterior.passes import evaluating


def blocks(values, size=13):
    return (values[start : start + size] for start in range(0, len(values), size))


class TestStreams:
    def test_pearson(self, rng):
        values = (rng.normal(size=(100, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
        np.testing.assert_allclose(pearson(blocks(values)), np.corrcoef(values, rowvar=False), atol=1e-6)

    def test_pearson_keeps_digits_far_from_zero(self, rng):
        values = 1e6 + rng.normal(size=(200, 3))
        np.testing.assert_allclose(pearson(blocks(values)), np.corrcoef(values - 1e6, rowvar=False), atol=1e-9)

    @pytest.mark.parametrize("n_rows", [None, 100])
    def test_spearman_with_ties(self, rng, n_rows):
        values = rng.poisson(2.0, size=(100, 5)).astype(np.float32)
        expected = scipy.stats.spearmanr(values).statistic
        np.testing.assert_allclose(spearman(blocks(values), n_rows), expected, atol=1e-6)

    @pytest.mark.parametrize("correlation", [pearson, spearman])
    def test_a_gene_that_does_not_vary(self, rng, correlation):
        values = rng.normal(size=(20, 3)).astype(np.float32)
        values[:, 1] = 4
        found = correlation(blocks(values))
        assert np.isnan(found[1]).all()
        assert found[0, 0] == 1
        assert np.isfinite(found[0, 2])

    @pytest.mark.parametrize("correlation", [pearson, spearman])
    def test_nothing(self, correlation):
        with pytest.raises(ValueError, match="no cells"):
            correlation(iter(()))


class TestDenoised:
    @pytest.mark.parametrize("likelihood", ["zinb", "nb"])
    def test_moments_are_those_of_the_gamma(self, make, loader, likelihood):
        """E w = l rho; E w^2 = (l rho)^2 (1 + 1/theta), at latents drawn alike."""
        module = make.vae(gene_likelihood=likelihood)
        cell = loader.of(np.repeat(2, 4000))
        with evaluating(module, 0):
            draws = np.concatenate(list(_denoised(module, cell, [EXPRESSION], 1, 4, 1000)))
        theta = module.px_r.detach().exp().numpy()
        total = float(loader.tables["X"][2].sum())
        one = {key: table.clone() for key, table in loader.tables.items()}
        one["batch"][:] = 1
        mean = likelihood_parameters(module, type(loader)(one, np.repeat(2, 16_000)), seed=1)["mean"] * 1000 / total
        for found, expected in ((draws, mean), (draws**2, mean**2 * (1 + 1 / theta))):
            error = np.hypot(found.std(0), expected.std(0)) / np.sqrt(16_000)
            assert (np.abs(found.mean(0) - expected.mean(0)) < 5 * error).all()

    def test_poisson_has_no_over_dispersion(self, make, loader):
        module = make.vae(gene_likelihood="poisson")
        with evaluating(module, 0):
            draws = np.concatenate(list(_denoised(module, loader, [EXPRESSION], None, 1, 1000)))
        np.testing.assert_allclose(draws.sum(1), 1000, rtol=1e-4)

    def test_normal_is_refused(self, make, loader):
        with pytest.raises(NotImplementedError, match="not Normal"):
            feature_correlation(make.vae(gene_likelihood="normal"), loader)


class TestFeatureCorrelation:
    @pytest.mark.parametrize("kind", ["pearson", "spearman"])
    def test_is_a_correlation_matrix(self, vae, loader, kind, global_rng_untouched):
        found = feature_correlation(vae, loader, kind=kind, n_samples=3, n_cells=23, transform_batch=[0, 1], seed=0)
        assert found.shape == (12, 12)
        np.testing.assert_allclose(found, found.T)
        np.testing.assert_array_equal(np.diag(found), 1)
        again = feature_correlation(vae, loader, kind=kind, n_samples=3, transform_batch=[0, 1], seed=0)
        np.testing.assert_array_equal(found, again)

    def test_unknown_kind(self, vae, loader):
        with pytest.raises(ValueError, match="'pearson'"):
            feature_correlation(vae, loader, kind="kendall")

    def test_no_batch(self, vae, loader):
        with pytest.raises(ValueError, match="No batch"):
            feature_correlation(vae, loader, transform_batch=[])
