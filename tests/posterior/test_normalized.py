"""Denoised expression: sums, averages over batches, draws, and what it costs."""

import numpy as np
import pytest
import torch

from celbo.posterior import EXPRESSION, Weighting, normalized, sampled


@pytest.fixture
def calls(monkeypatch):
    """Rows that each call of encoder and decoder had."""
    seen = {"inference": [], "generative": []}

    def watch(module):
        encode, decode = module.inference, module.generative

        def inference(**kwargs):
            seen["inference"].append(len(kwargs["x"]))
            return encode(**kwargs)

        def generative(**kwargs):
            seen["generative"].append(kwargs["z"].shape[:-1].numel())
            return decode(**kwargs)

        monkeypatch.setattr(module, "inference", inference)
        monkeypatch.setattr(module, "generative", generative)
        return seen

    return watch


class TestValues:
    @pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
    @pytest.mark.parametrize("library_size", [1, 1e4, "latent"])
    def test_cells_sum_to_the_library(self, make, loader, likelihood, library_size):
        module = make.vae(gene_likelihood=likelihood)
        found = normalized(module, loader, [EXPRESSION.reading(library_size=library_size)], seed=0)
        total = loader.tables["X"].sum(1) if library_size == "latent" else np.full(23, library_size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), total, rtol=1e-4)

    def test_average_over_batches(self, vae, loader):
        single = [normalized(vae, loader, transform_batch=[code], seed=1) for code in (0, 2)]
        both = normalized(vae, loader, transform_batch=[0, 2], seed=1)
        np.testing.assert_allclose(both, (single[0] + single[1]) / 2, rtol=1e-5)
        assert np.abs(single[0] - single[1]).max() > 1e-3

    def test_own_batch(self, vae, loader):
        own = normalized(vae, loader, seed=1)
        codes = loader.tables["batch"].numpy().ravel()
        single = np.stack([normalized(vae, loader, transform_batch=[code], seed=1) for code in range(3)])
        np.testing.assert_allclose(own, single[codes, np.arange(23)], rtol=1e-5)

    def test_genes_are_columns_of_the_whole(self, vae, loader):
        whole = normalized(vae, loader, [EXPRESSION.reading(library_size=10)], seed=0)
        some = normalized(vae, loader, [EXPRESSION.reading(library_size=10)], columns=np.array([1, 5, 11]), seed=0)
        np.testing.assert_array_equal(some, whole[:, [1, 5, 11]])

    @pytest.mark.parametrize("limit", [1, 300, 2**24])
    def test_draws_and_their_mean(self, vae, loader, monkeypatch, limit):
        monkeypatch.setattr("celbo.posterior.passes.MAX_DECODED", limit)
        draws = normalized(vae, loader, n_samples=5, return_mean=False, transform_batch=[0, 1], seed=0)
        mean = normalized(vae, loader, n_samples=5, transform_batch=[0, 1], seed=0)
        assert draws.shape == (5, 23, 12)
        np.testing.assert_allclose(draws.mean(0), mean, rtol=1e-5)
        assert draws.std(0).min() > 0

    def test_global_randomness_and_mode(self, vae, loader, global_rng_untouched):
        vae.train()
        normalized(vae, loader)
        assert vae.training


class TestCost:
    def test_cells_are_encoded_once_for_all_batches(self, vae, loader, calls):
        seen = calls(vae)
        normalized(vae, loader, transform_batch=[0, 1, 2], seed=0)
        assert seen["inference"] == [7, 7, 7, 2]
        assert seen["generative"] == [7, 7, 7] * 3 + [2] * 3

    def test_decoded_rows_are_bounded(self, vae, loader, calls, monkeypatch):
        per_cell = 12 + 1 + 1
        monkeypatch.setattr("celbo.posterior.passes.MAX_DECODED", 3 * 7 * per_cell)
        seen = calls(vae)
        normalized(vae, loader, n_samples=50, seed=0)
        assert max(seen["generative"]) == 3 * 7
        assert len(seen["inference"]) == 4

    def test_sampled_rows_do_not_depend_on_the_number_of_cells(self, vae, make, calls):
        seen = calls(vae)
        loader = make.loader(n=500)
        found = sampled(vae, loader.of, np.arange(500), 20, transform_batch=[0, 1], seed=0)
        assert found.shape == (20, 12)
        assert sum(seen["inference"]) == 20
        assert sum(seen["generative"]) == 40


class TestSampled:
    def test_comes_from_the_group(self, vae, loader):
        alone = normalized(vae, loader.of(np.repeat(4, 500)), seed=0)
        found = sampled(vae, loader.of, np.array([4]), 500, seed=1)
        error = alone.std(0) / np.sqrt(500)
        assert (np.abs(found.mean(0) - alone.mean(0)) < 7 * error).all()

    def test_nobody_to_draw_from(self, vae, loader):
        for weighting in (None, Weighting()):
            with pytest.raises(ValueError, match="no cells to draw from"):
                sampled(vae, loader.of, np.array([], dtype=np.int64), 5, weighting=weighting)

    def test_weighted(self, vae, loader):
        weighting = Weighting(max_cells=5, n_mc_samples=10, n_mc_samples_per_pass=5)
        for cells in (np.arange(4), np.arange(23)):
            hundred = [EXPRESSION.reading(library_size=100)]
            found = sampled(vae, loader.of, cells, 10, hundred, weighting=weighting, seed=0)
            np.testing.assert_allclose(found.sum(1), 100, rtol=1e-4)
            again = sampled(vae, loader.of, cells, 10, hundred, weighting=weighting, seed=0)
            np.testing.assert_array_equal(found, again)

    def test_no_densities_for_logistic_normal(self, make, loader):
        module = make.vae(latent_distribution="ln")
        with pytest.raises(ValueError, match="uniform"):
            sampled(module, loader.of, np.arange(4), 10, weighting=Weighting())


def test_scale_is_needed(linear_gaussian, gaussian_cells):
    with pytest.raises(AttributeError, match="get_normalized"):
        normalized(linear_gaussian(), gaussian_cells)
    assert torch.is_grad_enabled()
