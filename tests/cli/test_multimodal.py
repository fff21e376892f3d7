"""Files of several modalities on the command line: found, trained on together, embedded, denoised, and refused."""

import gc
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from celbo.cli import app
from celbo.cli.models import MODELS
from celbo.data import open_mudata
from celbo.data.multimodal import feature_tables
from celbo.external import TOTALANVI
from celbo.model import MULTIVI, TOTALVI

mudata = pytest.importorskip("mudata")

CELLS = 90
TYPES = {"Gene Expression": 12, "Antibody Capture": 5, "Peaks": 20}
REGIONS = [f"chr1:{100 * i}-{100 * i + 50}" for i in range(TYPES["Peaks"])]


def counts(n_features, seed):
    return sp.csr_matrix(np.random.default_rng(seed).poisson(1.2, (CELLS, n_features)).astype(np.float32))


def modality(names, seed):
    return anndata.AnnData(counts(len(names), seed), var=pd.DataFrame(index=names), obs=cells())


def read(path):
    with mudata.set_options(pull_on_update=False):
        return mudata.read_h5mu(path)


def cells():
    return pd.DataFrame(index=[f"cell_{i}" for i in range(CELLS)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``cite.h5mu``, ``multiome.h5mu``, ``tenx.h5`` and ``table.h5ad`` of the same counts."""
    folder = tmp_path_factory.mktemp("multimodal")
    genes = modality([f"gene_{i}" for i in range(12)], 0)
    genes.obs["donor"] = np.where(np.arange(CELLS) % 2, "a", "b")
    genes.obs["known"] = np.where(np.arange(CELLS) % 3 > 0, np.where(np.arange(CELLS) < 45, "B", "T"), "Unknown")
    adts, peaks = modality([f"CD{i}" for i in range(5)], 1), modality(REGIONS, 2)
    adts.var["clone"] = [f"clone_{i}" for i in range(5)]
    hashtags = modality(["HTO1", "HTO2"], 3)
    with mudata.set_options(pull_on_update=False):
        cite = mudata.MuData({"gex": genes, "adt": adts, "hto": hashtags})
        cite.obs["batch"] = np.where(np.arange(CELLS) < 50, "one", "two")
        cite.write(folder / "cite.h5mu")
        mudata.MuData({"gex": genes, "x": peaks[:70].copy()}).write(folder / "multiome.h5mu")
    with h5py.File(folder / "tenx.h5", "w") as file:
        x = sp.hstack([genes.X, adts.X, peaks.X]).tocsr()
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(x, name).astype(int)
        file["matrix/shape"] = np.array(x.shape[::-1])
        file["matrix/barcodes"] = np.array(genes.obs_names, dtype="S")
        names = [*genes.var_names, *adts.var_names, *peaks.var_names]
        file["matrix/features/id"] = file["matrix/features/name"] = np.array(names, dtype="S")
        types = np.repeat(list(TYPES), list(TYPES.values()))
        file["matrix/features/feature_type"] = np.array(types, dtype="S")
    table = genes.copy()
    table.obsm["my_panel"] = adts.to_df()
    table.write_h5ad(folder / "table.h5ad")
    return SimpleNamespace(folder=folder, genes=genes, adts=adts, peaks=peaks, mdata=cite)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


RUNS = {
    "totalvi": ("cite.h5mu", ["--batch-key", "batch"]),
    "totalanvi": ("cite.h5mu", ["--labels-key", "known", "--unlabeled-category", "Unknown"]),
    "contrastivetotalvi": ("cite.h5mu", ["--background-key", "batch", "--background-category", "one"]),
    "multivi": ("multiome.h5mu", ["--batch-key", "donor"]),
}


@pytest.fixture(scope="module")
def runs(place):
    """Model -> the folder of a short run, and what the command wrote to stderr."""
    found = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
        for model, (name, args) in RUNS.items():
            output = place.folder / model
            line = ["train", place.folder / name, "--model", model, *args, "--max-epochs", 2, "--seed", 0]
            done = run(*line, "-o", output)
            assert done.exit_code == 0, done.stderr
            found[model] = SimpleNamespace(folder=output, said=done.stderr)
    return found


@pytest.mark.parametrize("model", RUNS)
def test_a_run(runs, model):
    assert "could not be made" not in (runs[model].folder / "report.html").read_text(encoding="utf-8")
    assert "lacks its part" not in runs[model].said
    record = json.loads((runs[model].folder / "run.json").read_text())["settings"]
    assert (record["rna"], record.get("atac"), record["protein"]) == (
        ("gex", "x", None) if model == "multivi" else ("gex", None, "adt")
    )
    embedded = anndata.read_h5ad(runs[model].folder / "embedding.h5ad")
    assert list(embedded.obs_names) == [f"cell_{i}" for i in range(CELLS)]
    assert set(embedded.obs["donor"]) == {"a", "b"}


def test_a_reader_of_one_matrix_names_the_reader_of_all(place):
    from celbo.cli.errors import as_options
    from celbo.data import read, read_mudata

    with pytest.raises(ValueError, match="holds 3 modalities") as refused:
        read(place.folder / "cite.h5mu")
    assert str(refused.value).endswith("All of them, for a model of several: celbo.data.read_mudata.")
    assert list(read_mudata(place.folder / "cite.h5mu").mod) == ["gex", "adt", "hto"]
    assert as_options(str(refused.value)).endswith("--model totalvi and multivi take several.")


@pytest.fixture(scope="module")
def query(place):
    """Some cells of a batch that no model knows, the modalities by other names, genes the other way round."""
    genes, adts, peaks = (one[:40].copy() for one in (place.genes[:, ::-1], place.adts, place.peaks))
    folder = place.folder / "query"
    folder.mkdir()
    with mudata.set_options(pull_on_update=False):
        for name, second in {"cite": {"protein": adts}, "multiome": {"atac": peaks}}.items():
            mdata = mudata.MuData({"rna": genes.copy(), **second})
            mdata.obs["batch"] = mdata.obs["donor"] = "new"
            mdata["rna"].obs["donor"] = "new"
            mdata.write(folder / f"{name}.h5mu")
    return folder


@pytest.mark.parametrize("model", [model for model in RUNS if MODELS[model].maps])
def test_a_query_is_mapped(place, runs, query, tmp_path, model):
    name, _ = RUNS[model]
    done = run("map", runs[model].folder, query / name, "--max-epochs", 1, "--seed", 0, "-o", tmp_path / "m.h5ad")
    assert done.exit_code == 0, done.stderr
    found = anndata.read_h5ad(tmp_path / "m.h5ad")
    assert list(found.obs_names) == [f"cell_{i}" for i in range(40)]
    cls = {"totalvi": TOTALVI, "totalanvi": TOTALANVI, "multivi": MULTIVI}[model]
    reference = cls.load(str(runs[model].folder / "model"), adata=False)
    mdata = read(query / name)
    names = {"rna": "gex", "protein": "adt"} if name == "cite.h5mu" else {"rna": "gex", "atac": "x"}
    with mudata.set_options(pull_on_update=False):
        renamed = mudata.MuData({names[one]: mdata[one] for one in mdata.mod})
        renamed.obs[["batch", "donor"]] = "new"
    mapped = cls.load_query_data(cls.prepare_query_mudata(renamed, reference, inplace=False), reference)
    mapped.train(max_epochs=1, seed=0, verbose=0)
    np.testing.assert_allclose(found.obsm["X_celbo"], mapped.get_latent_representation(), rtol=1e-4, atol=1e-5)
    if model == "totalanvi":
        assert list(found.obs["celbo_predicted"].astype(str)) == list(mapped.predict())


def test_what_is_taken_is_said_with_the_options_that_name_it(runs):
    said = runs["totalvi"].said
    assert "genes from 'gex' (12), proteins from 'adt' (5); left out: 'hto'." in said
    assert "--rna, --protein name them" in said
    assert "regions from 'x' (20)" in runs["multivi"].said  # by the names of the features


def test_the_latents_are_the_models(runs, place, tmp_path):
    done = run("embed", runs["totalvi"].folder, place.folder / "cite.h5mu", "-q", "-o", tmp_path / "e.h5ad")
    assert (done.exit_code, done.stderr) == (0, "")
    model = TOTALVI.load(str(runs["totalvi"].folder / "model"), adata=False)
    wanted = model.get_latent_representation(place.mdata)
    found = anndata.read_h5ad(tmp_path / "e.h5ad")
    np.testing.assert_allclose(found.obsm["X_celbo"], wanted, rtol=1e-5, atol=1e-6)
    assert list(found.obs["batch"]) == list(place.mdata.obs["batch"])


def test_a_query_of_10x_has_the_modalities_of_the_model(runs, place, tmp_path):
    outputs = []
    for name in ("cite.h5mu", "tenx.h5"):
        output = tmp_path / f"{name}.h5ad"
        done = run("embed", runs["totalanvi"].folder, place.folder / name, "-q", "-o", output)
        assert done.exit_code == 0, done.stderr
        outputs.append(anndata.read_h5ad(output).obsm["X_celbo"])
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_predictions(runs, place, tmp_path):
    folder = runs["totalanvi"].folder
    done = run("predict", folder, place.folder / "cite.h5mu", "-q", "-o", tmp_path / "p.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "p.csv", index_col="cell")
    wanted = TOTALANVI.load(str(folder / "model"), adata=False).predict(place.mdata, soft=True)
    np.testing.assert_allclose(found[["B", "T"]], wanted[["B", "T"]], rtol=1e-4, atol=1e-5)


class TestDenoise:
    def test_both_modalities(self, runs, place, tmp_path):
        line = ["denoise", runs["totalvi"].folder, place.folder / "cite.h5mu", "--seed", 3, "-o", tmp_path / "d.h5mu"]
        done = run(*line)
        assert done.exit_code == 0, done.stderr
        assert "denoised expression (12), protein (5)" in done.stdout
        found = read(tmp_path / "d.h5mu")
        assert found.shape == (CELLS, 17)
        assert list(found.mod["protein"].var_names) == list(place.adts.var_names)
        model = TOTALVI.load(str(runs["totalvi"].folder / "model"), adata=False)
        rna, protein = model.get_normalized_expression(place.mdata, seed=3)
        np.testing.assert_allclose(found.mod["rna"].X, rna, rtol=1e-4)
        assert found.mod["protein"].X.shape == protein.shape
        assert (found.mod["protein"].X > 0).all()
        assert list(found.obs["batch"]) == list(place.mdata.obs["batch"])
        assert set(found.obs.columns) == {"batch", "donor", "known"}
        assert list(found.mod["rna"].obs["donor"]) == list(place.genes.obs["donor"])
        assert list(found.mod["protein"].var["clone"]) == list(place.adts.var["clone"])
        assert run(*line).exit_code == 2
        assert [path.name for path in tmp_path.iterdir()] == ["d.h5mu"]

    def test_cells_without_a_modality(self, runs, place, tmp_path):
        output = tmp_path / "d.h5mu"
        done = run("denoise", runs["multivi"].folder, place.folder / "multiome.h5mu", "-q", "-o", output)
        assert done.exit_code == 0, done.stderr
        found = read(output)
        assert found.mod["atac"].shape == (CELLS, 20)  # 20 of them imputed
        model = MULTIVI.load(str(runs["multivi"].folder / "model"), adata=False)
        data = read(place.folder / "multiome.h5mu")
        wanted = model.get_normalized_expression(data, use_z_mean=False, n_samples=1, seed=0)
        assert np.asarray(wanted).shape == found.mod["rna"].shape
        np.testing.assert_allclose(found.mod["rna"].X.sum(1), 1, rtol=1e-4)

    def test_a_query_of_genes_alone(self, runs, place, tmp_path):
        with mudata.set_options(pull_on_update=False):
            mudata.MuData({"rna": place.genes}).write(tmp_path / "genes.h5mu")
        line = ["denoise", runs["multivi"].folder, tmp_path / "genes.h5mu", "-o", tmp_path / "d.h5mu"]
        done = run(*line)
        assert done.exit_code == 0, done.stderr
        assert "No cell has the model's 'x': what they hold is imputed." in done.stderr
        open_nr = read(tmp_path / "d.h5mu").mod["atac"].X
        assert open_nr.shape == (CELLS, 20)
        assert ((open_nr > 0) & (open_nr < 1)).all()

    def test_genes_alone_keep_the_columns(self, runs, place, tmp_path):
        line = ["denoise", runs["totalvi"].folder, place.folder / "cite.h5mu", "--library-size", 1e4]
        done = run(*line, "-o", tmp_path / "d.h5ad")
        assert "each cell's summing to 10000" in done.stdout
        found = anndata.read_h5ad(tmp_path / "d.h5ad")
        np.testing.assert_allclose(found.X.sum(1), 1e4, rtol=1e-4)
        assert set(found.obs.columns) == {"batch", "donor", "known"}
        assert list(found.obs["batch"]) == list(place.mdata.obs["batch"])

    def test_some_features(self, runs, place, tmp_path):
        line = ["denoise", runs["totalvi"].folder, place.folder / "cite.h5mu", "-q", "-o", tmp_path / "d.h5mu"]
        assert run(*line, "--gene", "CD3").exit_code == 0
        assert list(read(tmp_path / "d.h5mu").mod) == ["protein"]
        done = run(*line, "--gene", "CD33", "--overwrite")
        assert "No feature of the model is called 'CD33'. Did you mean 'CD3'" in done.stderr

    def test_one_modality_is_no_mudata(self, trained, small, tmp_path):
        done = run("denoise", trained.folder, small.path, "-o", tmp_path / "d.h5mu")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "scvi denoises one modality: write it to .h5ad or .zarr" in done.stderr


def test_info(runs):
    assert "90 cells, 12 genes, 5 proteins, 2 batches" in run("info", runs["totalvi"].folder).stdout
    assert "20 regions" in run("info", runs["multivi"].folder).stdout


@pytest.mark.parametrize("model", ["totalvi", "multivi"])
def test_streamed(runs, place, tmp_path, model):
    name, args = RUNS[model]
    line = ["train", place.folder / name, "--model", model, *args, "--max-epochs", 2, "--seed", 0, "--data", "stream"]
    done = run(*line, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    settings, wanted = (
        json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "run", runs[model].folder)
    )
    assert settings["settings"]["streamed"]
    assert settings["figures"]["elbo_validation"] == pytest.approx(wanted["figures"]["elbo_validation"], rel=0.1)
    assert "could not be made" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


class TestModelsOfOneModality:
    def test_genes_of_several_modalities_are_taken_and_it_is_said(self, place, tmp_path):
        done = run("train", place.folder / "cite.h5mu", "--max-epochs", 1, "-o", tmp_path / "run")
        assert done.exit_code == 0, done.stderr
        assert "Modality 'gex' is taken (genes); left out: 'adt', 'hto'." in done.stderr
        assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["modality"] == "gex"

    @pytest.mark.parametrize(("model", "name"), [("peakvi", "tenx.h5"), ("poissonvi", "multiome.h5mu")])
    def test_regions(self, place, tmp_path, model, name):
        line = ["train", place.folder / name, "--model", model, "--max-epochs", 1, "--seed", 0]
        done = run(*line, "-o", tmp_path / "run")
        assert done.exit_code == 0, done.stderr
        assert "(regions)" in done.stderr
        assert "20 regions" in run("info", tmp_path / "run").stdout
        done = run("embed", tmp_path / "run", place.folder / name, "-q", "-o", tmp_path / "e.h5ad")
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("stream", [False, True])
def test_open_mudata_of_10x(place, stream):
    found = open_mudata(place.folder / "tenx.h5", stream=stream)
    assert list(found.mod) == ["rna", "protein", "atac"]
    for name, wanted in (("rna", place.genes), ("protein", place.adts), ("atac", place.peaks)):
        assert list(found.mod[name].var_names) == list(wanted.var_names)
        np.testing.assert_array_equal(found.mod[name].X[np.arange(CELLS)].toarray(), wanted.X.toarray())


@pytest.mark.parametrize("name", ["cite.h5mu", "tenx.h5"])
def test_a_look_leaves_no_file_open(place, tmp_path, name):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not list open files under /proc/self/fd")
    # A copy under this test's own folder: another test's reader of the shared file closes when its object dies.
    path = Path(shutil.copy(place.folder / name, tmp_path))

    def opened():
        return sum(os.path.realpath(link) == os.path.realpath(path) for link in Path("/proc/self/fd").iterdir())

    assert len(feature_tables(path)) == 3
    assert opened() == 0
    found = open_mudata(path, stream=True)
    assert opened() >= 1, "the count sees an open file"
    del found
    gc.collect()
    open_mudata(path, stream=False)
    assert opened() == 0


def test_proteins_in_obsm(place, tmp_path):
    line = ["train", place.folder / "table.h5ad", "--model", "totalvi", "--max-epochs", 1, "-q", "-o", tmp_path / "run"]
    done = run(*line)
    assert done.exit_code == 2
    assert "one modality (entries of obsm: 'my_panel')" in done.stderr
    assert run(*line, "--protein", "my_panel").exit_code == 0
    assert "12 genes, 5 proteins" in run("info", tmp_path / "run").stdout


WRONG = {
    "a modality that is not there": (
        "cite.h5mu",
        ["--protein", "adtt"],
        "--protein: No modality is called 'adtt'. Did",
    ),
    "none that holds proteins": ("multiome.h5mu", [], "totalvi needs proteins"),
    "--modality": ("cite.h5mu", ["--modality", "gex"], "leave --modality out; --rna, --protein name them"),
    "regions": ("cite.h5mu", ["--atac", "gex"], "totalvi takes no --atac: leave it out, or use --model multivi"),
    "raw": ("cite.h5mu", ["--raw"], "totalvi takes no --raw"),
    "a column": ("cite.h5mu", ["--batch-key", "donr"], "Did you mean 'donor'"),
    "a layer": ("cite.h5mu", ["--layer", "umi"], "No layer is called 'umi'"),
    "several files": ("cite.h5mu", ["multiome.h5mu"], "several files are opened as one MuData if"),
    "one of scvi": ("cite.h5mu", ["--model", "scvi", "--rna", "gex"], "scvi takes no --rna"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong(place, tmp_path, fault):
    name, args, said = WRONG[fault]
    args = [place.folder / arg if arg.endswith("h5mu") else arg for arg in args]
    done = run("train", place.folder / name, "--model", "totalvi", *args[:2], "-q", "-o", tmp_path / "run", *args[2:])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


def test_two_that_look_like_proteins(place, tmp_path):
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"rna": place.genes, "prot": place.adts, "adt": modality([f"p{i}" for i in range(5)], 4)})
        mdata.write(tmp_path / "two.h5mu")
    line = ["train", tmp_path / "two.h5mu", "--model", "totalvi", "--max-epochs", 1, "-q", "-o", tmp_path / "run"]
    assert "'prot' and 'adt' both look like proteins: say which by --protein." in run(*line).stderr
    assert run(*line, "--protein", "adt").exit_code == 0
