"""SCANVI: labels in, labels out."""

import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.model import SCANVI, SCVI
from celbo.train import RECIPES, Callback

KINDS = ["B", "NK", "T"]


@pytest.fixture
def adata():
    """150 cells of three kinds that differ in ten genes each; every third cell is not labelled."""
    rng = np.random.default_rng(0)
    adata = synthetic_iid(batch_size=75, seed=0)
    kind_n = np.arange(150) % 3
    rate = np.full((3, 100), 1.0)
    for kind in range(3):
        rate[kind, 10 * kind : 10 * kind + 10] = 12.0
    adata.X = rng.poisson(rate[kind_n]).astype(np.float32)
    adata.obs["kind"] = np.array(KINDS)[kind_n]
    labels = adata.obs["kind"].astype(object).to_numpy()
    labels[rng.permutation(150)[:50]] = "Unknown"
    adata.obs["label"] = labels
    return adata


@pytest.fixture
def setup():
    return {"labels_key": "label", "unlabeled_category": "Unknown", "batch_key": "batch"}


@pytest.fixture
def scanvi(adata, setup):
    def scanvi(**kwargs) -> SCANVI:
        SCANVI.setup_anndata(adata, **setup)
        return SCANVI(adata, **({"n_hidden": 16, "n_latent": 4} | kwargs))

    return scanvi


@pytest.fixture
def trained(scanvi, quick):
    return quick(scanvi())


def accuracy_of_unlabelled(model) -> float:
    adata = model.adata
    rest = (adata.obs["label"] == "Unknown").to_numpy()
    return float((model.predict()[rest] == adata.obs["kind"].to_numpy()[rest]).mean())


def test_learns_the_labels_of_cells_without(scanvi, quick):
    model = quick(scanvi(), max_epochs=30, plan_kwargs={"lr": 1e-2, "n_epochs_kl_warmup": 1}, recipe="classic")
    assert accuracy_of_unlabelled(model) > 0.95
    assert model.history["train_accuracy"].iloc[-1, 0] > 0.95
    losses = model.history["train_classification_loss"].iloc[:, 0]
    assert losses.iloc[-1] < losses.iloc[0] / 5


def test_history_has_the_classification_metrics_of_both_splits(trained):
    names = ("classification_loss", "accuracy", "f1_score", "calibration_error")
    for name in (f"{mode}_{name}" for mode in ("train", "validation") for name in names):
        assert list(trained.history[name].index) == [0, 1], name
    assert list(trained.history["kl_weight"].index) == [0, 1]


def test_predictions_are_names_of_labels(trained):
    soft, hard = trained.predict(soft=True), trained.predict()
    assert isinstance(soft, pd.DataFrame)
    assert set(soft.columns) == set(KINDS)
    assert soft.index.equals(trained.adata.obs_names)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    assert hard.tolist() == soft.idxmax(axis=1).tolist()
    some = [7, 3, 140]
    assert trained.predict(indices=some).tolist() == hard[some].tolist()
    pd.testing.assert_frame_equal(trained.predict(indices=some, soft=True), soft.iloc[some], rtol=1e-5)
    loader = trained._make_data_loader(trained.adata, indices=some)
    assert trained.predict(dataloader=loader).tolist() == hard[some].tolist()


def test_predictions_from_draws_are_seeded(trained, global_rng_untouched):
    def drawn(seed):
        return trained.predict(soft=True, use_posterior_mean=False, seed=seed).to_numpy()

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_new_data_need_no_labels(trained, adata):
    new = adata[:20].copy()
    del new.obs["label"], new.obs["_scvi_labels"]
    new.obs_names = [f"new{i}" for i in range(20)]
    with pytest.warns(UserWarning, match="every cell is taken as 'Unknown'"):
        predicted = trained.predict(new)
    assert predicted.tolist() == trained.predict(indices=range(20)).tolist()


def test_new_data_with_an_unknown_label_are_refused(trained, adata):
    new = adata[:20].copy()
    new.obs["label"] = "monocyte"
    with pytest.raises(ValueError, match=r"'monocyte'.*give these cells the label 'Unknown'"):
        trained.predict(new)


