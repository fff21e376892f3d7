"""Models of two data sets: the input, and a --reference in a file of its own; what goes wrong is one line."""

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from celbo.cli import app
from celbo.data import simulate_counts
from celbo.external import DIAGVI, GIMVI, Tangram

N, M, G, SEEN = 60, 50, 40, 25
QUICK = ["--max-epochs", "2", "--seed", "0", "-q"]
RUNS = {
    "gimvi": ["--batch-key", "batch"],
    "tangram": ["--reference-labels", "cell_type"],
    "diagvi": ["--reference-labels", "cell_type", "--batch-key", "batch"],
}
ALWAYS = {"history.csv", "model", "report.html", "run.json"}
MORE = {
    "gimvi": {"embedding.h5ad", "imputed.h5ad", "reference.h5ad"},
    "tangram": {"imputed.h5ad", "mapping.h5ad"},
    "diagvi": {"embedding.h5ad", "predictions.csv", "reference.h5ad"},
}

pytestmark = pytest.mark.filterwarnings("ignore:var_names are not unique")  # a gene of both tables of a MuData


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tissue with one gene that the reference lacks, and cells of the same names with more genes."""
    pytest.importorskip("mudata")
    folder = tmp_path_factory.mktemp("references")
    tissue, cells = (simulate_counts(n, G, n_cell_types=3, seed=seed) for n, seed in ((N, 1), (M, 2)))
    tissue = tissue[:, : SEEN + 1].copy()
    tissue.var_names = [*tissue.var_names[:SEEN], "of_tissue"]
    tissue.obsm["spatial"] = np.random.default_rng(0).normal(size=(N, 2))
    tissue.write_h5ad(folder / "tissue.h5ad")
    cells.write_h5ad(folder / "cells.h5ad")
    return SimpleNamespace(folder=folder, tissue=folder / "tissue.h5ad", cells=folder / "cells.h5ad")


@pytest.fixture(scope="module", autouse=True)
def _without_pictures():
    """The reports' pictures are drawn in tests/report, not here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
        yield


@pytest.fixture(scope="module")
def runs(place):
    """Model -> the folder of a short run of it."""

    def train(model):
        line = ["train", place.tissue, "--model", model, "--reference", place.cells, *RUNS[model], *QUICK]
        done = CliRunner().invoke(app, [*map(str, line), "-o", str(place.folder / model)])
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        return place.folder / model

    return {model: train(model) for model in RUNS}


def shared(place):
    """Both data sets, the tissue with the genes that the reference has too."""
    tissue, cells = anndata.read_h5ad(place.tissue), anndata.read_h5ad(place.cells)
    return tissue[:, :SEEN].copy(), cells


@pytest.mark.parametrize("model", RUNS)
def test_folder_and_info(runs, celbo, model):
    assert {path.name for path in runs[model].iterdir()} == ALWAYS | MORE[model]
    settings = json.loads((runs[model] / "run.json").read_text())["settings"]
    assert (settings["model"], settings["reference"].endswith("cells.h5ad")) == (model, True)
    said = celbo("info", runs[model]).stdout
    assert f"{M} cells" in said
    assert "array(" not in said


def test_genes_imputed_by_gimvi_are_those_of_python(runs, place):
    tissue, cells = shared(place)
    for adata in (cells, tissue):
        GIMVI.setup_anndata(adata, batch_key="batch")
    model = GIMVI(cells, tissue)
    model.train(max_epochs=2, seed=0, verbose=0)
    latents, values = model.get_latent_representation(), model.get_imputed_values()
    found = anndata.read_h5ad(runs["gimvi"] / "imputed.h5ad")
    np.testing.assert_allclose(found.X, values[1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.obsm["X_celbo"], latents[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.obsm["spatial"], tissue.obsm["spatial"])
    assert list(found.var_names) == list(cells.var_names)
    assert list(found.obs["cell_type"]) == list(tissue.obs["cell_type"])
    of_cells = anndata.read_h5ad(runs["gimvi"] / "reference.h5ad")
    np.testing.assert_allclose(of_cells.obsm["X_celbo"], latents[0], rtol=1e-3, atol=1e-4)


def test_the_map_of_tangram_is_that_of_python(runs, place):
    mudata = pytest.importorskip("mudata")
    tissue, cells = shared(place)
    few = cells[:, :SEEN].copy()
    tissue.obs_names = [f"spot_{n}" for n in range(N)]
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"sc": few, "sp": tissue})
    Tangram.setup_mudata(mdata, modalities={"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"})
    model = Tangram(mdata)
    model.train(max_epochs=2, seed=0, verbose=0)
    wanted = model.get_mapper_matrix()
    found = anndata.read_h5ad(runs["tangram"] / "mapping.h5ad")
    np.testing.assert_allclose(found.X, wanted, rtol=1e-3, atol=1e-6)
    imputed = anndata.read_h5ad(runs["tangram"] / "imputed.h5ad")
    np.testing.assert_allclose(imputed.X, wanted.T @ cells.X.toarray(), rtol=1e-3, atol=1e-4)
    labels = imputed.obsm["celbo_labels"]
    assert list(labels.columns) == sorted(set(cells.obs["cell_type"]))
    np.testing.assert_allclose(labels.sum(axis=1), wanted.sum(0), rtol=1e-3)
    assert list(found.obs_names) == list(cells.obs_names)
    assert list(found.var_names) == list(imputed.obs_names) == list(anndata.read_h5ad(place.tissue).obs_names)


