"""``celbo de``: the table is that of ``differential_expression``, and wrong groups are named."""

import importlib.util

import anndata
import numpy as np
import pandas as pd
import pytest

from celbo.model import MULTIVI, PEAKVI, SCVI

COUNTED = ("is_de_fdr_0.05", "lfc_mean", "proba_de", "raw_mean1", "raw_mean2")


@pytest.fixture(scope="module")
def multivi(tmp_path_factory):
    """A folder with a trained MULTIVI and the file of its cells."""
    mudata = pytest.importorskip("mudata")
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("de")
    parts = {}
    for name, names in {"rna": [f"g{i}" for i in range(9)], "atac": [f"chr1:{i}-{i + 1}" for i in range(15)]}.items():
        counts = rng.poisson(1.5, (60, len(names))).astype(np.float32)
        parts[name] = anndata.AnnData(counts, var=pd.DataFrame(index=names))
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData(parts)
        mdata.mod["rna"].obs["half"] = np.where(np.arange(60) < 30, "a", "b")
        mdata.write(folder / "cells.h5mu")
        MULTIVI.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = MULTIVI(mdata)
    model.train(2, verbose=0, seed=0, adversarial_mixing=False)
    model.save(str(folder / "model"))
    return folder


def test_all_groups_against_the_rest(trained, small, celbo, tmp_path):
    line = ["de", trained.folder, small.path, "--groupby", "cell_type", "--seed", 3, "-o", tmp_path / "de.csv"]
    done = celbo(*line)
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "de.csv", index_col="feature")
    model = SCVI.load(str(trained.folder / "model"), adata=False)
    wanted = model.differential_expression(small.adata.copy(), groupby="cell_type", mode="change", seed=3)
    assert list(found.index) == list(wanted.index)
    assert list(found["group1"]) == list(wanted["group1"])
    np.testing.assert_allclose(found["proba_de"], wanted["proba_de"])
    np.testing.assert_allclose(found["lfc_mean"], wanted["lfc_mean"], rtol=1e-5)
    assert set(COUNTED) <= set(found)
    n = int(wanted["is_de_fdr_0.05"][wanted["group1"] == "type_1"].sum())
    assert f"type_1 against Rest: {n} of 30 features differ" in done.stdout


