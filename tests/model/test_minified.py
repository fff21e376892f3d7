"""Models on minified data: the same answers without the counts, errors where the counts are needed, archives."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from celbo.data import synthetic_iid
from celbo.model import SCVI, LinearSCVI
from celbo.model.utils import get_minified_adata_scrna
from celbo.module.base.minified import stored_latents
from celbo.utils import unsupported_if_adata_minified

GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "surgery"
WITH_COUNTS = "latent_posterior_parameters_with_counts"


def with_latents(model, variance=None):
    mean_nk, variance_nk = model.get_latent_representation(return_dist=True)
    model.adata.obsm["X_latent_qzm"] = mean_nk
    model.adata.obsm["X_latent_qzv"] = variance_nk if variance is None else np.full_like(variance_nk, variance)
    return model


@pytest.fixture
def model(make, quick):
    return with_latents(quick(make(setup={"batch_key": "batch", "layer": "counts"}, n_layers=2)))


@pytest.fixture
def minified(model):
    model.minify_adata()
    return model


class TestData:
    def test_counts_are_gone_the_rest_is_there(self, model):
        before = model.adata
        columns = list(before.obs)
        model.minify_adata()
        adata = model.adata
        assert adata is not before
        assert adata.X.nnz == adata.layers["counts"].nnz == 0
        assert adata.shape == before.shape
        assert list(adata.obs) == [*columns, "observed_lib_size"]
        assert adata.uns["_scvi_adata_minify_type"] == "latent_posterior_parameters"
        np.testing.assert_array_equal(adata.obsm["scvi_latent_qzm"], before.obsm["X_latent_qzm"])
        np.testing.assert_array_equal(adata.obsm["scvi_latent_qzv"], before.obsm["X_latent_qzv"])
        np.testing.assert_array_equal(adata.obs["observed_lib_size"], before.layers["counts"].sum(1))
        assert adata.obs["observed_lib_size"].dtype == before.layers["counts"].sum(1).dtype

    def test_the_data_that_were_passed_are_not_changed(self, model):
        before, keys = model.adata, (list(model.adata.obs), list(model.adata.obsm), list(model.adata.uns))
        model.minify_adata()
        assert (list(before.obs), list(before.obsm), list(before.uns)) == keys
        assert before.layers["counts"].sum() > 0

    def test_with_counts(self, model):
        before = model.adata
        model.minify_adata(WITH_COUNTS)
        np.testing.assert_array_equal(model.adata.layers["counts"], before.layers["counts"])
        assert model.minified_data_type == WITH_COUNTS

    @pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix, sp.csc_matrix])
    def test_totals_are_those_of_the_models_genes(self, quick, storage):
        adata = synthetic_iid(batch_size=30, seed=0)
        SCVI.setup_anndata(adata)
        model = quick(SCVI(adata, n_hidden=4, n_latent=2))
        shuffled = adata[:, ::-1].copy()
        blank = ad.AnnData(np.full((60, 1), 9.0), obs=shuffled.obs[[]])
        blank.var_names = ["of no model"]
        more = ad.concat([blank, shuffled], axis=1)
        more.X = storage(np.asarray(more.X))
        other = SCVI(registry=model.registry, n_hidden=4, n_latent=2)
        other.module.load_state_dict(model.module.state_dict())
        other.is_trained = True
        other.adata = more
        with_latents(other).minify_adata()
        np.testing.assert_allclose(other.adata.obs["observed_lib_size"], np.asarray(adata.X).sum(1), rtol=1e-6)

    def test_helper(self, model):
        bare = get_minified_adata_scrna(model.adata_manager)
        whole = get_minified_adata_scrna(model.adata_manager, keep_count_data=True)
        assert bare.X.nnz == 0
        np.testing.assert_array_equal(whole.X, model.adata.X)


class TestAnswers:
    def test_latents_are_the_stored_ones_to_the_bit(self, minified):
        mean_nk, variance_nk = minified.get_latent_representation(return_dist=True)
        np.testing.assert_array_equal(minified.get_latent_representation(), minified.adata.obsm["scvi_latent_qzm"])
        np.testing.assert_array_equal(mean_nk, minified.adata.obsm["scvi_latent_qzm"])
        # through the standard deviation and back
        np.testing.assert_allclose(variance_nk, minified.adata.obsm["scvi_latent_qzv"], rtol=1e-6)

    def test_expression_is_that_of_the_counts(self, make, quick):
        """With next to no variance a draw is the mean, and the two must agree."""
        model = with_latents(quick(make()), variance=1e-12)
        mean_nk = torch.from_numpy(model.get_latent_representation())
        loader = model._make_data_loader(model.adata, batch_size=100)
        (tensors,) = list(loader)
        with torch.no_grad():
            library = tensors["X"].sum(1, keepdim=True).log()
            px = model.module.generative(mean_nk, library, tensors["batch"])["px"]
        model.minify_adata()
        np.testing.assert_allclose(model.get_normalized_expression(return_numpy=True), px.scale, rtol=1e-4)
        latent = model.get_normalized_expression(library_size="latent", return_numpy=True)
        np.testing.assert_allclose(latent, px.mu, rtol=1e-4)

    def test_draws_have_the_stored_variance(self):
        """A variance is stored, not a standard deviation: 0.04 is 0.2 squared."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            mean_nk, variance_nk = torch.ones(2, 3), torch.full((2, 3), 0.04)
            drawn = stored_latents(mean_nk, variance_nk, torch.full((2, 1), 8.0), lambda z: z, n_samples=4000)
        torch.testing.assert_close(drawn["z"].std(0), torch.full((2, 3), 0.2), rtol=0.05, atol=0)
        torch.testing.assert_close(drawn["qz"].scale, torch.full((2, 3), 0.2))
        assert drawn["library"].shape == (4000, 2, 1)
        assert drawn["library"][0, 0].item() == pytest.approx(np.log(8))

    def test_what_else_needs_no_counts(self, minified):
        n, g = minified.adata.shape
        assert minified.get_normalized_expression(n_samples=3, return_mean=False).shape == (3, n, g)
        assert minified.get_normalized_expression(transform_batch="batch_1").shape == (n, g)
        assert minified.posterior_predictive_sample(seed=0).shape == (n, g)
        assert minified.get_likelihood_parameters()["mean"].shape == (n, g)
        assert minified.get_aggregated_posterior().sample().shape == (3,)

    def test_differential_expression_has_no_columns_of_counts(self, minified):
        table = minified.differential_expression(groupby="batch", mode="vanilla", seed=0)
        assert len(table) == 2 * minified.adata.n_vars
        assert not [name for name in table if "raw" in name]
        with pytest.raises(ValueError, match="give pseudocounts="):
            minified.differential_expression(groupby="batch", mode="change", delta=0.25)
        minified.differential_expression(groupby="batch", mode="change", delta=0.25, pseudocounts=1e-5, seed=0)

    @pytest.mark.parametrize(
        ("verb", "named"),
        [
            ("get_elbo", "VAEMixin.get_elbo"),
            ("get_reconstruction_error", "VAEMixin.get_reconstruction_error"),
            ("get_marginal_ll", "VAEMixin.get_marginal_ll"),
            ("get_latent_library_size", "RNASeqMixin.get_latent_library_size"),
        ],
    )
    def test_what_needs_counts(self, minified, verb, named):
        with pytest.raises(ValueError) as caught:
            getattr(minified, verb)()
        assert str(caught.value) == f"The {named} function currently does not support minified data."
        assert "load the model with the full data" in caught.value.__notes__[0]

    def test_training_needs_counts(self, minified, quick):
        with pytest.raises(ValueError, match=r"VAE\.loss function currently does not support minified data"):
            quick(minified)

    def test_importance_weights_need_counts(self, minified):
        with pytest.raises(ValueError, match=r"VAE\.marginal_ll function"):
            minified.get_normalized_expression(n_samples_overall=5, weights="importance", return_numpy=True)

    def test_with_counts_losses_take_them_and_latents_are_stored(self, model, quick):
        elbo = model.get_elbo(seed=0)
        model.minify_adata(WITH_COUNTS)
        model.adata.obsm["scvi_latent_qzm"] = model.adata.obsm["scvi_latent_qzm"] + 5
        assert model.get_elbo(seed=0) == elbo
        latents = model.get_latent_representation()
        np.testing.assert_array_equal(latents, model.adata.obsm["scvi_latent_qzm"])
        quick(model)

    def test_full_data_passed_to_a_minified_model(self, minified, adata):
        full = synthetic_iid(batch_size=40, seed=0)
        full.layers["counts"] = full.X.copy()
        latents = minified.get_latent_representation(full)
        np.testing.assert_allclose(latents, minified.adata.obsm["scvi_latent_qzm"], rtol=1e-4, atol=1e-5)


