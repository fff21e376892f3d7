"""``celbo.which``: what it says fits does, and its line to begin with runs."""

import anndata
import numpy as np
import pandas as pd
import pytest

import celbo
from celbo.choosing.heads import head_of
from celbo.choosing.table import CHOICES
from celbo.core import ArgumentError


@pytest.fixture
def adata():
    made = celbo.data.simulate_counts(90, 20, n_cell_types=3, n_batches=2, seed=0)
    made.obs["depth"] = np.linspace(0, 1, 90)
    return made


def names(fits):
    return [fit.name.rpartition(".")[2] for fit in fits]


def test_genes_in_batches_with_labels(adata):
    before = adata.copy()
    advice = celbo.which(adata)
    assert names(advice.fits)[:2] == ["SCVI", "SCANVI"]
    assert {"CellAssign", "SOLO", "SCAR"} <= set(names(advice.with_more))
    lacking = {fit.name.rpartition(".")[2]: fit.missing for fit in advice.others}
    assert lacking["PEAKVI"] == ("counts of regions",)
    assert lacking["TOTALANVI"] == ("counts of proteins",)
    assert advice.columns == {"batches": {"batch": 2}, "labels": {"cell_type": 3}}
    assert list(adata.obs) == list(before.obs)
    assert set(adata.uns) == set(before.uns)


def test_every_model_is_judged_once(adata):
    table = celbo.which(adata).table()
    assert len(table) == len(CHOICES)
    assert table.index.is_unique
    assert table["fits"].sum() == sum(not missing for missing in table["missing"])


@pytest.mark.parametrize("where", ["layer", "raw", "X"])
def test_lines_to_begin_with_run(adata, where):
    if where != "X":
        counts = adata.copy()
        adata.X = np.log1p(adata.X.toarray())
        adata.layers.update({"my counts": counts.X} if where == "layer" else {})
        adata.raw = counts if where == "raw" else None
    begun = [fit.begin for fit in celbo.which(adata).fits if fit.begin]
    assert len(begun) > 5
    for line in begun:
        exec(line, {"celbo": celbo, "adata": adata.copy()})
    assert where == "X" or any("layer='my counts'" in line or "use_raw=True" in line for line in begun)


def test_proteins_in_obsm(adata):
    adata.obsm["protein_expression"] = pd.DataFrame(
        np.random.default_rng(0).poisson(5, (90, 4)), index=adata.obs_names, columns=list("pqrs")
    )
    advice = celbo.which(adata)
    first = advice.fits[0]
    assert first.name == "celbo.model.TOTALVI"
    assert "protein_expression_obsm_key='protein_expression'" in first.begin
    exec(first.begin, {"celbo": celbo, "adata": adata})


def test_mudata(adata):
    mudata = pytest.importorskip("mudata")
    proteins = anndata.AnnData(adata.X[:, :4].copy(), obs=adata.obs[[]], var=pd.DataFrame(index=list("pqrs")))
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"gex": adata, "adt": proteins})
        mdata.obs["batch"] = adata.obs["batch"]
    advice = celbo.which(mdata)
    assert names(advice.fits)[0] == "TOTALVI"
    assert "modalities={'rna_layer': 'gex', 'protein_layer': 'adt'}" in advice.fits[0].begin
    exec(advice.fits[0].begin, {"celbo": celbo, "adata": mdata})
    scvi = next(fit for fit in advice.fits if fit.name == "celbo.model.SCVI")
    assert scvi.begin.startswith("celbo.model.SCVI.setup_anndata(adata.mod['gex']")


def test_regions():
    var = pd.DataFrame(index=[f"chr2:{i}000-{i}500" for i in range(30)])
    x = np.random.default_rng(0).poisson(0.3, (40, 30)).astype(np.float32)
    advice = celbo.which(anndata.AnnData(x, var=var))
    assert names(advice.fits) == ["PEAKVI", "POISSONVI"]
    assert names(advice.with_more) == ["SCBASSET"]


def test_no_counts(adata):
    adata.X = np.log1p(adata.X.toarray())
    advice = celbo.which(adata)
    assert advice.counts == ""
    assert "SysVI" in names(advice.fits)
    assert "SCVI" not in names(advice.fits)
    assert "none: counts are whole" in str(advice)


def test_tissue_samples_and_velocity(adata):
    adata.obsm["spatial"] = np.random.default_rng(0).normal(size=(90, 2))
    adata.obs["donor"] = np.where(np.arange(90) % 2, "a", "b")
    adata.layers["spliced"], adata.layers["unspliced"] = adata.X, adata.X
    advice = celbo.which(adata)
    assert {"RESOLVI", "MRVI", "VELOVI"} <= set(names(advice.fits))
    assert {"DestVI", "Tangram", "GIMVI", "SCVIVA"} <= set(names(advice.with_more))
    mrvi = next(fit for fit in advice.fits if fit.name == "celbo.external.MRVI")
    assert "sample_key='donor'" in mrvi.begin


def test_methylation_is_no_accessibility():
    mdata = celbo.data.simulate_methylation(60, {"mCG": 20}, n_cell_types=2, seed=0)
    mdata.mod["mCG"].var_names = [f"chr1:{i}000-{i}500" for i in range(20)]
    advice = celbo.which(mdata)
    assert names(advice.fits)[0] == "METHYLVI"
    assert not {"PEAKVI", "POISSONVI"} & set(names(advice.fits))


def test_cytometry():
    values = np.arcsinh(np.random.default_rng(0).gamma(2.0, 3.0, (60, 12))).astype(np.float32)
    made = anndata.AnnData(values, obs=pd.DataFrame({"batch": list("ab") * 30}, index=[f"c{i}" for i in range(60)]))
    assert names(celbo.which(made).fits) == ["CYTOVI", "SysVI"]


def test_backed(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert names(celbo.which(backed).fits) == names(celbo.which(adata).fits)
    backed.file.close()


def test_it_prints_itself(adata):
    advice = celbo.which(adata)
    text = str(advice)
    assert text.splitlines()[0] == "90 cells x 20 genes"
    assert "begin    celbo.model.SCVI.setup_anndata(adata, batch_key='batch')" in text
    assert "PEAKVI (no counts of regions)" in " ".join(text.split())
    assert max(map(len, text.splitlines())) < 160
    adata.obs["batch <b>"] = adata.obs["batch"]
    assert "<b>" not in celbo.which(adata)._repr_html_()


def test_what_is_no_data():
    with pytest.raises(ArgumentError, match="adata must be an AnnData"):
        celbo.which("counts.h5ad")


def test_heads():
    head = head_of("model/scvi.py")
    assert head.gives.startswith("One latent space for cells of several batches")
    assert head.reference.startswith("Lopez et al., *Deep generative modeling for single-cell transcriptomics*")
    with pytest.raises(ValueError, match="does not say what it gives"):
        head_of("core/errors.py")