def test_no_phantom_classes(adata, setup, quick):
    adata.obs["label"] = pd.Categorical(adata.obs["label"], categories=["mast", *KINDS, "Unknown", "pDC"])
    SCANVI.setup_anndata(adata, **setup)
    model = quick(SCANVI(adata, n_hidden=8))
    assert model.n_labels == 3
    assert model.module.classifier.classifier[-1].out_features == 3
    assert set(model.predict(soft=True).columns) == set(KINDS)


@pytest.mark.parametrize("unlabeled", [{}, {"unlabeled_category": None}, {"unlabeled_category": np.nan}])
def test_cells_with_nan_are_not_labelled(adata, quick, unlabeled, tmp_path):
    adata.obs["label"] = adata.obs["label"].replace({"Unknown": np.nan})
    SCANVI.setup_anndata(adata, "label", **unlabeled)
    model = quick(SCANVI(adata, n_hidden=8))
    assert model.classes.tolist() == KINDS
    assert (adata.obs["_scvi_labels"] == 3).sum() == 50
    model.save(str(tmp_path / "m"))
    again = SCANVI.load(str(tmp_path / "m"), adata)
    assert again.predict().tolist() == model.predict().tolist()


def test_all_cells_labelled_and_none(adata, quick):
    SCANVI.setup_anndata(adata, "kind")
    model = quick(SCANVI(adata, n_hidden=8))
    assert model.classes.tolist() == KINDS
    assert set(model.predict()) <= set(KINDS)
    adata.obs["kind"] = "Unknown"
    SCANVI.setup_anndata(adata, "kind", "Unknown")
    with pytest.raises(ValueError, match="No cell has a label: all are 'Unknown'"):
        SCANVI(adata)


def test_labels_may_be_numbers(adata, quick):
    adata.obs["label"] = np.where(adata.obs["label"] == "Unknown", np.nan, np.arange(150) % 3 + 5)
    SCANVI.setup_anndata(adata, "label")
    assert set(quick(SCANVI(adata, n_hidden=8)).predict()) <= {5.0, 6.0, 7.0}


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb"])
def test_every_dispersion_trains(scanvi, quick, dispersion, gene_likelihood):
    model = quick(scanvi(dispersion=dispersion, gene_likelihood=gene_likelihood), max_epochs=1)
    assert np.isfinite(model.history["elbo_validation"].iloc[-1, 0])
    assert model.get_normalized_expression(n_samples=1).shape == (150, 100)


def test_covariates_and_a_latent_library(adata, quick):
    adata.obs["site"] = [f"site_{i % 4}" for i in range(150)]
    adata.obs["depth"] = np.arange(150) / 150
    SCANVI.setup_anndata(
        adata, "label", "Unknown", categorical_covariate_keys=["site"], continuous_covariate_keys=["depth"]
    )
    model = quick(SCANVI(adata, encode_covariates=True, use_observed_lib_size=False, linear_classifier=True))
    assert model.predict(soft=True).shape == (150, 3)


def test_user_callbacks_are_called_with_n_samples_per_label(scanvi, quick):
    class Counting(Callback):
        def __init__(self):
            self.labelled = []

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            self.labelled.append(len(batch[1]["labels"]))

    counting = Counting()
    quick(scanvi(), callbacks=[counting], n_samples_per_label=4, batch_size=50)
    assert counting.labelled == [12] * len(counting.labelled)
    assert len(counting.labelled) == 2 * 3