def test_latents_and_labels_of_diagvi_are_those_of_python(runs, place):
    tissue, cells = anndata.read_h5ad(place.tissue), anndata.read_h5ad(place.cells)
    DIAGVI.setup_anndata(tissue, batch_key="batch")
    DIAGVI.setup_anndata(cells, batch_key="batch", labels_key="cell_type")
    model = DIAGVI({"input": tissue, "reference": cells})
    model.train(max_epochs=2, seed=0, verbose=0)
    latents = model.get_latent_representation()
    for name, file in (("input", "embedding.h5ad"), ("reference", "reference.h5ad")):
        found = anndata.read_h5ad(runs["diagvi"] / file).obsm["X_celbo"]
        np.testing.assert_allclose(found, latents[name], rtol=1e-3, atol=1e-4)
    said = model.predict_celltype("reference")
    table = pd.read_csv(runs["diagvi"] / "predictions.csv", index_col="cell")
    np.testing.assert_allclose(table.iloc[:, 2:], said["probabilities"], rtol=1e-3, atol=1e-4)
    assert list(table["predicted"]) == list(said["predictions"])


@pytest.mark.parametrize("model", ["gimvi", "diagvi"])
def test_cells_asked_about_lie_where_the_run_put_them(runs, place, celbo, tmp_path, model):
    tissue = anndata.read_h5ad(place.tissue)[20:, ::-1].copy()
    tissue.write_h5ad(tmp_path / "some.h5ad")
    done = celbo("embed", runs[model], tmp_path / "some.h5ad", "-o", tmp_path / "e.h5ad")
    assert done.exit_code == 0, done.stderr
    found, wanted = (anndata.read_h5ad(p) for p in (tmp_path / "e.h5ad", runs[model] / "embedding.h5ad"))
    np.testing.assert_allclose(found.obsm["X_celbo"], wanted.obsm["X_celbo"][20:], rtol=1e-3, atol=1e-4)
    if model == "diagvi":
        assert celbo("predict", runs[model], tmp_path / "some.h5ad", "-o", tmp_path / "p.csv").exit_code == 0
        labels = [pd.read_csv(p, index_col="cell") for p in (tmp_path / "p.csv", runs[model] / "predictions.csv")]
        pd.testing.assert_frame_equal(labels[0], labels[1][20:], rtol=1e-3, atol=1e-4)


