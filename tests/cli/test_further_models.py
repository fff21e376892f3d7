"""Models of the command line beside those of plain counts: samples, background cells, markers, tissue, methylation."""

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from celbo.cli import app
from celbo.cli.models import MODELS
from celbo.data import simulate_counts, simulate_methylation
from celbo.external import CYTOVI, RESOLVI, SCBASSET, SCVIVA, VELOVI, ContrastiveVI
from celbo.external.scbasset import add_dna_sequence

N, G = 120, 60
METHYLATION = ("methylvi", "methylanvi")
RUNS = {
    "mrvi": ["--sample-key", "donor", "--batch-key", "batch"],
    "contrastivevi": ["--background-key", "arm", "--background-category", "1", "--batch-key", "batch"],
    "cytovi": ["--layer", "scaled", "--batch-key", "batch", "--sample-key", "donor"],
    "velovi": ["--spliced-layer", "Ms", "--unspliced-layer", "Mu"],
    "resolvi": ["--labels-key", "cell_type", "--batch-key", "batch"],
    "scviva": ["--labels-key", "cell_type", "--embedding-key", "X_scVI", "--sample-key", "donor"],
    "methylvi": ["--batch-key", "batch"],
    "methylanvi": ["--batch-key", "batch", "--labels-key", "cell_type", "--context", "mCG"],
}
FILES = {"embedding.h5ad", "history.csv", "model", "report.html", "run.json"}
MORE = {
    "velovi": {"genes.csv"},
    "methylanvi": {"predictions.csv"},
    "resolvi": {"predictions.csv"},
}
QUICK = ["--max-epochs", "2", "--seed", "0", "-q"]

pytestmark = pytest.mark.filterwarnings("ignore:Cannot join columns", "ignore:.*pull_on_update")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Cells with all that these models ask for, and a query of some of them with the genes the other way round."""
    mudata = pytest.importorskip("mudata")
    folder, rng = tmp_path_factory.mktemp("further"), np.random.default_rng(0)
    adata = simulate_counts(N, G, n_cell_types=3, seed=3)
    adata.obs["donor"] = np.where(np.arange(N) % 2, "a", "b")
    adata.obs["arm"] = np.arange(N) % 3
    counts = adata.X.toarray()
    adata.layers["scaled"] = np.log1p(counts) / 10
    adata.layers["Ms"] = np.log1p(counts)
    adata.layers["Mu"] = adata.layers["Ms"][::-1] / 2
    adata.obsm["spatial"], adata.obsm["X_scVI"] = rng.normal(size=(N, 2)), rng.normal(size=(N, 4))
    adata.write_h5ad(folder / "cells.h5ad")
    adata[:80, ::-1].copy().write_h5ad(folder / "query.h5ad")
    mdata = simulate_methylation(N, {"mCG": 40, "mCH": 30}, seed=0)
    with mudata.set_options(pull_on_update=False):
        mdata.write(folder / "cells.h5mu")
        mdata[:80].copy().write(folder / "query.h5mu")
    return SimpleNamespace(folder=folder, adata=adata)


def file_of(place, model, name):
    return place.folder / f"{name}.{'h5mu' if model in METHYLATION else 'h5ad'}"


@pytest.fixture(scope="module")
def runs(place):
    """Model -> the folder of a short run of it; the reports' pictures are drawn in tests/report, not here."""

    def train(model):
        line = ["train", file_of(place, model, "cells"), "--model", model, *RUNS[model], *QUICK]
        done = CliRunner().invoke(app, [*map(str, line), "-o", str(place.folder / model)])
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        return place.folder / model

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
        return {model: train(model) for model in RUNS}


@pytest.mark.parametrize("model", RUNS)
def test_folder_info_and_report(runs, place, celbo, tmp_path, model):
    assert {path.name for path in runs[model].iterdir()} == FILES | MORE.get(model, set())
    assert json.loads((runs[model] / "run.json").read_text())["settings"]["model"] == model
    assert MODELS[model].cls.__name__ in celbo("info", runs[model]).stdout
    done = celbo("report", runs[model], file_of(place, model, "query"), "-o", tmp_path / "r.json")
    assert done.exit_code == 0, done.stderr
    assert "Verdict: " in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())


