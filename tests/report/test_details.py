"""What the report shows of each kind of model: numbers against the model's own answers, names as text."""

import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

import celbo
from celbo.external import CYTOVI, MRVI, SOLO, CellAssign, RNAStereoscope, SpatialStereoscope
from celbo.model import AUTOZI, SCANVI, SCVI, AmortizedLDA, CondSCVI, DestVI
from celbo.report import figures, model_report
from celbo.report.labels import LabelDetail
from celbo.report.models import ROWS, Row, row_of
from celbo.report.page import heat_table
from celbo.report.proportions import ProportionDetail

HOSTILE = "<b>&\"é細'$x$"


@pytest.fixture
def adata():
    adata = celbo.data.simulate_counts(90, 24, n_cell_types=3, median_library=60, seed=1)
    names = {"type_0": HOSTILE}
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names).astype(object)
    adata.var_names = [f"{HOSTILE}{g}" for g in range(24)]
    return adata


def trained(model, max_epochs=1, **kwargs):
    model.train(max_epochs=max_epochs, seed=0, verbose=0, **kwargs)
    return model


def reported(model, path, headings):
    """Write the report, check that it is whole, and give what is said of the model."""
    found = model_report(model, path / "r.html")
    text = (path / "r.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text)[1 : 1 + len(headings)] == headings
    assert '<b>&"' not in text
    return found, text


class TestLabels:
    @pytest.fixture
    def model(self, adata):
        adata.obs["known"] = adata.obs["cell_type"].where(np.arange(90) % 3 > 0, "?")
        SCANVI.setup_anndata(adata, "known", "?", batch_key="batch")
        return trained(SCANVI(adata, n_latent=3), train_size=0.5)

    def test_held_out_cells(self, model, adata, tmp_path):
        found, text = reported(model, tmp_path, ["Predicted labels", "Calibration", "Latent space"])
        detail = found.detail
        rows = [i for i in model.validation_indices if adata.obs["known"].iloc[i] != "?"]
        assert detail.held_out
        assert detail.confusion_cc.sum() == len(rows)
        predicted, true = model.predict(indices=rows), adata.obs["known"].iloc[rows].to_numpy()
        table = pd.crosstab(true, predicted).reindex(index=model.classes, columns=model.classes, fill_value=0)
        np.testing.assert_array_equal(detail.confusion_cc, table)
        shown = re.findall('<th scope="col">(.*?)</th>', detail.sections()[0].body)
        assert [html.unescape(name) for name in shown] == ["", *sorted(map(str, model.classes))]
        assert detail.figures["label accuracy, cells held out"] == pytest.approx(np.mean(true == predicted))
        assert "not labelled" in text

    def test_cells_without_label_do_not_count_in_metrics(self, model, adata):
        found = celbo.report.summary.summarise(model)
        z_nk, is_known = model.get_latent_representation(), (adata.obs["known"] != "?").to_numpy()
        names = adata.obs["known"].to_numpy(str)[is_known]
        expected = celbo.report.summary.latent_metrics(z_nk[is_known], names, None)
        assert {name: found.metrics[name] for name in expected} == expected

    def test_training_cells_where_none_are_held_out(self, model):
        model.validation_indices = None
        detail = LabelDetail.of(model, 0)
        assert (detail.held_out, detail.confusion_cc.sum()) == (False, 60)
        assert "none were held out" in detail.sections()[0].text

    def test_no_known_label(self, model, adata):
        adata.obs["known"] = "?"
        detail = LabelDetail.of(model, 0)
        assert (dict(detail.figures), detail.sections()) == ({}, [])


def test_zero_inflation(adata, tmp_path):
    AUTOZI.setup_anndata(adata, batch_key="batch")
    model = trained(AUTOZI(adata, n_latent=3, zero_inflation="gene-batch"))
    found, _ = reported(model, tmp_path, ["Zero inflation", "Zero-inflated genes", "Latent space"])
    genes = found.detail.genes
    posterior = model.get_alphas_betas()
    expected = beta.cdf(0.5, posterior["alpha_posterior"], posterior["beta_posterior"]).max(1)
    np.testing.assert_allclose(genes["zero_inflated"].loc[adata.var_names], expected)
    np.testing.assert_allclose(genes["mean_count"].loc[adata.var_names], adata.X.toarray().mean(0), rtol=1e-6)
    np.testing.assert_allclose(genes["zeros"].loc[adata.var_names], (adata.X.toarray() == 0).mean(0))
    assert (found.detail.ranked["mean_count"] >= 1).all() or (genes["mean_count"] < 1).all()


def test_topics(adata, tmp_path):
    AmortizedLDA.setup_anndata(adata)
    model = trained(AmortizedLDA(adata, n_topics=3), max_epochs=30)
    found, text = reported(model, tmp_path, ["Topics", "Latent space", "Training"])
    detail = found.detail
    assert detail.share_k.sum() == pytest.approx(1, rel=1e-4)
    top = detail.top_genes(0)
    assert list(top.index) == list(detail.feature_gk["topic_0"].sort_values(ascending=False).index[:10])
    assert found.metrics == {}
    assert len(found.kl_k) == 0
    assert f"{detail.perplexity:.3f}" in text
    assert dict(dataclasses.replace(detail, perplexity=np.inf).figures) == {}


def test_markers(adata, tmp_path):
    is_marker_gc = adata.varm["is_marker"]
    alone = np.flatnonzero(is_marker_gc.sum(1) == 1)
    adata.obs["s"] = np.asarray(adata.X.sum(1)).ravel() / adata.X.sum(1).mean()
    marked = adata[:, alone].copy()
    markers = pd.DataFrame(is_marker_gc[alone].astype(float), marked.var_names, [HOSTILE, "b", "c"])
    CellAssign.setup_anndata(marked, size_factor_key="s")
    model = trained(CellAssign(marked, markers))
    found, text = reported(model, tmp_path, ["Cell types", "Markers", "Training"])
    detail, code_n = found.detail, model.predict().to_numpy().argmax(1)
    scaled_ng = np.log1p(marked.X.toarray() / marked.obs["s"].to_numpy()[:, None])
    for c in range(3):
        expected = scaled_ng[code_n == c].mean(0) if (code_n == c).any() else np.zeros(len(alone))
        np.testing.assert_allclose(detail.expression_gc[:, c], expected, rtol=1e-5)
    assert text.count(" •") == len(alone)
    assert found.fit is None


def test_doublets(adata, tmp_path):
    SCVI.setup_anndata(adata)
    model = trained(SOLO.from_scvi_model(trained(SCVI(adata, n_latent=3))))
    found, text = reported(model, tmp_path, ["Doublet scores"])
    detail = found.detail
    np.testing.assert_array_equal(detail.score_n, model.predict()["doublet"])
    assert (len(detail.score_n), len(detail.simulated_m)) == (90, 180)
    assert detail.n_doublets == (model.predict(soft=False) == "doublet").sum()
    assert "270 cells and simulated doublets, 4 features" in text
    assert "all are counts" not in text


class TestProportions:
    @pytest.fixture
    def spots(self, adata):
        spots = celbo.data.simulate_spots(adata, "cell_type", 30, seed=0)
        spots.obsm["spatial"] = np.random.default_rng(0).uniform(size=(30, 2))
        return spots

    def test_stereoscope(self, adata, spots, tmp_path):
        RNAStereoscope.setup_anndata(adata, labels_key="cell_type")
        cells = trained(RNAStereoscope(adata))
        reported(cells, tmp_path, ["Training"])
        SpatialStereoscope.setup_anndata(spots)
        model = trained(SpatialStereoscope.from_rna_model(spots, cells))
        found, text = reported(model, tmp_path, ["Cell types of the spots", "Maps", "Training"])
        pd.testing.assert_frame_equal(found.detail.share_sc, model.get_proportions())
        assert "30 spots, 24 genes" in text
        assert f"{found.detail.share_sc['type_1'].mean():.1%}" in text

    def test_destvi(self, adata, spots, tmp_path):
        CondSCVI.setup_anndata(adata, labels_key="cell_type")
        cells = trained(CondSCVI(adata, n_hidden=8))
        reported(cells, tmp_path, ["Latent space"])
        DestVI.setup_anndata(spots)
        model = trained(DestVI.from_rna_model(spots, cells))
        found, _ = reported(model, tmp_path, ["Cell types of the spots", "Maps", "Training"])
        assert found.detail.share_sc.shape == (30, 3)

    def test_without_places_there_are_no_maps(self):
        detail = ProportionDetail(pd.DataFrame({"a": [0.2, 0.4], "b": [0.8, 0.6]}), None)
        (section,) = detail.sections()
        assert section.body.index(">b<") < section.body.index(">a<")
        assert detail.figures == {"mean share of a spot's first type": pytest.approx(0.7)}


class TestRows:
    def test_a_class_derived_from_one_of_the_table(self):
        class Mine(SCANVI):
            pass

        assert row_of(object.__new__(Mine)) == ROWS[SCANVI]

    def test_others_are_taken_for_autoencoders(self):
        assert row_of(object.__new__(SCVI)) == Row()

    def test_what_verbs_and_modules_tell(self):
        assert row_of(object.__new__(CellAssign)).latents is None
        assert not row_of(object.__new__(MRVI)).draws_counts  # TorchMRVAE has no sample()
        assert not row_of(object.__new__(CYTOVI)).draws_counts  # it draws intensities


class TestPictures:
    def test_odd_number_of_panels(self):
        panels = (*figures.CLASSIFIER_CURVES, ("Third", ("a", "b")))
        figure = figures.training_curves(pd.DataFrame({"train_accuracy": [0.1, 0.2], "a": [1.0, 2.0]}), panels)
        assert [len(ax.get_lines()[0].get_ydata()) for ax in figure.axes] == [0, 2, 2]

    def test_genes_without_counts_are_left_out(self):
        figure = figures.zero_inflation(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.1, 0.9]))
        assert figure.axes[0].collections[0].get_offsets().tolist() == [[1.0, 0.1], [2.0, 0.9]]

    def test_shares_of_each_kind(self):
        figure = figures.score_histogram(np.array([0.01, 0.99]), np.array([0.99] * 5))
        tops = [patch.get_data().values[-1] for patch in figure.axes[0].patches]
        assert tops == [0.5, 1.0]


def test_heat_table():
    text = heat_table(["", HOSTILE], [(HOSTILE, [0.0], [HOSTILE]), ("b", [1.0], ["x"])])
    assert '<b>&"' not in text
    assert "rgba(36,99,168,1.00);color:#fff" in text
    assert "rgba(36,99,168,0.00);color:inherit" in text