def test_counts_of_a_layer_and_of_raw(place, celbo, tmp_path):
    """Those of the input; the reference has its counts in X."""
    tissue = anndata.read_h5ad(place.tissue)
    logged = tissue[:, 5:].copy()
    logged.raw = tissue
    logged.layers["counts"] = logged.X
    logged.X = np.log1p(logged.X.toarray())
    logged.write_h5ad(tmp_path / "logged.h5ad")
    line = ["--model", "gimvi", "--reference", place.cells, *QUICK]
    for name, more in {"layer": ["--layer", "counts"], "raw": ["--raw"]}.items():
        done = celbo("train", tmp_path / "logged.h5ad", *line, *more, "-o", tmp_path / name)
        assert (done.exit_code, done.stderr) == (0, ""), name
        done = celbo("embed", tmp_path / name, tmp_path / "logged.h5ad", "-o", tmp_path / f"{name}.csv")
        assert done.exit_code == 0, done.stderr
        found = pd.read_csv(tmp_path / f"{name}.csv", index_col="cell")
        wanted = anndata.read_h5ad(tmp_path / name / "embedding.h5ad").obsm["X_celbo"]
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_is_left_out_is_said(place, celbo, tmp_path):
    cells = anndata.read_h5ad(place.cells)
    del cells.obs["batch"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    line = ["--model", "gimvi", "--reference", tmp_path / "cells.h5ad", "--batch-key", "batch", "--max-epochs", 1]
    done = celbo("train", place.tissue, *line, "-o", tmp_path / "run")
    assert done.exit_code == 0
    assert f"lacks 1 of the {SEEN + 1} genes of the input: 'of_tissue'. They are left out." in done.stderr
    assert "has no column 'batch': its cells are taken as one batch." in done.stderr


def test_features_that_go_together_by_a_table(place, celbo, tmp_path):
    cells = anndata.read_h5ad(place.cells)
    cells.var_names = [f"protein_{g}" for g in range(G)]
    cells.write_h5ad(tmp_path / "proteins.h5ad")
    line = ["--model", "diagvi", "--reference", tmp_path / "proteins.h5ad", *QUICK]
    done = celbo("train", place.tissue, *line, "-o", tmp_path / "run")
    assert_one_line(done, "--pairs says which go together")
    (tmp_path / "pairs.csv").write_text("gene,protein\ngene_0,protein_0\ngene_1,protein_1\ngene_1,other\n")
    done = celbo("train", place.tissue, *line, "--pairs", tmp_path / "pairs.csv", "-o", tmp_path / "run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert not (tmp_path / "run" / "predictions.csv").exists()
    done = celbo("predict", tmp_path / "run", place.tissue, "-o", tmp_path / "p.csv")
    assert_one_line(done, "was trained without --reference-labels: no labels.")
    (tmp_path / "other.csv").write_text("gene,protein\nprotein_0,gene_0\n")
    done = celbo("train", place.tissue, *line, "--pairs", tmp_path / "other.csv", "-o", tmp_path / "other")
    assert_one_line(done, "no line has a feature of the input")


WRONG = {
    "no reference": ("gimvi", None, [], "gimvi needs --reference: a file with dissociated cells of the same tissue."),
    "no file": ("tangram", "nowhere.h5ad", [], "nowhere.h5ad"),
    "no counts": ("gimvi", "scaled.h5ad", [], "X of scaled.h5ad"),
    "no gene": ("tangram", "others.h5ad", [], "has none of the 26 genes of the input"),
    "no label": ("tangram", "cells.h5ad", ["--reference-labels", "cell_typ"], "Did you mean 'cell_type'?"),
    "gene twice": ("gimvi", "twice.h5ad", [], "'gene_0' more than once"),
    "layer of tangram": ("tangram", "cells.h5ad", ["--layer", "x"], "tangram takes no --layer: write an input whose X"),
    "no pairs": ("diagvi", "cells.h5ad", ["--pairs", "pairs.csv"], "--pairs pairs.csv: there is no such file."),
    "pairs of one": ("diagvi", "cells.h5ad", ["--pairs", "one.csv"], "two names a line"),
    "of scvi": ("scvi", "cells.h5ad", [], "scvi takes no --reference"),
    "from disk": ("gimvi", "cells.h5ad", ["--data", "stream"], "gimvi needs its data in memory"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_settings(place, celbo, tmp_path, monkeypatch, fault):
    model, reference, more, said = WRONG[fault]
    monkeypatch.chdir(tmp_path)
    cells = anndata.read_h5ad(place.cells)
    others, twice = cells.copy(), cells.copy()
    others.var_names = [f"ENSG{g}" for g in range(G)]
    twice.var_names = ["gene_0", *cells.var_names[:-1]]
    scaled = anndata.AnnData(cells.X.toarray() - 1, obs=cells.obs, var=cells.var)
    if reference is not None and reference != "nowhere.h5ad":
        {"cells": cells, "others": others, "twice": twice, "scaled": scaled}[reference[:-5]].write_h5ad(reference)
    (tmp_path / "one.csv").write_text("gene\ngene_0\n")
    given = [] if reference is None else ["--reference", reference]
    done = celbo("train", place.tissue, "--model", model, *given, *more, *QUICK, "-o", tmp_path / "run")
    assert_one_line(done, said)
    assert not (tmp_path / "run").exists()


def test_a_reference_in_the_folder_that_is_replaced_is_kept(runs, place, celbo, tmp_path):
    """``--overwrite`` removes what a run wrote, and the reference may be such a file."""
    line = ["--model", "gimvi", "--reference", runs["diagvi"] / "reference.h5ad", *QUICK, "--overwrite"]
    assert_one_line(celbo("train", place.tissue, *line, "-o", runs["diagvi"]), "which would be replaced")


def assert_one_line(done, said):
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
