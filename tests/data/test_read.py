import anndata
import h5py
import numpy as np
import pytest

from celbo.data import read, synthetic_iid
from celbo.store.damage import DamagedDataError


@pytest.fixture
def adata():
    return synthetic_iid(batch_size=50, n_genes=20, sparse_format="csr_matrix", seed=0)


@pytest.mark.filterwarnings("ignore:Writing zarr:UserWarning")
def test_reads_h5ad_and_zarr(tmp_path, adata):
    pytest.importorskip("zarr")
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for name in ("a.h5ad", "a.zarr"):
        np.testing.assert_array_equal(read(tmp_path / name).X.toarray(), adata.X.toarray())
    assert read(str(tmp_path / "a.h5ad")).shape == adata.shape


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing.h5ad"):
        read(tmp_path / "nothing.h5ad")
    (tmp_path / "a.bin").write_bytes(bytes(range(200)))
    with pytest.raises(ValueError, match=r"a.bin \(200 bytes\) cannot be read as counts.*celbo reads .h5ad, .zarr"):
        read(tmp_path / "a.bin")
    (tmp_path / "text.h5ad").write_text("not hdf5")
    with pytest.raises(ValueError, match=r"text.h5ad \(8 bytes\) cannot be read as AnnData"):
        read(tmp_path / "text.h5ad")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(ValueError, match=r"folder.zarr cannot be read as AnnData"):
        read(tmp_path / "folder.zarr")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files(tmp_path, adata, share):
    adata.write_h5ad(tmp_path / "whole.h5ad")
    whole = (tmp_path / "whole.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="damaged, cut short") as raised:
        read(tmp_path / "cut.h5ad")
    assert "\n" not in str(raised.value)


def test_a_file_damaged_inside_is_named_whatever_its_reader_raises(tmp_path):
    path = tmp_path / "cells.h5ad"
    adata = anndata.AnnData(np.ones((3, 2), np.float32))
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["obs"].attrs["encoding-type"] = "tomato"  # anndata raises an error of its own kind
    with pytest.raises(DamagedDataError, match=r"cells.h5ad \(\d+ bytes\) cannot be read as AnnData"):
        read(path)
