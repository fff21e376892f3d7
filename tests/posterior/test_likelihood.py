"""Fit of a module: closed forms of a linear-Gaussian one, the distributions' own figures for a VAE."""

import numpy as np
import pytest
import torch

from celbo.posterior import (
    elbo,
    latent_library_size,
    likelihood_parameters,
    marginal_ll,
    reconstruction_error,
)


class TestElbo:
    def test_with_the_exact_posterior_its_mean_is_the_marginal(self, linear_gaussian, gaussian_cells):
        """log p(x|z) + log p(z) - log q(z) is constant there, so the mean over draws of the ELBO is log p(x)."""
        module = linear_gaussian()
        exact_n = module.exact_marginal(gaussian_cells.tables["X"]).numpy()
        draws = [elbo(module, gaussian_cells, return_mean=False, seed=s).numpy() for s in range(300)]
        spread = np.std(draws, 0) / np.sqrt(300)
        assert (np.abs(np.mean(draws, 0) - exact_n) < 5 * spread).all()
        assert spread.max() < 0.2

    def test_is_reconstruction_and_divergence(self, vae, loader):
        elbo_n = elbo(vae, loader, return_mean=False, seed=2)
        error_n = reconstruction_error(vae, loader, return_mean=False, seed=2)["reconstruction_loss"]
        with torch.no_grad():
            output = vae(loader.tables)[2]
        kl_n = sum(output.kl_local.values())
        torch.testing.assert_close(elbo_n + error_n, -kl_n, rtol=1e-3, atol=1e-3)
        assert error_n.shape == (23,)

    def test_mean_is_over_cells_not_minibatches(self, vae, loader):
        each = elbo(vae, loader, return_mean=False, seed=0)
        torch.testing.assert_close(elbo(vae, loader, seed=0), each.double().mean())
        error = reconstruction_error(vae, loader, seed=0)["reconstruction_loss"]
        each = reconstruction_error(vae, loader, return_mean=False, seed=0)["reconstruction_loss"]
        torch.testing.assert_close(error, each.double().mean())

    def test_forward_arguments(self, vae, loader):
        with pytest.raises(TypeError, match="no_such"):
            elbo(vae, loader, no_such=1)


class TestMarginal:
    @pytest.mark.parametrize(("n", "per_pass"), [(1, 1), (5, 1), (5, 2), (5, 50)])
    def test_exact_with_the_exact_posterior(self, linear_gaussian, gaussian_cells, n, per_pass):
        """All importance weights are equal there: any number of samples gives the marginal likelihood itself."""
        module = linear_gaussian()
        exact_n = module.exact_marginal(gaussian_cells.tables["X"])
        found = marginal_ll(
            module, gaussian_cells, n_mc_samples=n, n_mc_samples_per_pass=per_pass, return_mean=False, seed=0
        )
        torch.testing.assert_close(found, exact_n, rtol=1e-9, atol=1e-9)

    def test_converges_with_a_wrong_posterior(self, linear_gaussian, gaussian_cells):
        module = linear_gaussian(widen=1.5)
        exact_n = module.exact_marginal(gaussian_cells.tables["X"])
        options = {"n_mc_samples": 5000, "n_mc_samples_per_pass": 1000, "seed": 0}
        found_n = marginal_ll(module, gaussian_cells, return_mean=False, **options)
        torch.testing.assert_close(found_n, exact_n, rtol=0, atol=0.1)
        found = marginal_ll(module, gaussian_cells, **options)
        assert found == pytest.approx(float(found_n.mean()))
        assert found.ndim == 0

    def test_is_above_the_elbo(self, vae, loader):
        bound = np.mean([float(elbo(vae, loader, seed=s)) for s in range(20)])
        assert marginal_ll(vae, loader, n_mc_samples=200, n_mc_samples_per_pass=50, seed=0) > bound

    def test_refusals(self, vae, loader):
        with pytest.raises(ValueError, match="n_mc_samples=0"):
            marginal_ll(vae, loader, n_mc_samples=0)
        with pytest.raises(NotImplementedError, match="Linear has no method marginal_ll"):
            marginal_ll(torch.nn.Linear(2, 2), loader)


class TestLikelihoodParameters:
    @pytest.mark.parametrize(
        ("likelihood", "names"),
        [
            ("zinb", ["mean", "dropout", "dispersions"]),
            ("nb", ["mean", "dispersions"]),
            ("poisson", ["mean"]),
            ("normal", ["mean", "scale"]),
        ],
    )
    @pytest.mark.parametrize("n_samples", [1, 4])
    def test_names_and_shapes(self, make, loader, likelihood, names, n_samples):
        module = make.vae(gene_likelihood=likelihood)
        found = likelihood_parameters(module, loader, n_samples=n_samples, seed=0)
        assert list(found) == names
        shape = (23, 12) if n_samples == 1 else (4, 23, 12)
        assert {value.shape for value in found.values()} == {shape}
        averaged = likelihood_parameters(module, loader, n_samples=n_samples, give_mean=True, seed=0)
        for name in names:
            expected = found[name] if n_samples == 1 else found[name].mean(0)
            np.testing.assert_allclose(averaged[name], expected, rtol=1e-4, atol=1e-6)

    def test_values(self, vae, loader):
        found = likelihood_parameters(vae, loader, seed=0)
        np.testing.assert_allclose(found["dispersions"], np.tile(vae.px_r.exp().detach(), (23, 1)), rtol=1e-5)
        np.testing.assert_allclose(found["mean"].sum(1), loader.tables["X"].sum(1), rtol=1e-4)
        assert ((found["dropout"] > 0) & (found["dropout"] < 1)).all()

    def test_in_parts(self, vae, loader, monkeypatch):
        whole = likelihood_parameters(vae, loader, n_samples=5, seed=0)
        monkeypatch.setattr("celbo.posterior.passes.MAX_DECODED", 1)
        parts = likelihood_parameters(vae, loader, n_samples=5, seed=0)
        for name in whole:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


class TestLibrary:
    def test_observed(self, vae, loader):
        found = latent_library_size(vae, loader, give_mean=False)
        np.testing.assert_allclose(found, loader.tables["X"].sum(1, keepdim=True), rtol=1e-5)
        with pytest.raises(RuntimeError, match="give_mean=False"):
            latent_library_size(vae, loader)

    def test_latent_mean_is_that_of_its_draws(self, make, loader):
        prior = np.zeros((1, 3))
        module = make.vae(use_observed_lib_size=False, library_log_means=prior, library_log_vars=prior + 0.1)
        mean = latent_library_size(module, loader.of([3]))[0, 0]
        draws = latent_library_size(module, loader.of(np.repeat(3, 20_000)), give_mean=False, seed=0)
        assert abs(draws.mean() - mean) < 5 * draws.std() / np.sqrt(20_000)
