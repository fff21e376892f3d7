"""``celbo train --model`` and ``celbo predict``: a row of the table of models each."""

import json
import re
from types import SimpleNamespace
from typing import get_args

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from celbo.cli import app, commands
from celbo.cli.columns import with_values_of
from celbo.cli.models import MODELS
from celbo.cli.options import TrainOptions
from celbo.external import SOLO, CellAssign
from celbo.model import AUTOZI, SCANVI, SCVI, AmortizedLDA

ALWAYS = {"history.csv", "model", "report.html", "run.json"}
PREDICTING = ("scanvi", "cellassign", "solo")

RUNS = {
    "scanvi": (
        ["--labels-key", "known", "--unlabeled-category", "Unknown", "--batch-key", "batch"],
        {"embedding.h5ad", "predictions.csv"},
        ["Predicted labels", "Calibration"],
    ),
    "autozi": (["--batch-key", "batch"], {"embedding.h5ad", "genes.csv"}, ["Zero-inflated genes"]),
    "lda": (["--n-topics", "3"], {"embedding.h5ad", "genes.csv"}, ["Topics"]),
    "drvi": (["--batch-key", "batch", "--n-latent", "4"], {"embedding.h5ad"}, []),
    "decipher": ([], {"embedding.h5ad"}, []),
    "cellassign": (["--markers", "markers.csv"], {"predictions.csv"}, ["Cell types", "Markers"]),
    "scar": (["--batch-key", "batch"], {"embedding.h5ad"}, []),
    "sysvi": (["--batch-key", "batch"], {"embedding.h5ad"}, []),
    "solo": (
        ["--batch-key", "batch", "--restrict-to-batch", "batch_1"],
        {"embedding.h5ad", "predictions.csv"},
        ["Doublet scores"],
    ),
}
"""Model -> what it is trained with, what its folder holds beside the usual, headings of its report."""


@pytest.fixture(scope="module")
def place(small, tmp_path_factory):
    """A folder with ``cells.h5ad`` (labels of some cells in ``known``) and ``markers.csv``."""
    folder = tmp_path_factory.mktemp("models")
    adata = small.adata.copy()
    x_ng = adata.X.tolil()
    x_ng[np.asarray(adata.X.sum(1)).ravel() == 0, 0] = 1  # none without counts
    adata.X = x_ng.tocsr()
    types = adata.obs["cell_type"].astype(str)
    adata.obs["known"] = types.where(np.arange(adata.n_obs) % 3 > 0, "Unknown")
    adata.obs["run"] = np.arange(adata.n_obs) % 3
    adata.write_h5ad(folder / "cells.h5ad")
    is_marker_gc = small.adata.varm["is_marker"]
    alone = is_marker_gc.sum(1) == 1
    markers = pd.DataFrame(is_marker_gc[alone].astype(int), adata.var_names[alone], ["a", "b/c", "d"])
    markers.iloc[::-1].to_csv(folder / "markers.csv")
    return SimpleNamespace(folder=folder, cells=folder / "cells.h5ad", adata=adata, markers=markers)


@pytest.fixture(scope="module")
def runs(place):
    """Model -> the folder of a short run of it; the reports' pictures are drawn in tests/report, not here."""

    def train(model):
        args = [str(place.folder / arg) if arg == "markers.csv" else arg for arg in RUNS[model][0]]
        output = place.folder / model
        line = ["train", str(place.cells), "--model", model, *args, "--max-epochs", "2", "--seed", "0", "-q"]
        done = CliRunner().invoke(app, [*line, "-o", str(output)])
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        return output

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
        return {model: train(model) for model in RUNS}


@pytest.mark.parametrize("model", RUNS)
def test_folder_and_report(runs, celbo, model):
    _, more, headings = RUNS[model]
    assert {path.name for path in runs[model].iterdir()} == ALWAYS | more
    text = (runs[model] / "report.html").read_text(encoding="utf-8")
    assert [title for title in headings if f"<h2>{title}</h2>" not in text] == []
    assert "<script" not in text
    record = json.loads((runs[model] / "run.json").read_text())
    assert record["settings"]["model"] == model
    assert record["seed"] == 0
    assert set(MODELS[model].settings) <= set(record["settings"])
    assert MODELS[model].cls.__name__ in celbo("info", runs[model]).stdout


