"""Stores whose cells are shuffled already, and files that are written block by block."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import open as open_data
from celbo.store.writing import csr
from celbo.store.writing.matrix import matrix_writer
from celbo.store.writing.shard import shard

pytestmark = pytest.mark.filterwarnings("error")
N, G = 200, 9


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.poisson(0.6, (N, G)).astype(np.float32))
    obs = pd.DataFrame({"kind": pd.Categorical(np.repeat(["é", "b"], N // 2))}, index=[f"c{i}" for i in range(N)])
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(G)]))


@pytest.fixture(params=["memory", "dense", "h5ad"])
def source(request, adata, tmp_path):
    if request.param == "h5ad":
        adata.write_h5ad(tmp_path / "cells.h5ad")
        return open_data(tmp_path / "cells.h5ad", stream=True)
    if request.param == "dense":
        adata.X = adata.X.toarray()
    return adata


class TestShard:
    @pytest.mark.parametrize("bucket_bytes", [1, 2000, None])
    def test_anndata_reads_it(self, source, adata, tmp_path, bucket_bytes, monkeypatch):
        monkeypatch.setattr(csr, "CHUNK_ENTRIES", 64)
        done = []
        path = shard(source, tmp_path / "s.zarr", bucket_bytes=bucket_bytes, progress=lambda *now: done.append(now))
        found = anndata.read_zarr(path)
        order = found.obs["_celbo_row"].to_numpy()
        np.testing.assert_array_equal(np.sort(order), np.arange(N))
        x = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
        np.testing.assert_array_equal(found.X.toarray(), x[order])
        assert list(found.obs_names) == list(adata.obs_names[order])
        assert list(found.var_names) == list(adata.var_names)
        assert done[-1] == (2 * N, 2 * N)
        assert [child.name for child in tmp_path.iterdir() if child.name.startswith(".")] == []

    def test_the_order_is_a_permutation_drawn_by_the_seed(self, adata, tmp_path):
        def order(seed, name):
            return open_data(shard(adata, tmp_path / name, seed=seed), stream=True).obs["_celbo_row"].tolist()

        assert order(1, "a.zarr") == order(1, "b.zarr") != order(2, "c.zarr")
        assert order(1, "d.zarr") == np.random.default_rng(1).permutation(N).tolist()

    def test_a_layer(self, adata, tmp_path):
        adata.layers["twice"] = adata.X * 2
        found = anndata.read_zarr(shard(adata, tmp_path / "s.zarr", layer="twice"))
        np.testing.assert_array_equal(found.X.toarray(), 2 * adata.X.toarray()[found.obs["_celbo_row"]])
        with pytest.raises(KeyError, match="twice"):
            shard(adata, tmp_path / "t.zarr", layer="thrice")

    def test_what_is_there_stays_unless_said(self, adata, tmp_path):
        path = shard(adata, tmp_path / "s.zarr")
        with pytest.raises(FileExistsError, match=r"s\.zarr is there already"):
            shard(adata, path)
        shard(adata[:50].copy(), path, overwrite=True)
        assert open_data(path).n_obs == 50
        with pytest.raises(ValueError, match=r"\.zarr"):
            shard(adata, tmp_path / "s.h5ad")


class TestWriter:
    @pytest.mark.parametrize("name", ["x.h5ad", "x.zarr"])
    def test_blocks_become_an_anndata(self, adata, tmp_path, name):
        x = adata.X.toarray()
        with matrix_writer(tmp_path / name, adata.obs, adata.var) as writer:
            for start in range(0, N, 64):
                writer.append(x[start : start + 64])
            assert not (tmp_path / name).exists()
        found = open_data(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(found.X), x)
        pd.testing.assert_frame_equal(found.obs, adata.obs)
        assert [child.name for child in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("name", ["x.h5ad", "x.zarr"])
    def test_sparse_blocks(self, adata, tmp_path, name, monkeypatch):
        monkeypatch.setattr(csr, "CHUNK_ENTRIES", 64)
        x = adata.X.toarray()
        with matrix_writer(tmp_path / name, adata.obs, adata.var, sparse=True) as writer:
            for start in range(0, N, 64):
                writer.append(x[start : start + 64])
        found = (anndata.read_h5ad if name.endswith("h5ad") else anndata.read_zarr)(tmp_path / name)
        assert sparse.issparse(found.X)
        assert found.X.format == "csr"
        np.testing.assert_array_equal(found.X.toarray(), x)
        pd.testing.assert_frame_equal(found.obs, adata.obs)
        for n_rows in (10, N + 1):
            said = rf"200 rows, and {n_rows} came"
            with (
                pytest.raises(ValueError, match=said),
                matrix_writer(tmp_path / f"not_{name}", adata.obs, adata.var, sparse=True) as w,
            ):
                w.append(np.ones((n_rows, G), np.float32))
        with matrix_writer(tmp_path / f"no_{name}", adata.obs[:0], adata.var, sparse=True):
            pass
        assert open_data(tmp_path / f"no_{name}").shape == (0, G)

    @pytest.mark.parametrize("name", ["x.h5ad", "x.zarr"])
    def test_after_a_fault_nothing_is_left(self, adata, tmp_path, name):
        with (
            pytest.raises(ValueError, match="200 rows, and 10 came"),
            matrix_writer(tmp_path / name, adata.obs, adata.var) as w,
        ):
            w.append(np.ones((10, G), np.float32))
        with (
            pytest.raises(ValueError, match="200 rows, and 201"),
            matrix_writer(tmp_path / name, adata.obs, adata.var) as w,
        ):
            w.append(np.ones((N + 1, G), np.float32))
        assert list(tmp_path.iterdir()) == []
