"""SCANVI on minified data: predictions from stored latents; training and losses from the counts, where kept."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.model import SCANVI, SCVI

GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "scanvi_minified"
WITH_COUNTS = "latent_posterior_parameters_with_counts"
SETUP = {"labels_key": "label", "unlabeled_category": "Unknown", "batch_key": "batch"}


def data(seed=0) -> anndata.AnnData:
    adata = synthetic_iid(batch_size=40, seed=seed)
    adata.obs["label"] = np.where(np.arange(80) % 3 == 0, "Unknown", adata.obs["labels"].astype(str))
    return adata


def with_latents(model):
    mean_nk, variance_nk = model.get_latent_representation(return_dist=True)
    model.adata.obsm["X_latent_qzm"], model.adata.obsm["X_latent_qzv"] = mean_nk, variance_nk
    return model


@pytest.fixture
def model(quick):
    adata = data()
    SCANVI.setup_anndata(adata, **SETUP)
    return with_latents(quick(SCANVI(adata, n_hidden=8, n_latent=3)))


def shift_stored(model):
    model.adata.obsm["scanvi_latent_qzm"] = model.adata.obsm["scanvi_latent_qzm"] + 5


class TestWithoutCounts:
    def test_predictions_are_those_of_the_counts(self, model):
        soft, hard = model.predict(soft=True), model.predict()
        model.minify_adata()
        assert model.adata.X.nnz == 0
        assert {"scanvi_latent_qzm", "scanvi_latent_qzv"} <= set(model.adata.obsm)
        np.testing.assert_allclose(model.predict(soft=True), soft, rtol=1e-5)
        assert model.predict().tolist() == hard.tolist()
        assert model.predict(indices=[7, 2]).tolist() == hard[[7, 2]].tolist()
        drawn = [model.predict(soft=True, use_posterior_mean=False, seed=seed) for seed in (1, 1, 2)]
        assert drawn[0].equals(drawn[1])
        assert not drawn[0].equals(drawn[2])

    def test_it_is_the_stored_latents_that_are_classified(self, model):
        model.minify_adata()
        shift_stored(model)
        stored = torch.from_numpy(model.adata.obsm["scanvi_latent_qzm"])
        with torch.no_grad():
            expected = model.module.classifier(stored).softmax(1)
        np.testing.assert_allclose(model.predict(soft=True), expected, rtol=1e-5)

    def test_training_and_losses_need_counts(self, model, quick):
        model.minify_adata()
        with pytest.raises(ValueError, match=r"SCANVAE\.loss function currently does not support minified data"):
            quick(model)
        with pytest.raises(ValueError, match=r"get_elbo function currently does not support minified data"):
            model.get_elbo()

    def test_archive(self, model, tmp_path):
        model.minify_adata()
        soft = model.predict(soft=True)
        model.save(tmp_path / "m", save_anndata=True)
        loaded = SCANVI.load(tmp_path / "m")
        assert loaded.minified_data_type == "latent_posterior_parameters"
        np.testing.assert_array_equal(loaded.predict(soft=True), soft)
        of_counts = SCANVI.load(tmp_path / "m", adata=data())
        assert of_counts.minified_data_type is None
        np.testing.assert_allclose(of_counts.predict(soft=True), soft, rtol=1e-4)

    def test_full_data_and_queries(self, model, caplog):
        soft = model.predict(soft=True)
        model.minify_adata()
        np.testing.assert_allclose(model.predict(data(), soft=True), soft, rtol=1e-4)
        query = data(seed=1)
        query.obs["batch"] = "new"
        with caplog.at_level("ERROR", "celbo"):
            mapped = SCANVI.load_query_data(query, model, accelerator="cpu")
        assert mapped.minified_data_type is None
        assert mapped.predict().shape == (80,)


class TestWithCounts:
    def test_losses_take_the_counts_and_predictions_what_is_stored(self, model, quick):
        elbo, soft = model.get_elbo(seed=0), model.predict(soft=True)
        model.minify_adata(WITH_COUNTS)
        shift_stored(model)
        assert model.get_elbo(seed=0) == elbo
        assert np.abs(model.predict(soft=True) - soft).to_numpy().max() > 1e-2
        quick(model)

    def test_the_classifier_learns_from_the_encoded_counts(self, model):
        labelled = next(iter(model._make_data_loader(model.adata, np.flatnonzero(np.arange(80) % 3))))
        loss = model.module.classification_loss(labelled)[1]
        model.minify_adata(WITH_COUNTS)
        shift_stored(model)
        labelled = next(iter(model._make_data_loader(model.adata, np.flatnonzero(np.arange(80) % 3))))
        torch.testing.assert_close(model.module.classification_loss(labelled)[1], loss)

    def test_a_setup_may_pass_over_what_is_stored(self, model, quick):
        model.minify_adata(WITH_COUNTS)
        adata = model.adata.copy()
        shift = adata.copy()
        shift.obsm["scanvi_latent_qzm"] += 5
        SCANVI.setup_anndata(shift, **SETUP, use_minified=False)
        other = quick(SCANVI(shift, n_hidden=8, n_latent=3))
        assert other.minified_data_type is None
        again = shift.copy()
        again.obsm["scanvi_latent_qzm"] -= 50
        np.testing.assert_allclose(other.predict(again, soft=True), other.predict(soft=True), rtol=1e-5)


class TestFromMinifiedSCVI:
    @pytest.fixture
    def scvi(self, quick):
        adata = data()
        SCVI.setup_anndata(adata, batch_key="batch", labels_key="label")
        return with_latents(quick(SCVI(adata, n_hidden=8, n_latent=3)))

    def test_without_counts_it_is_refused(self, scvi, quick):
        with_counts = SCVI(scvi.adata, n_hidden=8, n_latent=3)
        with_counts.is_trained_ = True
        scvi.minify_adata()
        with pytest.raises(ValueError, match="Keep counts when minifying"):
            SCANVI.from_scvi_model(scvi, "Unknown")
        with pytest.raises(ValueError, match="provide a non-minified `adata`"):
            SCANVI.from_scvi_model(with_counts, "Unknown", adata=scvi.adata)

    def test_with_counts_these_are_taken(self, scvi, quick):
        scvi.minify_adata(WITH_COUNTS)
        model = quick(SCANVI.from_scvi_model(scvi, "Unknown"))
        assert model.minified_data_type is None
        assert model.predict().shape == (80,)


class TestAgainstScviTools:
    """scvi-tools 1.4.2 cannot predict from its own minified SCANVI; what it predicted before is what is wanted."""

    def test_archive(self):
        model = SCANVI.load(GOLDEN / "model", accelerator="cpu")
        expected = np.load(GOLDEN / "expected.npz")
        assert model.minified_data_type == "latent_posterior_parameters"
        np.testing.assert_array_equal(model.get_latent_representation(), expected["mean"])
        np.testing.assert_allclose(model.predict(soft=True), expected["predict_soft"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.adata.obs["observed_lib_size"], expected["library"])