def test_same_seed_same_weights(scanvi, quick, global_rng_untouched):
    first, second, other = (quick(scanvi(), seed=seed, n_samples_per_label=5) for seed in (1, 1, 2))
    a, b, c = (model.module.state_dict() for model in (first, second, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_default_recipe_is_the_row_of_the_table(scanvi, quick):
    model = quick(scanvi(), max_epochs=None, max_steps=2)
    row = RECIPES["long_cycle"]
    assert model.recipe_ == row.name
    assert model.trainer.max_epochs == row.max_epochs(150, 128, model.summary_stats["n_batch"])
    assert model.trainer.keep_best == row.keep_best
    plan = model.trainer.plan
    assert {name: getattr(plan, name) for name in row.plan_kwargs} == dict(row.plan_kwargs)
    assert quick(scanvi(), recipe="classic").recipe_ == "classic"
    assert quick(scanvi(), max_steps=2, plan_kwargs={"lr": 0.03}).trainer.plan.lr == 0.03


def test_split_holds_every_cell_once(trained):
    both = np.concatenate([trained.train_indices, trained.validation_indices])
    assert sorted(both.tolist()) == list(range(150))
    unlabelled = (trained.adata.obs["label"] == "Unknown").to_numpy()
    assert unlabelled[trained.train_indices].sum() == 45


def test_validation_can_be_turned_off(scanvi, quick):
    assert "validation_accuracy" not in quick(scanvi(), check_val_every_n_epoch=0).history
    every_second = quick(scanvi(), check_val_every_n_epoch=2, max_epochs=4).history["validation_accuracy"]
    assert every_second.index.tolist() == [1, 3]


class TestExplanations:
    def test_the_genes_of_a_kind_explain_it(self, scanvi, quick, adata):
        model = quick(scanvi(), max_epochs=30, plan_kwargs={"lr": 1e-2, "n_epochs_kl_warmup": 1}, recipe="classic")
        cells = np.flatnonzero(model.predict() == "NK")  # genes 10 to 19 are many in these
        predicted, table = model.predict(indices=cells, ig_interpretability=True, ig_args={"n_steps": 20})
        assert set(predicted) == {"NK"}
        assert set(table["cells"]) == {len(cells)}
        top = table["feature_idx"].to_numpy()[:10]
        assert ((top >= 10) & (top < 20)).sum() >= 7
        assert table["feature"].tolist() == adata.var_names[table["feature_idx"]].tolist()

    def test_probabilities_beside(self, trained):
        soft, table = trained.predict(soft=True, ig_interpretability=True, ig_args={"n_steps": 2})
        pd.testing.assert_frame_equal(soft, trained.predict(soft=True))
        assert len(table) == 100

    def test_the_function_that_shap_explains(self, trained, adata):
        x_ng = np.concatenate([adata.X, adata.X[:20]])  # from the first cell again
        soft_nc = trained.predict(soft=True).to_numpy()
        found_nc = trained.shap_adata_predict(x_ng)
        np.testing.assert_allclose(found_nc, np.concatenate([soft_nc, soft_nc[:20]]), rtol=1e-4, atol=1e-6)

    def test_values_of_shap(self, trained):
        pytest.importorskip("shap", reason="shap is not installed")
        values = trained.shap_predict(indices=[0, 5], shap_args={"nsamples": 20, "silent": True})
        assert values.shape == (2, 100, 3)

    def test_without_shap_it_is_named(self, trained, monkeypatch):
        monkeypatch.setitem(sys.modules, "shap", None)
        with pytest.raises(ModuleNotFoundError, match=r"celbo\[shap\]"):
            trained.shap_predict()

    def test_nothing_to_rank(self, trained):
        assert trained.get_ranked_features() is None


def test_what_cannot_be_is_said(trained, scanvi):
    with pytest.raises(ValueError, match="adversarial_classifier"):
        trained.train(adversarial_classifier=True)
    with pytest.raises(RuntimeError, match="train the model first"):
        scanvi().predict()


class TestFromSCVI:
    @pytest.fixture
    def scvi(self, adata, quick):
        def scvi(setup=None, **kwargs) -> SCVI:
            SCVI.setup_anndata(adata, **({"batch_key": "batch", "labels_key": "label"} if setup is None else setup))
            return quick(SCVI(adata, n_hidden=8, n_latent=3, **kwargs))

        return scvi

    def test_takes_arguments_and_weights(self, scvi):
        source = scvi(gene_likelihood="nb", n_layers=2, encode_covariates=True)
        latent = source.get_latent_representation()
        model = SCANVI.from_scvi_model(source, "Unknown")
        assert model.was_pretrained
        assert not model.is_trained
        for name, value in source.module.state_dict().items():
            assert torch.equal(model.module.state_dict()[name], value), name
        model.is_trained = True
        np.testing.assert_array_equal(model.get_latent_representation(), latent)
        np.testing.assert_array_equal(source.get_latent_representation(), latent)

    @pytest.mark.parametrize(("recipe", "n_epochs"), [("classic", 10), ("one_cycle", 200), ("long_cycle", 200)])
    def test_trains_for_fewer_epochs(self, scvi, quick, recipe, n_epochs):
        model = SCANVI.from_scvi_model(scvi(), "Unknown")
        fewer = RECIPES[recipe].pretrained_epochs(150, 128, 2)
        assert fewer == n_epochs < RECIPES[recipe].max_epochs(150, 128, 2)
        quick(model, max_epochs=None, recipe=recipe, max_steps=30)
        assert model.trainer.max_epochs == n_epochs

    def test_archive(self, scvi, quick, tmp_path, adata):
        model = quick(SCANVI.from_scvi_model(scvi(), "Unknown", linear_classifier=True))
        model.save(str(tmp_path / "m"))
        again = SCANVI.load(str(tmp_path / "m"), adata)
        np.testing.assert_array_equal(again.predict(soft=True), model.predict(soft=True))

    def test_labels_of_its_own(self, scvi):
        source = scvi(setup={"batch_key": "batch"})
        with pytest.raises(ValueError, match="A `labels_key` is necessary"):
            SCANVI.from_scvi_model(source, "Unknown")
        assert set(SCANVI.from_scvi_model(source, "Unknown", labels_key="label").classes) == set(KINDS)
        assert SCANVI.from_scvi_model(source, labels_key="kind").classes.tolist() == KINDS

    def test_other_data_keep_the_codes_of_batches(self, scvi, adata):
        source = scvi()
        other = adata[adata.obs["batch"] == "batch_1"].copy()
        model = SCANVI.from_scvi_model(source, "Unknown", adata=other)
        assert model.summary_stats["n_batch"] == 2
        assert (other.obs["_scvi_batch"] == 1).all()

    def test_dispersions_follow_their_labels(self, scvi):
        source = scvi(dispersion="gene-label")
        model = SCANVI.from_scvi_model(source, "NK")
        old = source.get_state_registry("labels")["categorical_mapping"].tolist()
        new = [*model.classes, "NK"]
        assert old != new
        assert sorted(old) == sorted(new)
        for code, name in enumerate(new):
            assert torch.equal(model.module.px_r[:, code], source.module.px_r[:, old.index(name)])

    def test_what_scvi_says_wins_and_is_said(self, scvi):
        with pytest.warns(UserWarning, match="leaves out n_latent: the SCVI model says n_latent=3"):
            assert SCANVI.from_scvi_model(scvi(), "Unknown", n_latent=5).module.n_latent == 3

    def test_an_untrained_model_is_warned_of(self, adata, said):
        SCVI.setup_anndata(adata, labels_key="label")
        model = SCANVI.from_scvi_model(SCVI(adata, n_hidden=8), "Unknown")
        assert said(logging.WARNING) == ["Passed in scvi model hasn't been trained yet."]
        assert not model.was_pretrained  # it needs all epochs


def test_query_mapping_keeps_the_classifier(trained, adata, quick, caplog):
    query = adata[:40].copy()
    query.obs["batch"] = "new"
    query.obs["label"] = "Unknown"
    with caplog.at_level(logging.ERROR, "celbo"):
        mapped = SCANVI.load_query_data(query, trained)
    before = {name: value.clone() for name, value in mapped.module.classifier.state_dict().items()}
    quick(mapped)
    assert all(torch.equal(before[name], value) for name, value in mapped.module.classifier.state_dict().items())
    assert set(mapped.predict()) <= set(KINDS)
    assert mapped.classes.tolist() == trained.classes.tolist()


def test_a_query_is_predicted_before_it_is_trained(trained, scanvi, adata, caplog):
    """With the classifier of its reference, as in scvi-tools; ``is_trained`` says whether it was trained itself."""
    query = adata[:40].copy()
    query.obs["batch"] = "new"
    with caplog.at_level(logging.ERROR, "celbo"):
        mapped = SCANVI.load_query_data(query, trained)
        of_untrained = SCANVI.load_query_data(query.copy(), scanvi())
    assert not mapped.is_trained
    assert mapped.predict().tolist() == trained.predict(indices=range(40)).tolist()
    with pytest.raises(RuntimeError, match="train the model first"):
        mapped.get_latent_representation()
    with pytest.raises(RuntimeError, match="train the model first"):
        of_untrained.predict()
