"""``celbo check``: what it says of files is so, and the command line that it proposes runs."""

import shlex

import anndata
import numpy as np
import pandas as pd
import pytest

from celbo.cli import estimating
from celbo.data import simulate_counts


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Measure this machine for a moment only."""
    monkeypatch.setattr(estimating, "_SECOND", 0.05)


def said(done):
    """Heading -> what stands behind it, the last of those that come again."""
    assert done.exit_code == 0, done.stderr
    return {line[:14].strip(): line[14:] for line in done.stdout.splitlines()}


@pytest.fixture
def adata():
    found = simulate_counts(90, 20, n_cell_types=3, seed=0)
    found.obs["leiden"] = np.arange(90) % 4
    found.obs["depth"] = np.linspace(0, 1, 90)
    found.obs["donor"] = np.where(np.arange(90) % 2, "a", "b")
    found.obs["only"] = "one"
    return found


def test_counts_in_a_layer(adata, celbo, tmp_path):
    adata.layers["umi"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = said(celbo("check", tmp_path / "cells.h5ad"))
    assert found["file"].endswith("cells.h5ad: AnnData in HDF5")
    assert found["cells"].startswith("90 cells x 20 genes; layers 'umi'")
    assert found["counts"] == "--layer umi"
    assert set(found["batches"].split(", ")) == {"batch (2)", "donor (2)"}
    assert found["labels"] == "cell_type (3), leiden (4)"
    assert "depth" not in " ".join(found.values())
    assert "scanvi (--labels-key cell_type)" in found["models"]
    assert "totalvi" not in found["models"] + found["to begin"]
    assert "peakvi" not in found["models"]


def test_counts_in_raw_and_nowhere(adata, celbo, tmp_path):
    counts = adata.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.write_h5ad(tmp_path / "none.h5ad")
    found = said(celbo("check", tmp_path / "none.h5ad"))
    assert found["counts"] == "none: counts are whole, not negative and not all zero, and X is not"
    assert found["models"] == "cytovi, sysvi (--batch-key batch)"
    adata.raw = counts
    adata.write_h5ad(tmp_path / "raw.h5ad")
    assert said(celbo("check", tmp_path / "raw.h5ad"))["counts"].startswith("--raw")


def test_regions(celbo, tmp_path):
    names = [f"chr2:{i}000-{i}500" for i in range(30)]
    x = np.random.default_rng(0).poisson(0.3, (40, 30)).astype(np.float32)
    anndata.AnnData(x, var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "peaks.h5ad")
    found = said(celbo("check", tmp_path / "peaks.h5ad"))
    assert found["cells"] == "40 cells x 30 regions"
    assert found["models"] == "peakvi, poissonvi, scbasset (--fasta GENOME.fa)"
    assert "--model peakvi" in found["to begin"]


def test_modalities(celbo, adata, tmp_path):
    mudata = pytest.importorskip("mudata")
    proteins = anndata.AnnData(adata.X[:, :4].copy(), obs=adata.obs[[]], var=pd.DataFrame(index=list("pqrs")))
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"gex": adata, "adt": proteins}).write(tmp_path / "m.h5mu")
    done = celbo("check", tmp_path / "m.h5mu")
    found = said(done)
    assert found["file"].endswith("m.h5mu: MuData in HDF5")
    assert "modality      'gex': 90 cells x 20 genes" in done.stdout
    assert "modality      'adt': 90 cells x 4 proteins" in done.stdout
    assert found["models"].startswith("totalvi, ")
    assert "--model totalvi" in found["to begin"]
    alone = said(celbo("check", tmp_path / "m.h5mu", "--modality", "gex"))
    assert alone["models"].startswith("scvi")


@pytest.mark.parametrize("where", ["layer", "raw", "X"])
def test_the_line_to_begin_with_runs(adata, celbo, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    if where != "X":
        counts = adata.copy()
        adata.X = np.log1p(adata.X.toarray())
        adata.layers.update({"my counts": counts.X} if where == "layer" else {})
        adata.raw = counts if where == "raw" else None
    adata.write_h5ad("cells here.h5ad")
    line = shlex.split(said(celbo("check", "cells here.h5ad"))["to begin"])
    assert line[:2] == ["celbo", "train"]
    assert "--batch-key" in line
    done = celbo(*line[1:], "--max-epochs", 1, "-q")
    assert (done.exit_code, done.stderr) == (0, "")


def test_what_is_no_data(trained, celbo, tmp_path):
    done = celbo("check", trained.folder)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "holds a saved model, not data: celbo info says what it is." in done.stderr
    assert "There is no file" in celbo("check", tmp_path / "nothing.h5ad").stderr


def test_zeros_are_no_counts_and_missing_values_no_markers(adata, celbo, tmp_path):
    """Neither has a line to begin with, which would end in an error or in a model of nothing."""
    x = np.log1p(adata.X.toarray())
    x[3, 5] = np.nan
    for name, values in (("zeros", np.zeros_like(x)), ("missing", x)):
        anndata.AnnData(values.astype(np.float32), obs=adata.obs, var=adata.var).write_h5ad(tmp_path / f"{name}.h5ad")
        found = said(celbo("check", tmp_path / f"{name}.h5ad"))
        assert found["counts"] == "none: counts are whole, not negative and not all zero, and X is not"
        assert "scvi" not in found["models"]
    assert found["models"].startswith("none")