class TestErrors:
    def test_unknown_type(self, model):
        with pytest.raises(ValueError, match="'zz'"):
            model.minify_adata("zz")

    def test_latents_first(self, make, quick):
        with pytest.raises(KeyError, match=r"X_latent_qzm.*get_latent_representation\(return_dist=True\)"):
            quick(make()).minify_adata()

    def test_wrong_shape(self, model):
        model.adata.obsm["X_latent_qzm"] = np.zeros((80, 2))
        with pytest.raises(ValueError, match=r"\(80, 2\), wanted \(80, 3\)"):
            model.minify_adata()

    def test_a_variance_is_positive(self, model):
        with pytest.raises(ValueError, match="must be positive"):
            model.minify_adata(use_latent_qzv_key="X_latent_qzm")

    def test_latent_library(self, make, quick):
        with pytest.raises(ValueError, match="do not use observed library size"):
            with_latents(quick(make(use_observed_lib_size=False))).minify_adata()

    def test_twice(self, minified):
        with pytest.raises(ValueError, match="minified already"):
            minified.minify_adata()

    def test_minified_data_for_a_model_of_counts(self, minified, make, quick, adata):
        other = quick(make(synthetic_iid(batch_size=40, seed=0), n_layers=2))
        with pytest.raises(ValueError, match="a non-minified model with minified adata"):
            other.get_latent_representation(minified.adata.copy())


