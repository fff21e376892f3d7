"""What of a file must be readable and what may be left out; how much memory it may ask for."""

import json
import shutil
from contextlib import nullcontext

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import open as open_data
from celbo.data import read
from celbo.store import allowance
from celbo.store.damage import DamagedDataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Writing zarr v2 data", "ignore:zarr v3 autosharding", "ignore:Consolidated metadata"
)

N, G = 30, 6


def cells():
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (N, G)).astype(np.float32))
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"] * (N // 2)), "depth": np.arange(N) / 3})
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(x, obs=obs)
    adata.layers["counts"], adata.layers["other"], adata.layers["columns"] = x, x, x.tocsc()
    adata.obsm["near"], adata.obsm["place"], adata.obsp["d"] = x, np.ones((N, 2)), sparse.identity(N, format="csr")
    adata.varm["v"] = np.ones((G, 2))
    adata.uns["how"] = {"by": "celbo", "graph": x}
    adata.raw = adata.copy()
    return adata


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    cells().write_h5ad(folder / "cells.h5ad")
    cells().write_zarr(folder / "cells.zarr")
    return folder


@pytest.fixture
def path(written, tmp_path):
    return shutil.copy(written / "cells.h5ad", tmp_path / "cells.h5ad")


@pytest.fixture
def store(written, tmp_path):
    return shutil.copytree(written / "cells.zarr", tmp_path / "cells.zarr")


def streamed(path):
    return open_data(path, stream=True)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_what_is_read_is_what_anndata_reads(written, name):
    found = read(written / name)
    wanted = (anndata.read_h5ad if name.endswith("h5ad") else anndata.read_zarr)(written / name)
    for mapping in ("layers", "obsm", "obsp", "varm"):
        assert set(getattr(found, mapping)) == set(getattr(wanted, mapping))
        for key, value in getattr(wanted, mapping).items():
            assert type(getattr(found, mapping)[key]) is type(value)
            np.testing.assert_array_equal(
                *(x.toarray() if sparse.issparse(x) else x for x in (getattr(found, mapping)[key], value))
            )
    for frame in ("obs", "var"):
        pd.testing.assert_frame_equal(getattr(found, frame), getattr(wanted, frame))
    pd.testing.assert_frame_equal(found.raw.var, wanted.raw.var)
    assert (found.raw.X != wanted.raw.X).nnz == 0
    assert found.uns["how"]["by"] == "celbo"


class TestWhatIsNotNeeded:
    @pytest.mark.parametrize("part", ["uns/how/by", "obsm/place", "obsp/d", "varm/v", "layers/other", "raw/X"])
    def test_is_left_out_with_a_warning(self, path, part):
        with h5py.File(path, "r+") as file:
            file[part].attrs["encoding-type"] = "tomato"
        with pytest.warns(UserWarning, match=rf"{part.rpartition('/')[0]}.* is left out: .*cells\.h5ad"):
            found = read(path)
        assert (found.X != cells().X).nnz == 0
        pd.testing.assert_frame_equal(found.obs, cells().obs)
        with pytest.warns(UserWarning, match="is left out") if part[0] in "uvlr" else nullcontext():
            assert (streamed(path).X.to_memory() != cells().X).nnz == 0

    def test_of_another_size(self, path):
        with h5py.File(path, "r+") as file:
            attributes = dict(file["obsm/place"].attrs)
            del file["obsm/place"]
            file["obsm/place"] = np.ones((N - 1, 2))
            file["obsm/place"].attrs.update(attributes)
        for way in (read, streamed):
            with pytest.warns(UserWarning, match="obsm/place is 29 x 2, but obs and var make it 30"):
                assert "near" in way(path).obsm

    def test_of_a_store(self, store):
        (store / "uns/how" / ".zattrs").write_text("{")
        for way in (read, streamed):
            with pytest.warns(UserWarning, match=r"uns/how is left out: .*cells\.zarr"):
                assert way(store).n_obs == N

    def test_what_is_needed_is_an_error_that_names_the_part(self, path):
        for part in ("obs", "var", "X"):
            with h5py.File(path, "r+") as file:
                before = file[part].attrs["encoding-type"]
                file[part].attrs["encoding-type"] = "tomato"
            with pytest.raises(DamagedDataError, match=rf"cells\.h5ad .*its {part} is damaged"):
                read(path)
            with h5py.File(path, "r+") as file:
                file[part].attrs["encoding-type"] = before