@pytest.mark.parametrize("model", PREDICTING)
def test_predictions_are_those_of_the_run_for_genes_in_another_order(runs, place, celbo, tmp_path, model, rng):
    adata = place.adata[rng.permutation(150)[:90], rng.permutation(40)].copy()
    del adata.obs["known"]
    adata.write_h5ad(tmp_path / "query.h5ad")
    done = celbo("predict", runs[model], tmp_path / "query.h5ad", "-o", tmp_path / "p.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "p.csv", index_col="cell")
    expected = pd.read_csv(runs[model] / "predictions.csv", index_col="cell")
    wanted = [name for name in adata.obs_names if name in expected.index]
    assert list(found.index) == wanted
    pd.testing.assert_frame_equal(found, expected.loc[wanted], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.iloc[:, 2:].sum(axis=1), 1, rtol=1e-5)
    assert list(found["predicted"]) == list(found.iloc[:, 2:].idxmax(axis=1))


def test_labels_are_those_of_the_model(runs, place):
    adata = anndata.read_h5ad(place.cells)
    model = SCANVI.load(str(runs["scanvi"] / "model"), adata=False)
    found = pd.read_csv(runs["scanvi"] / "predictions.csv", index_col="cell")
    assert list(found["predicted"]) == list(model.predict(adata))
    assert "Unknown" not in found.columns
    assert len(found) == 150


def test_a_label_by_number_is_found_as_such(place):
    options = TrainOptions(model="scanvi", labels_key="run", unlabeled_category="1")
    found = with_values_of(place.adata, options).unlabeled_category
    assert (found, type(found)) == (1, int)


def test_an_unlabeled_category_that_no_cell_has(place):
    options = TrainOptions(model="scanvi", labels_key="known", unlabeled_category="none")
    assert with_values_of(place.adata, options).unlabeled_category == "none"


def test_size_factors_are_on_the_scale_of_the_training_cells(runs, place, celbo, tmp_path):
    total_n = np.asarray(place.adata.X.sum(1)).ravel()
    model = CellAssign.load(str(runs["cellassign"] / "model"), adata=False)
    assert model.mean_total_ == pytest.approx(total_n.mean())
    deep = place.adata[np.argsort(-total_n)[:20]].copy()
    deep.write_h5ad(tmp_path / "deep.h5ad")
    assert celbo("predict", runs["cellassign"], tmp_path / "deep.h5ad", "-o", tmp_path / "p.csv", "-q").exit_code == 0
    marked = deep[:, place.markers.index].copy()
    marked.obs["celbo_size_factor"] = total_n[np.argsort(-total_n)[:20]] / total_n.mean()
    found = pd.read_csv(tmp_path / "p.csv", index_col="cell")
    np.testing.assert_allclose(found[["a", "b/c", "d"]], model.predict(marked), rtol=1e-4, atol=1e-6)


def test_doublets_as_anndata_of_one_batch(runs, place, celbo, tmp_path):
    done = celbo("predict", runs["solo"], place.cells, "-o", tmp_path / "p.h5ad")
    assert done.exit_code == 0, done.stderr
    is_asked = (place.adata.obs["batch"] == "batch_1").to_numpy()
    assert f"left out: {(~is_asked).sum()} cells of other batches" in done.stdout
    found = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert list(found.uns["celbo_classes"]) == ["doublet", "singlet"]
    np.testing.assert_array_equal(found.obs["celbo_predicted"].notna(), is_asked)
    np.testing.assert_array_equal(np.isfinite(found.obsm["celbo_probabilities"]).all(1), is_asked)
    expected = pd.read_csv(runs["solo"] / "predictions.csv", index_col="cell")
    np.testing.assert_allclose(
        found.obsm["celbo_probabilities"][is_asked, 0], expected["doublet"], rtol=1e-4, atol=1e-5
    )
    solo = SOLO.load(str(runs["solo"] / "model"), adata=False)
    assert solo.restrict_to_batch_ == "batch_1"


def test_types_as_anndata_whatever_their_names(runs, place, celbo, tmp_path):
    assert celbo("predict", runs["cellassign"], place.cells, "-o", tmp_path / "p.h5ad", "-q").exit_code == 0
    found = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert list(found.uns["celbo_classes"]) == ["a", "b/c", "d"]
    assert set(place.adata.obs.columns) < set(found.obs.columns)
    named = found.uns["celbo_classes"][found.obsm["celbo_probabilities"].argmax(1)]
    assert list(found.obs["celbo_predicted"]) == list(named)
    np.testing.assert_allclose(found.obs["celbo_probability"], found.obsm["celbo_probabilities"].max(1))


class TestEmbed:
    @pytest.mark.parametrize("model", ["lda", "solo"])
    def test_equals_that_of_the_run(self, runs, place, celbo, tmp_path, model):
        done = celbo("embed", runs[model], place.cells, "-o", tmp_path / "e.h5ad")
        assert done.exit_code == 0, done.stderr
        found, expected = (anndata.read_h5ad(p) for p in (tmp_path / "e.h5ad", runs[model] / "embedding.h5ad"))
        np.testing.assert_allclose(found.obsm["X_celbo"], expected.obsm["X_celbo"], rtol=1e-4, atol=1e-5)

    def test_of_the_scvi_that_doublets_are_found_with(self, runs, place):
        scvi = SCVI.load(str(runs["solo"] / "model" / "scvi"), adata=False)
        latent_nk = scvi.get_latent_representation(anndata.read_h5ad(place.cells))
        found = anndata.read_h5ad(runs["solo"] / "embedding.h5ad").obsm["X_celbo"]
        np.testing.assert_allclose(found, latent_nk, rtol=1e-4, atol=1e-5)


class TestGenes:
    def test_topics(self, runs):
        genes = pd.read_csv(runs["lda"] / "genes.csv", index_col="gene")
        assert list(genes.columns) == ["topic_0", "topic_1", "topic_2"]
        np.testing.assert_allclose(genes.sum(), 1, rtol=1e-5)
        model = AmortizedLDA.load(str(runs["lda"] / "model"), adata=False)
        assert list(genes.index) == list(model.get_var_names())

    def test_zero_inflation(self, runs):
        genes = pd.read_csv(runs["autozi"] / "genes.csv", index_col="gene")
        assert genes["zero_inflated"].is_monotonic_decreasing
        assert genes["zero_inflated"].between(0, 1).all()
        assert sorted(genes.index) == sorted(AUTOZI.load(str(runs["autozi"] / "model"), adata=False).get_var_names())


MARKERS = {
    "not_there": None,
    "empty": "",
    "only_genes": "gene\ngene_0\n",
    "twice": "gene,a\ngene_0,1\ngene_0,1\n",
    "other": "gene,a\ngene_0,2\n",
    "words": "gene,a,b\ngene_0,1,0\ngene_1,yes,0\n",
    "absent": "gene,a,b\ngene_0,1,0\ngene_99,0,1\n",
}

WRONG = {
    "scanvi without labels": (["--model", "scanvi"], ["scanvi needs --labels-key"]),
    "unknown label": (
        ["--model", "scanvi", "--labels-key", "known", "--unlabeled-category", "unknwon"],
        ["--unlabeled-category", "Did you mean 'Unknown'?"],
    ),
    "labels called Unknown": (
        ["--model", "scanvi", "--labels-key", "known"],
        ["give --unlabeled-category Unknown if these cells have no label, --unlabeled-category none if they have one."],
    ),
    "cellassign without markers": (["--model", "cellassign"], ["cellassign needs --markers", "genes by cell types"]),
    "option of another model": (["--n-topics", "3"], ["scvi takes no --n-topics", "--model lda"]),
    "lda with latents": (["--model", "lda", "--n-latent", "3"], ["lda takes no --n-latent", "--model scvi"]),
    "lda with batches": (["--model", "lda", "--batch-key", "batch"], ["lda takes no --batch-key"]),
    "batch without column": (["--model", "solo", "--restrict-to-batch", "x"], ["needs --batch-key"]),
    "unknown batch": (
        ["--model", "solo", "--batch-key", "batch", "--restrict-to-batch", "batch1"],
        ["--restrict-to-batch", "Did you mean 'batch_1'?"],
    ),
    "size factors": (["--size-factor-key", "dept"], ["Did you mean 'depth'?"]),
    "model": (["--model", "cellasign"], ["--model", "Did you mean 'cellassign'?"]),
    "of Python alone": (["--model", "destvi"], ["trained in Python", "celbo.model.DestVI.from_rna_model"]),
    "in capitals": (["--model", "Stereoscope"], ["trained in Python", "celbo.external.SpatialStereoscope"]),
    "not_there": (["--markers", "not_there.csv"], ["not_there.csv", "no such file"]),
    "empty": (["--markers", "empty.csv"], ["empty.csv", "no table"]),
    "only_genes": (["--markers", "only_genes.csv"], ["a column for each type"]),
    "twice": (["--markers", "twice.csv"], ["'gene_0' twice"]),
    "other": (["--markers", "other.csv"], ["has 2 for gene 'gene_0'", "else 0"]),
    "words": (["--markers", "words.csv"], ["has yes for gene 'gene_1' and type 'a'"]),
    "absent": (["--markers", "absent.csv"], ["No gene of the input is called 'gene_99'. Did you mean 'gene_9'?"]),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_settings(fault, place, celbo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if MARKERS.get(fault) is not None:
        (tmp_path / f"{fault}.csv").write_text(MARKERS[fault])
    args, said = WRONG[fault]
    args = ["--model", "cellassign", *args] if fault in MARKERS else args
    assert_one_line(celbo("train", place.cells, *args, "-o", tmp_path / "run"), said)
    assert not (tmp_path / "run").exists()


def assert_one_line(done, said):
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("celbo: ")
    assert done.stderr.count("\n") == 1
    assert [text for text in said if text not in done.stderr] == []


class TestWrongQuestions:
    def test_what_a_model_does_not_answer(self, runs, trained, place, celbo, tmp_path):
        done = celbo("predict", trained.folder, place.cells, "-o", tmp_path / "p.csv")
        assert_one_line(done, ["of class SCVI", "no predictions", "SCANVI, CellAssign, SOLO"])
        done = celbo("embed", runs["cellassign"], place.cells, "-o", tmp_path / "e.h5ad")
        assert_one_line(done, ["of class CellAssign", "no latent space", "SCVI"])
        done = celbo("denoise", runs["lda"], place.cells, "-o", tmp_path / "d.h5ad")
        assert_one_line(done, ["of class AmortizedLDA", "no denoised expression", "SCVI"])
        assert list(tmp_path.iterdir()) == []

    def test_suffix(self, runs, place, celbo, tmp_path):
        done = celbo("predict", runs["scanvi"], place.cells, "-o", tmp_path / "p.txt")
        assert_one_line(done, ["'.txt'", ".csv, .tsv, .parquet, .h5ad"])

    def test_no_cell_of_the_batch(self, runs, place, celbo, tmp_path):
        place.adata[place.adata.obs["batch"] == "batch_0"].copy().write_h5ad(tmp_path / "other.h5ad")
        done = celbo("predict", runs["solo"], tmp_path / "other.h5ad", "-o", tmp_path / "p.csv")
        assert_one_line(done, ["doublets of batch 'batch_1'", "'batch_0'"])
        assert not (tmp_path / "p.csv").exists()

    def test_solo_without_its_scvi(self, runs, place, celbo, tmp_path):
        SOLO.load(str(runs["solo"] / "model"), adata=False).save(str(tmp_path / "solo"))
        done = celbo("predict", tmp_path / "solo", place.cells, "-o", tmp_path / "p.csv")
        assert_one_line(done, ["SOLO without its SCVI"])

    def test_cells_without_counts(self, runs, place, celbo, tmp_path):
        adata = place.adata.copy()
        x_ng = adata.X.tolil()
        x_ng[3] = 0
        adata.X = x_ng.tocsr()
        adata.write_h5ad(tmp_path / "empty.h5ad")
        done = celbo("predict", runs["cellassign"], tmp_path / "empty.h5ad", "-o", tmp_path / "p.csv")
        assert_one_line(done, ["Cells without counts: 1.", "leave them out"])


def test_every_setting_of_the_table_is_one():
    known = set(TrainOptions.__dataclass_fields__)
    for kind in MODELS.values():
        assert set(kind.settings) | set(kind.needs) <= known
        assert set(kind.needs) <= set(kind.settings)


def test_the_help_names_every_model():
    """It is written by hand: ``celbo train --help`` loads no model."""
    described = get_args(commands.Model)[1].help
    assert [name for name in MODELS if not re.search(rf"\b{name}\b", described)] == []
