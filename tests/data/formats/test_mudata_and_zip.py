"""MuData by modality, and zipped zarr: as anndata and mudata write them."""

import shutil
import zipfile

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import celbo.data
from celbo.store.damage import DamagedDataError

from .conftest import CELLS, COUNTS, GENES

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def adata_of(counts=COUNTS, prefix=""):
    x = sp.csr_matrix(counts.astype(np.float32))
    obs = pd.DataFrame({f"own{prefix}": range(len(counts))}, index=CELLS)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[prefix + gene for gene in GENES]))


@pytest.fixture(params=[".h5mu", ".zarr", ".zarr.zip"])
def mudata_path(request, tmp_path):
    mudata = pytest.importorskip("mudata")
    mdata = mudata.MuData({"rna": adata_of(), "prot": adata_of(COUNTS * 2, "p")})
    mdata.obs["donor"] = list("aabbcc")
    if request.param == ".h5mu":
        mdata.write_h5mu(tmp_path / "m.dat")
        return tmp_path / "m.dat"
    pytest.importorskip("zarr")
    mdata.write_zarr(tmp_path / "m.zarr")
    if request.param == ".zarr":
        return tmp_path / "m.zarr"
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "m.zarr")  # as `zip -r m.zarr.zip m.zarr`
    return tmp_path / "packed.zip"


def test_a_modality(mudata_path):
    with pytest.raises(ValueError, match=r"2 modalities.*'prot' \(6 cells x 5 features\).*modality='rna'"):
        celbo.data.open(mudata_path)
    with pytest.raises(ValueError, match=r"No modality is called 'RNA'. Did you mean 'rna'"):
        celbo.data.read(mudata_path, modality="RNA")
    for adata in (
        celbo.data.read(mudata_path, modality="prot"),
        celbo.data.open(mudata_path, stream=True, modality="prot"),
    ):
        np.testing.assert_array_equal(adata.X[[4, 1]].toarray(), (COUNTS * 2)[[4, 1]])
        assert adata.var_names[1] == "pGAPDH"
        assert adata.obs["donor"].tolist() == list("aabbcc")
        assert "ownp" in adata.obs
        assert "own" not in adata.obs


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zipped_anndata(tmp_path, packing):
    pytest.importorskip("zarr")
    adata_of().write_zarr(tmp_path / "a.zarr")
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", packing) as archive:
        for path in (tmp_path / "a.zarr").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "a.zarr"))
    for adata in (celbo.data.read(tmp_path / "a.zarr.zip"), celbo.data.open(tmp_path / "a.zarr.zip", stream=True)):
        np.testing.assert_array_equal(adata.X[[4, 1]].toarray(), COUNTS[[4, 1]])
        assert list(adata.obs_names) == CELLS
    raw = (tmp_path / "a.zarr.zip").read_bytes()
    (tmp_path / "cut.zarr.zip").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DamagedDataError, match=r"cut\.zarr\.zip"):
        celbo.data.read(tmp_path / "cut.zarr.zip")


def test_a_modality_of_what_has_none(tmp_path):
    adata_of().write_h5ad(tmp_path / "a.h5ad")
    for stream in (None, False, True):
        with pytest.raises(ValueError, match="no modalities to choose from: leave modality='rna' out"):
            celbo.data.open(tmp_path / "a.h5ad", modality="rna", stream=stream)