@pytest.mark.parametrize("model", RUNS)
def test_embedding_is_that_of_the_run_for_genes_in_another_order(runs, place, celbo, tmp_path, model):
    done = celbo("embed", runs[model], file_of(place, model, "query"), "-o", tmp_path / "e.h5ad")
    assert done.exit_code == 0, done.stderr
    found, wanted = (anndata.read_h5ad(p) for p in (tmp_path / "e.h5ad", runs[model] / "embedding.h5ad"))
    assert list(found.obs_names) == list(wanted.obs_names[:80])
    np.testing.assert_allclose(found.obsm["X_celbo"], wanted.obsm["X_celbo"][:80], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["methylanvi", "resolvi"])
def test_predictions_are_those_of_the_run(runs, place, celbo, tmp_path, model):
    done = celbo("predict", runs[model], file_of(place, model, "query"), "-o", tmp_path / "p.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "p.csv", index_col="cell")
    assert len(found) == 80
    np.testing.assert_allclose(found.iloc[:, 2:].sum(axis=1), 1, rtol=1e-4)
    wanted = pd.read_csv(runs[model] / "predictions.csv", index_col="cell")[:80]
    assert list(found.columns) == list(wanted.columns)
    if model == "methylanvi":
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-3, atol=1e-4)


def latents(runs, model):
    return anndata.read_h5ad(runs[model] / "embedding.h5ad").obsm["X_celbo"]


class TestAsInPython:
    """What the command line trains is what these calls train."""

    def test_background_cells(self, runs, place):
        adata = place.adata.copy()
        ContrastiveVI.setup_anndata(adata, batch_key="batch")
        model = ContrastiveVI(adata)
        is_background = (adata.obs["arm"] == 1).to_numpy()
        model.train(np.flatnonzero(is_background), np.flatnonzero(~is_background), max_epochs=2, seed=0, verbose=0)
        wanted = model.get_latent_representation()
        np.testing.assert_allclose(latents(runs, "contrastivevi"), wanted, rtol=1e-3, atol=1e-4)

    def test_velocity(self, runs, place):
        adata = place.adata.copy()
        VELOVI.setup_anndata(adata, "Ms", "Mu")
        model = VELOVI(adata)
        model.train(max_epochs=2, seed=0, verbose=0)
        genes = pd.read_csv(runs["velovi"] / "genes.csv", index_col="gene")
        assert list(genes.index) == list(adata.var_names)
        for name, rates in model.get_rates().items():
            np.testing.assert_allclose(genes[name], rates, rtol=1e-3)

    def test_markers(self, runs, place):
        adata = place.adata.copy()
        CYTOVI.setup_anndata(adata, "scaled", batch_key="batch", sample_key="donor")
        model = CYTOVI(adata)
        model.train(max_epochs=2, seed=0, verbose=0)
        np.testing.assert_allclose(latents(runs, "cytovi"), model.get_latent_representation(), rtol=1e-3, atol=1e-4)

    def test_niches(self, runs, place):
        adata = place.adata.copy()
        SCVIVA.preprocessing_anndata(adata, sample_key="donor", labels_key="cell_type")
        SCVIVA.setup_anndata(adata, sample_key="donor", labels_key="cell_type")
        model = SCVIVA(adata)
        model.train(max_epochs=2, seed=0, verbose=0)
        np.testing.assert_allclose(latents(runs, "scviva"), model.get_latent_representation(), rtol=1e-3, atol=1e-4)

    def test_neighbours(self, runs, place):
        adata = place.adata.copy()
        of_tissue = {"prepare_data_kwargs": {"spatial_rep": "spatial"}, "labels_key": "cell_type"}
        RESOLVI.setup_anndata(adata, batch_key="batch", **of_tissue)
        model = RESOLVI(adata, semisupervised=True)
        model.train(max_epochs=2, seed=0, verbose=0)
        np.testing.assert_allclose(latents(runs, "resolvi"), model.get_latent_representation(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["contrastivevi", "cytovi", "resolvi"])
def test_groups_are_compared(runs, place, celbo, tmp_path, model):
    line = [runs[model], file_of(place, model, "query"), "--groupby", "cell_type", "--seed", 0]
    done = celbo("de", *line, "-o", tmp_path / "de.csv")
    assert done.exit_code == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "de.csv")) == 3 * G