class TestIndexStructures:
    @pytest.mark.parametrize("part", ["X", "layers/counts", "layers/columns", "obsm/near", "raw/X", "uns/how/graph"])
    @pytest.mark.parametrize("fault", ["pointers", "columns", "end"])
    def test_are_checked_when_loaded(self, path, part, fault):
        with h5py.File(path, "r+") as file:
            if fault == "columns":
                file[part]["indices"][7] = 10**6
            else:
                file[part]["indptr"][-1 if fault == "end" else 3] = 1
        message = rf"cells\.h5ad \({part}\) is damaged: (row|column|its pointers)"
        with (
            pytest.raises(DamagedDataError, match=message) if part == "X" else pytest.warns(UserWarning, match=message)
        ):
            assert read(path).n_obs == N

    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_columns_that_are_fractions_are_not_cut_short(self, path, dtype):
        with h5py.File(path, "r+") as file:
            columns = file["X/indices"][:] + 0.5
            del file["X/indices"]
            file["X/indices"] = columns.astype(dtype)
        for way in (read, streamed):
            with pytest.raises(DamagedDataError, match=r"cells\.h5ad \(X\) is damaged.*float"):
                way(path)

    @pytest.mark.parametrize("code", [7, -5])
    def test_codes_of_categories(self, path, code):
        with h5py.File(path, "r+") as file:
            file["obs/batch/codes"][4] = code
        for way in (read, streamed):
            with pytest.raises(
                DamagedDataError, match=rf"cells\.h5ad \(obs\) is.*'batch' row 4 has the code {code}, there are 2"
            ):
                way(path)

    def test_a_column_cut_short(self, path):
        with h5py.File(path, "r+") as file:
            attributes = dict(file["obs/depth"].attrs)
            del file["obs/depth"]
            file["obs/depth"] = np.ones(N - 3)
            file["obs/depth"].attrs.update(attributes)
        for way in (read, streamed):
            with pytest.raises(DamagedDataError, match=r"cells\.h5ad.*'depth' has 27 rows, its index 30"):
                way(path)


class TestMemory:
    def test_an_array_that_is_only_announced(self, path):
        with h5py.File(path, "r+") as file:
            attributes = dict(file["obs/depth"].attrs)
            del file["obs/depth"]
            file.create_dataset("obs/depth", (10**11,), "f8", chunks=(1000,)).attrs.update(attributes)
        for way in (read, streamed):
            with pytest.raises(
                DamagedDataError, match=r"cells\.h5ad: /obs/depth announces 800\.0 GB, of which .* 0 by"
            ):
                way(path)

    def test_strings_that_are_only_announced(self, path):
        with h5py.File(path, "r+") as file:
            attributes = dict(file["obs/_index"].attrs)
            del file["obs/_index"]
            file.create_dataset("obs/_index", (10**7,), h5py.string_dtype(), chunks=(1000,)).attrs.update(attributes)
        with pytest.raises(DamagedDataError, match=r"cells\.h5ad: /obs/_index announces 640 MB, of which .* 0 by"):
            read(path)
        with pytest.raises(DamagedDataError, match=r"cells\.h5ad: .* obs has 10000000 rows"):
            streamed(path)

    def test_a_matrix_of_zeros_alone(self, tmp_path):
        with h5py.File(tmp_path / "a.h5ad", "w") as file:
            anndata.io.write_elem(file, "/", cells())
            del file["X"]
            x = file.create_dataset("X", (N, 10**10), "f4", chunks=(N, 1000))
            x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        with pytest.raises(
            DamagedDataError, match=r"a\.h5ad: /X announces 1200\.0 GB, of which the file holds 0 bytes"
        ):
            read(tmp_path / "a.h5ad")

    @pytest.mark.parametrize("version", [2, 3])
    def test_of_a_store(self, tmp_path, version):
        with anndata.settings.override(zarr_write_format=version):
            cells().write_zarr(tmp_path / "a.zarr")
        metadata = tmp_path / "a.zarr/obs/depth" / (".zarray" if version == 2 else "zarr.json")
        document = json.loads(metadata.read_text())
        document["shape"] = [10**11]
        metadata.write_text(json.dumps(document))
        for way in (read, streamed):
            with pytest.raises(DamagedDataError, match=r"a\.zarr: obs/depth announces 800\.0 GB"):
                way(tmp_path / "a.zarr")

    def test_what_is_not_needed_is_left_out(self, path):
        with h5py.File(path, "r+") as file:
            made = file.create_dataset("uns/large", (10**11,), "f8", chunks=(1000,))
            made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        with pytest.warns(UserWarning, match=r"uns/large is left out: .*800\.0 GB"):
            assert read(path).uns["how"]["by"] == "celbo"

    def test_less_than_there_is(self, path, monkeypatch):
        monkeypatch.setattr(allowance, "available_memory", lambda: 100)
        monkeypatch.setattr(allowance, "SMALL", 1)
        monkeypatch.setattr(allowance, "EXCESS", 0)
        with pytest.raises(MemoryError, match=r"cells\.h5ad needs \d+ bytes.*100 bytes is available.*stream=True"):
            read(path)

    def test_what_compresses_well_is_read(self, tmp_path):
        adata = anndata.AnnData(np.zeros((2000, 3000), np.float32))
        adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
        assert (tmp_path / "a.h5ad").stat().st_size < adata.X.nbytes / 100
        assert not read(tmp_path / "a.h5ad").X.any()


@pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
def test_without_x_the_layers_are_listed(tmp_path, name):
    adata = cells()
    del adata.raw
    adata.X = None
    adata.write_h5ad(tmp_path / name) if name == "a.h5ad" else adata.write_zarr(tmp_path / name)
    with pytest.raises(ValueError, match=r"has no X.*'columns', 'counts', 'other'.*example layer='counts'"):
        open_data(tmp_path / name, stream=True, layers=[])
    for way in (read, streamed):
        assert way(tmp_path / name).X is None