@pytest.mark.parametrize("suffix", ["h5ad", "csv"])
def test_groups_of_another_file(trained, small, celbo, tmp_path, suffix):
    """As predictions are written, in another order and without one of the cells; no counts are read of them."""
    predicted = small.adata.obs[["cell_type"]].rename(columns={"cell_type": "predicted"})[::-1].iloc[:-1]
    path = tmp_path / f"p.{suffix}"
    if suffix == "csv":
        predicted.to_csv(path, index_label="cell")
    else:
        anndata.AnnData(obs=predicted).write_h5ad(path)
    line = ["de", trained.folder, small.path, "--groupby", "predicted", "--groups-from", path, "--seed", 3]
    done = celbo(*line, "--group1", "type_1", "-o", tmp_path / "de.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "de.csv", index_col="feature")
    adata = small.adata.copy()
    adata.obs["predicted"] = predicted["predicted"].reindex(adata.obs_names)
    model = SCVI.load(str(trained.folder / "model"), adata=False)
    wanted = model.differential_expression(adata, groupby="predicted", group1="type_1", mode="change", seed=3)
    np.testing.assert_allclose(found["raw_mean1"], wanted["raw_mean1"], rtol=1e-5)
    np.testing.assert_allclose(found["raw_mean2"], wanted["raw_mean2"], rtol=1e-5)
    np.testing.assert_allclose(found["proba_de"], wanted["proba_de"])


def test_files_without_groups_and_without_counts(trained, small, celbo, tmp_path):
    anndata.AnnData(obs=small.adata.obs.add_suffix("_1").set_axis(small.adata.obs_names + "-x")).write_h5ad(
        tmp_path / "p.h5ad"
    )
    line = ["de", trained.folder, small.path, "-o", tmp_path / "de.csv", "--groups-from", tmp_path / "p.h5ad"]
    assert "Did you mean 'cell_type_1'?" in celbo(*line, "--groupby", "cell_type").stderr
    assert "does not name these cells" in celbo(*line, "--groupby", "cell_type_1").stderr
    line = ["de", trained.folder, tmp_path / "p.h5ad", "-o", tmp_path / "de.csv", "--groupby", "cell_type_1"]
    done = celbo(*line)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "p.h5ad holds no counts and no genes" in done.stderr
    assert "--groups-from" in done.stderr


def test_two_groups(trained, small, celbo, tmp_path):
    line = ["de", trained.folder, small.path, "--groupby", "cell_type", "--group1", "type_1", "--group2", "type_2"]
    done = celbo(*line, "--mode", "vanilla", "--batch-correction", "--seed", 0, "-q", "-o", tmp_path / "de.tsv")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    found = pd.read_csv(tmp_path / "de.tsv", index_col="feature", sep="\t")
    assert len(found) == 30
    assert set(found["comparison"]) == {"type_1 vs type_2"}
    model = SCVI.load(str(trained.folder / "model"), adata=False)
    wanted = model.differential_expression(
        small.adata.copy(), "cell_type", ["type_1"], ["type_2"], mode="vanilla", batch_correction=True, seed=0
    )
    np.testing.assert_allclose(found["bayes_factor"], wanted["bayes_factor"], rtol=1e-5)


def test_genes_and_regions(multivi, celbo, tmp_path):
    line = ["de", multivi / "model", multivi / "cells.h5mu", "--groupby", "half", "--group1", "a", "--delta", "0.1"]
    done = celbo(*line, "--seed", 0, "-o", tmp_path / "de.csv")
    assert done.exit_code == 0, done.stderr
    found = pd.read_csv(tmp_path / "de.csv", index_col="feature")
    assert found["modality"].value_counts().to_dict() == {"atac": 15, "rna": 9}
    model = MULTIVI.load(str(multivi / "model"), adata=False)
    mudata = pytest.importorskip("mudata")
    with mudata.set_options(pull_on_update=False):
        data = mudata.read_h5mu(multivi / "cells.h5mu")
    wanted = model.differential_accessibility(data, groupby="half", group1="a", delta=0.1, seed=0)
    regions = found[found["modality"] == "atac"].loc[wanted.index]
    np.testing.assert_allclose(regions["prob_da"], wanted["prob_da"])
    n = int(wanted["is_da_fdr"].sum() + found["is_de_fdr_0.05"].eq("True").sum())
    assert f"a against Rest: {n} of 24 features differ" in done.stdout


def test_regions_of_a_model_of_one_modality(multivi, celbo, tmp_path):
    adata = pytest.importorskip("mudata").read_h5ad(multivi / "cells.h5mu", mod="atac")
    PEAKVI.setup_anndata(adata)
    model = PEAKVI(adata)
    model.train(1, verbose=0, seed=0)
    model.save(str(tmp_path / "model"))
    adata.obs["half"] = np.arange(60) % 2
    adata.write_h5ad(tmp_path / "cells.h5ad")
    line = ["de", tmp_path / "model", tmp_path / "cells.h5ad", "--groupby", "half", "--group1", 1]
    assert celbo(*line, "-q", "-o", tmp_path / "de.csv").exit_code == 0
    assert list(pd.read_csv(tmp_path / "de.csv")["group1"].unique()) == [1]


def test_parquet(trained, small, celbo, tmp_path):
    line = ["de", trained.folder, small.path, "--groupby", "donor", "-q", "-o", tmp_path / "de.parquet"]
    done = celbo(*line)
    if importlib.util.find_spec("pyarrow") is None:
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "pip install 'celbo[parquet]'" in done.stderr
        assert list(tmp_path.iterdir()) == []
    else:
        assert len(pd.read_parquet(tmp_path / "de.parquet")) == 60


WRONG = {
    "column": (["--groupby", "celltype"], "--groupby: No column of obs is called 'celltype'. Did you mean 'cell_type'"),
    "group": (["--groupby", "cell_type", "--group1", "typ_1"], "which --group1 names, is called 'typ_1'. Did you mean"),
    "rest": (["--groupby", "donor", "--group2", "c"], "which --group2 names, is called 'c'."),
    "mode": (["--groupby", "donor", "--mode", "chang"], "value of --mode is called 'chang'. Did you mean 'change'"),
    "nothing": ([], "Missing option '--groupby'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong(trained, small, celbo, tmp_path, fault):
    args, said = WRONG[fault]
    done = celbo("de", trained.folder, small.path, *args, "-o", tmp_path / "de.csv")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_suffix(trained, small, celbo, tmp_path):
    done = celbo("de", trained.folder, small.path, "--groupby", "donor", "-o", tmp_path / "de.xlsx")
    assert "'.xlsx'; a table is written as .csv, .tsv, .parquet" in done.stderr


COMMANDS = {
    "train",
    "embed",
    "denoise",
    "de",
    "predict",
    "map",
    "report",
    "check",
    "info",
    "convert",
    "export",
    "shard",
    "demo",
}


def test_every_command_has_an_example(celbo):
    commands = [line.split()[0] for line in celbo("--help").stdout.partition("Commands:")[2].splitlines() if line]
    assert set(commands) == COMMANDS
    for command in commands:
        assert f"Example: celbo {command} " in celbo(command, "--help").stdout