@pytest.mark.parametrize("model", ["resolvi", "scviva"])
def test_denoised(runs, place, celbo, tmp_path, model):
    done = celbo("denoise", runs[model], file_of(place, model, "query"), "-o", tmp_path / "d.h5ad")
    assert done.exit_code == 0, done.stderr
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "d.h5ad").X.sum(1), 1, rtol=1e-3)


@pytest.mark.parametrize("model", [model for model in RUNS if MODELS[model].maps])
def test_mapped(runs, place, celbo, tmp_path, model):
    """Of METHYLVI nothing may move, as the query has no new batch: its cells lie where the run put them."""
    query = file_of(place, model, "query")
    done = celbo("map", runs[model], query, "--max-epochs", 1, "--seed", 0, "-o", tmp_path / "m.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "m.csv", index_col="cell").filter(regex="^latent_")
    assert found.shape == (80, latents(runs, model).shape[1])
    if model == "methylvi":
        assert "cannot move the latents" in done.stderr
        np.testing.assert_allclose(found, latents(runs, model)[:80], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [model for model in RUNS if MODELS[model].streams])
def test_from_disk(place, celbo, tmp_path, model):
    line = [file_of(place, model, "cells"), "--model", model, *RUNS[model], "--max-epochs", 1, "--data", "stream", "-q"]
    done = celbo("train", *line, "-o", tmp_path / "run")
    assert (done.exit_code, done.stderr) == (0, "")


WRONG = {
    "no sample": ("mrvi", ["--model", "mrvi"], "mrvi needs --sample-key"),
    "no background": ("mrvi", ["--model", "contrastivevi"], "contrastivevi needs --background-key"),
    "background": (
        "mrvi",
        ["--model", "contrastivevi", "--background-key", "donor", "--background-category", "c"],
        "No value of 'donor', which --background-category names, is called 'c'.",
    ),
    "all background": (
        "mrvi",
        ["--model", "contrastivevi", "--background-key", "one", "--background-category", "same"],
        "All cells have 'same' in 'one', so none is a target",
    ),
    "layer of velovi": (
        "mrvi",
        ["--model", "velovi", "--spliced-layer", "Ms", "--unspliced-layer", "Mv"],
        "No layer is called 'Mv'. There are: 'Ms', 'Mu', 'scaled'.",
    ),
    "--layer of velovi": (
        "mrvi",
        ["--model", "velovi", "--spliced-layer", "Ms", "--unspliced-layer", "Mu", "--layer", "Ms"],
        "velovi takes no --layer: --spliced-layer and --unspliced-layer name its layers.",
    ),
    "velovi from disk": (
        "mrvi",
        ["--model", "velovi", "--spliced-layer", "Ms", "--unspliced-layer", "Mu", "--data", "stream"],
        "velovi needs its data in memory: leave --data stream out.",
    ),
    "context": ("methylvi", ["--model", "methylvi", "--context", "mCC"], "--context: No modality is called 'mCC'."),
    "modality": ("methylvi", ["--model", "methylvi", "--modality", "mCG"], "takes modalities by --context"),
    "coordinates": ("mrvi", ["--model", "resolvi", "--spatial-key", "spacial"], "'spacial'"),
    "embedding": (
        "mrvi",
        ["--model", "scviva", "--labels-key", "cell_type", "--embedding-key", "X_pca"],
        "no embedding 'X_pca'",
    ),
    "sample of scvi": ("mrvi", ["--sample-key", "donor"], "scvi takes no --sample-key"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_settings(place, celbo, tmp_path, fault):
    of, args, said = WRONG[fault]
    path = file_of(place, of, "cells")
    if "one" in args:
        adata = place.adata.copy()
        adata.obs["one"] = "same"
        path = tmp_path / "one.h5ad"
        adata.write_h5ad(path)
    done = celbo("train", path, *args, "-q", "-o", tmp_path / "run")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


def test_cells_that_resolvi_was_not_trained_on(runs, place, celbo, tmp_path):
    adata = place.adata.copy()
    adata.obs_names = [f"new_{n}" for n in range(N)]
    adata.write_h5ad(tmp_path / "new.h5ad")
    done = celbo("embed", runs["resolvi"], tmp_path / "new.h5ad", "-o", tmp_path / "e.h5ad")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "was not trained on 120 of the cells" in done.stderr
    assert "celbo map takes them" in done.stderr


def test_resolvi_without_labels_predicts_none(place, celbo, tmp_path):
    few = place.adata[:, : G - 20].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    done = celbo("train", tmp_path / "few.h5ad", "--model", "resolvi", "-o", tmp_path / "few")
    assert "one gene in 50, and these are 40 genes" in done.stderr
    cells = file_of(place, "resolvi", "cells")
    assert celbo("train", cells, "--model", "resolvi", *QUICK, "-o", tmp_path / "run").exit_code == 0
    assert not (tmp_path / "run" / "predictions.csv").exists()
    done = celbo("predict", tmp_path / "run", cells, "-o", tmp_path / "p.csv")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "was trained without --labels-key: no labels." in done.stderr


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """Cells by regions, and a genome."""
    folder, rng = tmp_path_factory.mktemp("regions"), np.random.default_rng(0)
    (folder / "genome.fa").write_text(">chr1\n" + "".join(rng.choice(list("ACGT"), 8_000)) + "\n")
    names = [f"chr1:{start}-{start + 200}" for start in range(0, 7_500, 250)]
    x = (rng.random((12, len(names))) < 0.3).astype(np.float32)
    adata = anndata.AnnData(x, obs=pd.DataFrame(index=[f"c{n}" for n in range(12)]), var=pd.DataFrame(index=names))
    adata.obs["lane"] = ["x", "y"] * 6
    adata.write_h5ad(folder / "peaks.h5ad")
    return folder


class TestSequences:
    def test_is_as_in_python(self, regions, celbo, tmp_path, monkeypatch):
        monkeypatch.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
        more = ["--fasta", regions / "genome.fa", "--seq-len", 192, "--batch-key", "lane", "--max-epochs", 1]
        done = celbo(
            "train", regions / "peaks.h5ad", "--model", "scbasset", *more, "--seed", 0, "-q", "-o", tmp_path / "r"
        )
        assert (done.exit_code, done.stderr) == (0, "")
        found = anndata.read_h5ad(tmp_path / "r" / "embedding.h5ad")
        cells = anndata.read_h5ad(regions / "peaks.h5ad")
        starts = np.arange(0, 7_500, 250)
        cells.var["chr"], cells.var["start"], cells.var["end"] = "chr1", starts, starts + 200
        add_dna_sequence(cells, 192, fasta=regions / "genome.fa")
        turned = cells.T.copy()
        SCBASSET.setup_anndata(turned, dna_code_key="dna_code", batch_key="lane")
        model = SCBASSET(turned)
        model.train(max_epochs=1, seed=0, verbose=0)
        assert list(found.obs_names) == list(cells.obs_names)
        np.testing.assert_allclose(found.obsm["X_celbo"], model.get_latent_representation(), rtol=1e-3, atol=1e-4)
        assert "30 regions" in celbo("info", tmp_path / "r").stdout
        for verb, output in (("embed", "e.csv"), ("report", "r.json")):
            done = celbo(verb, tmp_path / "r", regions / "peaks.h5ad", "-o", tmp_path / output)
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
            assert "knows the cells that it was trained on and no others" in done.stderr

    def test_wrong(self, regions, celbo, tmp_path):
        def said(path, genome):
            line = ["train", path, "--model", "scbasset", "--fasta", genome, "--seq-len", 192, "-q"]
            done = celbo(*line, "-o", tmp_path / "run")
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
            return done.stderr

        assert "no.fa: there is no such file" in said(regions / "peaks.h5ad", regions / "no.fa")
        cells = anndata.read_h5ad(regions / "peaks.h5ad")
        cells.var_names = [f"peak_{g}x" for g in range(cells.n_vars)]
        cells.write_h5ad(tmp_path / "named.h5ad")
        assert "Where is region 'peak_0x'?" in said(tmp_path / "named.h5ad", regions / "genome.fa")
        (tmp_path / "other.fa").write_text(">chr2\nACGT\n")
        assert "chr1" in said(regions / "peaks.h5ad", tmp_path / "other.fa")
