"""SOLO: simulated doublets, the classifier of latents, scvi-tools' archive."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import rankdata

from celbo.core.rules import SCVI_TOOLS, followed
from celbo.data import simulate_counts, synthetic_iid
from celbo.external import SOLO
from celbo.model import SCVI

GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "solo"
QUIET = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


@pytest.fixture
def scvi():
    def scvi(adata=None, setup=None, **kwargs):
        adata = synthetic_iid(batch_size=40, seed=0) if adata is None else adata
        SCVI.setup_anndata(adata, **(setup or {}))
        model = SCVI(adata, **({"n_hidden": 8, "n_latent": 3} | kwargs))
        model.train(max_epochs=1, **QUIET)
        return model

    return scvi


@pytest.fixture
def solo(scvi):
    return SOLO.from_scvi_model(scvi(), n_hidden=8)


def auroc(score_n, is_doublet_n) -> float:
    rank_n, n_doublets = rankdata(score_n), is_doublet_n.sum()
    below = rank_n[is_doublet_n].sum() - n_doublets * (n_doublets + 1) / 2
    return below / (n_doublets * (~is_doublet_n).sum())


def cells_and_doublets(n_cells: int, n_doublets: int, seed: int) -> ad.AnnData:
    """Cells of six types, and doublets of two types each; which is which in ``obs["is_doublet"]``."""
    rng = np.random.default_rng(seed)
    cells = simulate_counts(n_cells + 4 * n_doublets, 100, n_batches=1, marker_strength=2.5, seed=seed)
    counts, kind = sp.csr_matrix(cells.X), cells.obs["cell_type"].to_numpy()
    pairs = (n_cells + rng.permutation(4 * n_doublets)).reshape(-1, 2)
    pairs = pairs[kind[pairs[:, 0]] != kind[pairs[:, 1]]][:n_doublets]
    adata = ad.AnnData(sp.vstack([counts[:n_cells], counts[pairs[:, 0]] + counts[pairs[:, 1]]], format="csr"))
    adata.obs["is_doublet"] = np.arange(adata.n_obs) >= n_cells
    return adata[rng.permutation(adata.n_obs)].copy()


def test_finds_the_doublets():
    """Better than by their total counts alone."""
    adata = cells_and_doublets(1080, 120, seed=0)
    SCVI.setup_anndata(adata)
    scvi = SCVI(adata, n_hidden=32)
    scvi.train(check_val_every_n_epoch=0, **QUIET)
    solo = SOLO.from_scvi_model(scvi)
    solo.train(max_epochs=60, **QUIET)
    is_doublet_n = adata.obs["is_doublet"].to_numpy()
    found = auroc(solo.predict()["doublet"].to_numpy(), is_doublet_n)
    assert found > max(0.9, auroc(np.asarray(adata.X.sum(1)).ravel(), is_doublet_n))


class TestDoublets:
    def test_are_sums_of_two_cells(self, scvi):
        manager = scvi().adata_manager
        doublets = SOLO.create_doublets(manager, doublet_ratio=3)
        counts = {tuple(row) for row in manager.adata.X.astype(np.float32)}
        assert doublets.shape == (240, 100)
        assert doublets.obs_names[7] == "sim_doublet_7"
        for row in doublets.X[:5].toarray():
            assert any(tuple(row - np.array(cell)) in counts for cell in counts)

    @pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix, sp.csc_matrix])
    def test_layer_genes_and_metadata_come_along(self, scvi, storage):
        adata = synthetic_iid(batch_size=40, seed=0)
        adata.layers["counts"] = storage(adata.X)
        adata.X = np.zeros(adata.shape, np.float32)
        manager = scvi(adata, {"layer": "counts", "batch_key": "batch"}).adata_manager
        parents = np.random.RandomState(4).choice(80, size=(80, 2))
        doublets = SOLO.create_doublets(manager, doublet_ratio=1, seed=4)
        dense = np.asarray(
            adata.layers["counts"].todense() if sp.issparse(adata.layers["counts"]) else adata.layers["counts"]
        )
        np.testing.assert_array_equal(doublets.layers["counts"].toarray(), dense[parents].sum(1))
        assert doublets.var_names.equals(adata.var_names)
        assert doublets.obs["batch"].tolist() == adata.obs["batch"].iloc[parents[:, 0]].tolist()

    def test_of_some_cells(self, scvi):
        manager = scvi().adata_manager
        some = SOLO.create_doublets(manager, 2, indices=[5, 9])
        x = manager.adata.X
        allowed = [2 * x[5], 2 * x[9], x[5] + x[9]]
        assert len(some) == 4
        assert all(any(np.array_equal(row, sums) for sums in allowed) for row in some.X.toarray())

    def test_ratio_must_be_positive(self, scvi):
        with pytest.raises(ValueError, match=r"doublet_ratio.*got 0"):
            SOLO.create_doublets(scvi().adata_manager, 0)


class TestFromSCVI:
    @pytest.mark.parametrize("use_observed_lib_size", [True, False])
    def test_input_is_latents_and_log_library(self, scvi, use_observed_lib_size):
        model = scvi(use_observed_lib_size=use_observed_lib_size)
        solo = SOLO.from_scvi_model(model)
        kinds = solo.adata.obs["_solo_doub_sim"]
        assert kinds.value_counts().to_dict() == {"singlet": 80, "doublet": 160}
        np.testing.assert_array_equal(solo.adata.X[:80, :3], model.get_latent_representation())
        library = model.get_latent_library_size(give_mean=not use_observed_lib_size)
        np.testing.assert_allclose(solo.adata.X[:80, 3:], np.log(library), rtol=1e-6)
        assert solo.adata.obs_names[:80].equals(model.adata.obs_names)

    def test_every_covariate_may_be_seen_by_the_encoder(self, scvi):
        adata = synthetic_iid(batch_size=40, seed=0)
        adata.obs["site"] = [f"site_{i % 3}" for i in range(80)]
        setup = {"categorical_covariate_keys": ["site"], "labels_key": "labels"}
        model = scvi(adata, setup, encode_covariates=True)
        assert SOLO.from_scvi_model(model).adata.shape == (240, 4)

    def test_one_batch_at_a_time(self, scvi):
        model = scvi(setup={"batch_key": "batch"})
        with pytest.warns(UserWarning, match="of 2 batches.*restrict_to_batch"):
            SOLO.from_scvi_model(model)
        solo = SOLO.from_scvi_model(model, restrict_to_batch="batch_1")
        in_batch = model.adata.obs["batch"].to_numpy() == "batch_1"
        np.testing.assert_array_equal(solo.adata.X[:40, :3], model.get_latent_representation()[in_batch])
        assert len(solo.adata) == 120
        with pytest.raises(ValueError, match=r"'batch_7'.*'batch_0'"):
            SOLO.from_scvi_model(model, restrict_to_batch="batch_7")

    def test_other_cells(self, scvi):
        model = scvi()
        other = synthetic_iid(batch_size=10, seed=3)
        assert SOLO.from_scvi_model(model, other, doublet_ratio=1).adata.shape == (40, 4)

    def test_an_untrained_model_is_refused(self):
        adata = synthetic_iid(batch_size=20, seed=0)
        SCVI.setup_anndata(adata)
        with pytest.raises(RuntimeError, match="train the model first"):
            SOLO.from_scvi_model(SCVI(adata))


class TestTraining:
    def test_history(self, solo):
        solo.train(max_epochs=12, **QUIET)
        assert list(solo.history["train_loss_epoch"].index) == list(range(12))
        assert list(solo.history["validation_loss"].index) == list(range(12))
        assert solo.history["train_loss_step"].index.name == "step"
        assert not [name for name in solo.history if "elbo" in name]
        assert solo.history["train_loss_epoch"].iloc[-1, 0] < solo.history["train_loss_epoch"].iloc[0, 0]

    def test_stops_early(self, solo):
        solo.train(max_epochs=50, early_stopping_patience=1, early_stopping_min_delta=10.0, **QUIET)
        assert solo.trainer.current_epoch == 2
        solo.train(max_epochs=3, early_stopping=False, **QUIET)
        assert solo.trainer.current_epoch == 3

    def test_same_seed_same_weights(self, scvi, global_rng_untouched):
        first, second, other = (SOLO.from_scvi_model(scvi(), n_hidden=8) for _ in range(3))
        for model, seed in ((first, 1), (second, 1), (other, 2)):
            model.train(max_epochs=2, **(QUIET | {"seed": seed}))
        a, b, c = (model.module.state_dict() for model in (first, second, other))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert any(not torch.equal(a[name], c[name]) for name in a)


class TestPredictions:
    @pytest.fixture
    def trained(self, solo):
        solo.train(max_epochs=2, **QUIET)
        return solo

    def test_soft_hard_and_logits(self, trained):
        soft, hard, logits = trained.predict(), trained.predict(soft=False), trained.predict(return_logits=True)
        assert soft.columns.tolist() == ["doublet", "singlet"]
        assert soft.index.equals(trained.adata.obs_names[:80])
        np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(torch.tensor(logits.to_numpy()).softmax(1), soft, rtol=1e-5)
        assert isinstance(hard, pd.Series)
        assert hard.tolist() == soft.idxmax(axis=1).tolist()

    def test_simulated_doublets_come_behind(self, trained):
        everyone = trained.predict(include_simulated_doublets=True)
        assert everyone.index[80] == "sim_doublet_0"
        pd.testing.assert_frame_equal(everyone.iloc[:80], trained.predict(), rtol=1e-5)

    def test_a_classifier_that_gives_probabilities(self, scvi):
        """Its outputs are never taken for logits, in training or after."""
        both = [SOLO.from_scvi_model(scvi(), n_hidden=8, logits=logits) for logits in (True, False)]
        for solo in both:
            solo.train(max_epochs=3, **QUIET)
        np.testing.assert_allclose(both[0].predict(), both[1].predict(), atol=1e-5)
        difference = both[0].predict(return_logits=True) - both[1].predict(return_logits=True)
        np.testing.assert_allclose(difference["doublet"], difference["singlet"], atol=1e-4)  # the same up to a constant

    def test_training_comes_first(self, solo):
        with pytest.raises(RuntimeError, match="train the model first"):
            solo.predict()

    def test_archive(self, trained, tmp_path):
        trained.save(tmp_path / "m", save_anndata=True)
        pd.testing.assert_frame_equal(SOLO.load(tmp_path / "m").predict(), trained.predict())
        bare = SOLO.load(tmp_path / "m", adata=False)
        bare.adata = trained.adata
        pd.testing.assert_frame_equal(bare.predict(), trained.predict())


class TestAgainstScviTools:
    @pytest.fixture
    def expected(self):
        with np.load(GOLDEN / "expected.npz") as archive:
            return dict(archive)

    def test_archive(self, expected):
        model = SOLO.load(GOLDEN / "model", accelerator="cpu")
        logits = model.predict(include_simulated_doublets=True, return_logits=True)
        np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model.predict(), expected["predict_soft"], rtol=1e-5, atol=1e-5)
        assert set(model.history) == {"validation_loss", "train_loss_epoch"}

    def test_the_same_doublets_and_input_from_the_same_model(self, expected):
        scvi = SCVI.load(GOLDEN / "scvi", accelerator="cpu")
        doublets = SOLO.create_doublets(scvi.adata_manager, 2, seed=1)
        np.testing.assert_array_equal(doublets.X.toarray(), expected["doublets"])
        np.testing.assert_allclose(SOLO.from_scvi_model(scvi).adata.X, expected["input"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keys", [{"continuous_covariate_keys": ["depth"]}, {"categorical_covariate_keys": ["site"]}])
def test_models_with_covariates_are_refused_only_under_the_rules_of_scvi_tools(scvi, keys):
    adata = synthetic_iid(batch_size=40, seed=0)
    adata.obs["depth"] = np.linspace(-1, 1, adata.n_obs)
    adata.obs["site"] = [f"site_{i % 3}" for i in range(adata.n_obs)]
    model = scvi(adata, setup=keys)
    with followed(SCVI_TOOLS), pytest.raises(ValueError, match="registered covariates"):
        SOLO.from_scvi_model(model)
    assert SOLO.from_scvi_model(model, n_hidden=4).adata.n_obs == 3 * adata.n_obs
