"""Latent representation against the module's own posterior and against integrals."""

import numpy as np
import pytest
import scipy.stats
import torch

from celbo.posterior import aggregated_posterior, batch_representation, latent_representation
from celbo.posterior.passes import encode, evaluating


def qz_of(module, loader):
    (tensors,) = (loader.tables,)
    with evaluating(module):
        return encode(module, tensors)["qz"]


class TestLatentRepresentation:
    def test_mean_and_variance(self, vae, loader):
        qz = qz_of(vae, loader)
        np.testing.assert_allclose(latent_representation(vae, loader), qz.loc, rtol=1e-4, atol=1e-6)
        mean, variance = latent_representation(vae, loader, return_dist=True, n_cells=len(loader.rows))
        np.testing.assert_allclose(mean, qz.loc, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, qz.variance, rtol=1e-4)

    def test_draws_have_the_posteriors_moments(self, vae, loader):
        qz = qz_of(vae, loader)
        rows = loader.of(np.repeat(4, 4000))
        z = latent_representation(vae, rows, give_mean=False, seed=0)
        standard_error = qz.scale[4].numpy() / np.sqrt(4000)
        assert (np.abs(z.mean(0) - qz.loc[4].numpy()) < 5 * standard_error).all()
        np.testing.assert_allclose(z.std(0), qz.scale[4], rtol=0.1)

    def test_order_and_repeats(self, vae, loader):
        rows = np.array([5, 0, 22, 5, 7, 7, 1, 9, 3])
        np.testing.assert_allclose(
            latent_representation(vae, loader.of(rows)), latent_representation(vae, loader)[rows], rtol=1e-4, atol=1e-6
        )

    def test_logistic_normal_mean(self, make, loader):
        """With two dimensions, E softmax(u)_1 is a one-dimensional integral of the logistic function."""
        module = make.vae(n_latent=2, latent_distribution="ln")
        mean = latent_representation(module, loader, mc_samples=20_000, seed=0)
        qz = qz_of(module, loader)
        difference = (qz.loc[:, 0] - qz.loc[:, 1]).numpy().astype(np.float64)
        deviation = qz.scale.square().sum(-1).sqrt().numpy().astype(np.float64)
        node, weight = np.polynomial.hermite_e.hermegauss(60)
        logistic = 1 / (1 + np.exp(-(difference[:, None] + deviation[:, None] * node)))
        expected = (logistic * weight).sum(1) / weight.sum()
        np.testing.assert_allclose(mean[:, 0], expected, atol=0.02)
        np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-5)

    def test_logistic_normal_in_parts(self, make, loader, monkeypatch):
        module = make.vae(n_latent=2, latent_distribution="ln")
        monkeypatch.setattr("celbo.posterior.embedding._DRAWS", 7 * 2 * 10)
        mean = latent_representation(module, loader, mc_samples=25, seed=0)
        np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-5)

    def test_seeds(self, vae, loader, global_rng_untouched):
        draw = lambda seed: latent_representation(vae, loader, give_mean=False, seed=seed)  # noqa: E731
        np.testing.assert_array_equal(draw(3), draw(3))
        assert not np.allclose(draw(3), draw(4))


class TestAggregatedPosterior:
    @pytest.mark.parametrize("dof", [3.0, None])
    def test_log_density(self, rng, dof):
        mean, variance = rng.normal(size=(5, 2)), rng.uniform(0.1, 2, size=(5, 2))
        point = rng.normal(size=2)
        component = scipy.stats.norm if dof is None else scipy.stats.t(dof)
        kind = component.logpdf((point - mean) / np.sqrt(variance)) - np.log(np.sqrt(variance))
        expected = scipy.special.logsumexp(kind.sum(1)) - np.log(5)
        found = aggregated_posterior(mean, variance, dof).log_prob(torch.from_numpy(point))
        np.testing.assert_allclose(found, expected)


class TestBatchRepresentation:
    def test_rows_of_the_table(self, make, loader):
        module = make.vae(batch_representation="embedding", batch_embedding_kwargs={"embedding_dim": 4})
        table = module.get_embedding("batch").weight.detach().numpy()
        codes = loader.tables["batch"].numpy().ravel()
        np.testing.assert_array_equal(batch_representation(module, loader), table[codes])

    def test_says_when_there_is_none(self, vae, loader):
        with pytest.raises(KeyError, match="batch_representation='embedding'"):
            batch_representation(vae, loader)