class TestArchives:
    def test_there_and_back(self, minified, tmp_path):
        minified.save(tmp_path / "model", save_anndata=True)
        loaded = SCVI.load(tmp_path / "model")
        assert loaded.minified_data_type == "latent_posterior_parameters"
        np.testing.assert_array_equal(loaded.get_latent_representation(), minified.get_latent_representation())
        first, second = (one.get_normalized_expression(seed=1) for one in (minified, loaded))
        np.testing.assert_array_equal(first, second)

    def test_loaded_with_the_counts(self, minified, tmp_path):
        full = synthetic_iid(batch_size=40, seed=0)
        full.layers["counts"] = full.X.copy()
        minified.save(tmp_path / "model", save_anndata=True)
        loaded = SCVI.load(tmp_path / "model", adata=full)
        assert loaded.minified_data_type is None
        assert torch.isfinite(loaded.get_elbo())

    def test_loaded_without_data_which_come_later(self, minified, tmp_path):
        minified.save(tmp_path / "model")
        loaded = SCVI.load(tmp_path / "model", adata=False)
        loaded.adata = minified.adata.copy()
        np.testing.assert_array_equal(loaded.get_latent_representation(), minified.get_latent_representation())

    def test_linear_scvi_has_keys_of_its_own(self, adata, quick):
        LinearSCVI.setup_anndata(adata)
        model = with_latents(quick(LinearSCVI(adata, n_hidden=4, n_latent=2, use_observed_lib_size=True)))
        model.minify_adata()
        assert {"ldvae_latent_qzm", "ldvae_latent_qzv"} <= set(model.adata.obsm)

    def test_saved_by_scvi_tools(self):
        model = SCVI.load(GOLDEN / "minified", accelerator="cpu")
        expected = np.load(GOLDEN / "minified.npz")
        assert model.minified_data_type == "latent_posterior_parameters"
        np.testing.assert_array_equal(model.get_latent_representation(), expected["mean"])
        np.testing.assert_allclose(
            model.get_normalized_expression(return_numpy=True), expected["expression"], rtol=1e-5
        )
        as_b = model.get_normalized_expression(transform_batch="b", return_numpy=True)
        np.testing.assert_allclose(as_b, expected["as_b"], rtol=1e-5)
        np.testing.assert_array_equal(model.adata.obs["observed_lib_size"], expected["library"])


def test_decorator_lets_models_of_counts_through():
    class Model:
        minified_data_type = None

        @unsupported_if_adata_minified
        def verb(self):
            return 1

    assert Model().verb() == 1
