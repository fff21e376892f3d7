"""Tables of cells that lie in a temporary file hold what anndata reads."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from pandas.api.types import union_categoricals
from scipy import sparse

from celbo.data import open as open_data
from celbo.store import mapped as scratch
from celbo.store.damage import DamagedDataError
from celbo.store.tables import obs as stored_obs
from celbo.store.tables import stacked as obs_tables
from celbo.store.tables.names import names_of
from celbo.store.tables.obs import reordered
from celbo.store.writing.anndata import CAN_WRITE
from celbo.store.writing.matrix import matrix_writer
from celbo.store.writing.shard import shard

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data", "ignore:Observation names are not unique"),
    pytest.mark.skipif(not CAN_WRITE, reason="this anndata has no place for writers"),
]


@pytest.fixture(autouse=True)
def compact(monkeypatch):
    monkeypatch.setattr(scratch, "COMPACT_FROM", 0)
    monkeypatch.setattr(scratch, "STRETCH", 7)
    monkeypatch.setattr(obs_tables, "COMPARED", 2)
    monkeypatch.setattr(stored_obs, "PIECE", 5)


def table(n, start=0):
    rng = np.random.default_rng(n + start)
    return pd.DataFrame(
        {
            "kind": pd.Categorical.from_codes(rng.integers(-1, 3, n), ["é", "b", "never", "c"]),
            "size": pd.Categorical(rng.choice(["S", "L"], n), categories=["S", "M", "L"], ordered=True),
            "number": rng.integers(0, 9, n),
            "small": rng.integers(0, 9, n).astype(np.int8),
            "half": rng.random(n).astype(np.float16),
            "score": np.where(rng.random(n) < 0.2, np.nan, rng.random(n)),
            "flag": rng.random(n) < 0.5,
            "count or none": pd.array([None if i % 3 else i for i in range(n)], dtype="Int64"),
            "yes, no or none": pd.array([None if i % 4 else i % 8 == 0 for i in range(n)], dtype="boolean"),
            "note": [f"note {i}" for i in range(n)],
        },
        index=[f"c{i}" for i in range(start, start + n)],
    )


def written(path, obs):
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (len(obs), 6)).astype(np.float32))
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcdef")))
    anndata.settings.allow_write_nullable_strings = False
    if path.suffix == ".zarr":
        adata.write_zarr(path, convert_strings_to_categoricals=False)
    else:
        adata.write_h5ad(path, convert_strings_to_categoricals=False, compression="gzip" if "gz" in path.name else None)
    return path


def assert_same(found, wanted):
    assert names_of(found.index) is not None
    assert found.index.tolist() == wanted.index.tolist()
    assert found.index.name == wanted.index.name
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), wanted.reset_index(drop=True), check_column_type=len(wanted.columns) > 0
    )


@pytest.mark.parametrize("name", ["a.h5ad", "gz.h5ad", "a.zarr"])
def test_what_anndata_reads(tmp_path, name):
    path = written(tmp_path / name, table(23).rename_axis("barcode"))
    plain = anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)
    assert_same(open_data(path, stream=True).obs, plain.obs)


def test_no_columns_and_few_cells(tmp_path):
    for n in (1, 2):
        obs = pd.DataFrame(index=[f"c{i}" for i in range(n)])
        assert_same(open_data(written(tmp_path / f"{n}.h5ad", obs), stream=True).obs, obs)


def test_many_files_are_as_one_that_is_loaded(tmp_path):
    paths = [written(tmp_path / f"{i}.h5ad", table(9 + i, 10 * i)) for i in range(3)]
    assert_same(open_data(paths, stream=True).obs, open_data(paths, stream=False).obs)


def test_names_in_two_files_are_told_apart(tmp_path, log):
    paths = [written(tmp_path / f"{name}.h5ad", table(4)) for name in "ab"]
    found = open_data(paths, stream=True).obs
    assert found.index.tolist() == [f"c{i}-{name}" for name in "ab" for i in range(4)]
    assert names_of(found.index) is not None
    assert any("4 names of cells are in several files" in line for line in log)


@pytest.mark.parametrize("name", ["b.h5ad", "b.zarr"])
def test_what_streams_can_be_written(tmp_path, name):
    adata = open_data(written(tmp_path / "a.h5ad", table(23)), stream=True)
    adata.write_h5ad(tmp_path / name) if name == "b.h5ad" else adata.write_zarr(tmp_path / name)
    again = open_data(tmp_path / name, stream=False)
    np.testing.assert_array_equal(again.X.toarray(), adata.X.to_memory().toarray())
    assert again.obs_names.tolist() == adata.obs_names.tolist()


@pytest.mark.parametrize("name", ["b.h5ad", "b.zarr"])
def test_tables_of_results(tmp_path, name):
    adata = open_data(written(tmp_path / "a.h5ad", table(23).rename_axis("barcode")), stream=True)
    adata.obs["number"] = adata.obs["number"] + 1
    adata.obs.loc["c3", "small"] = 100
    with matrix_writer(tmp_path / name, adata.obs, adata.var) as writer:
        writer.append(np.ones((23, 6), np.float32))
    found = anndata.read_h5ad(tmp_path / name) if name == "b.h5ad" else anndata.read_zarr(tmp_path / name)
    assert_same(adata.obs, found.obs)
    assert found.obs["small"].iloc[3] == 100


def test_columns_can_be_changed(tmp_path):
    path = written(tmp_path / "a.h5ad", table(23))
    adata = open_data(path, stream=True)
    adata.obs["new"] = np.arange(23)
    adata.obs.loc["c3", "number"] = 77
    adata.obs["score"] = adata.obs["score"].fillna(0.0)
    assert adata.obs["number"].iloc[3] == 77
    assert open_data(path, stream=True).obs["number"].iloc[3] != 77


def test_another_order(tmp_path, rng):
    obs = open_data(written(tmp_path / "a.h5ad", table(23)), stream=True).obs
    order = rng.permutation(23)
    assert_same(reordered(obs, order), obs.iloc[order])


def test_shards_have_the_names_of_their_cells(tmp_path):
    adata = open_data(written(tmp_path / "a.h5ad", table(23)), stream=True)
    found = anndata.read_zarr(shard(adata, tmp_path / "s.zarr"))
    assert found.obs_names.tolist() == adata.obs_names[found.obs["_celbo_row"].to_numpy()].tolist()


@pytest.mark.parametrize("compared", [1, 10, 1000])
def test_names_that_are_there_already(rng, monkeypatch, compared):
    monkeypatch.setattr(obs_tables, "COMPARED", compared)
    hashes = [rng.integers(0, 40, n).astype(np.uint64) * np.uint64(2**58 + 3) for n in (0, 30, 50)]
    assert obs_tables._n_repeated(hashes) == 80 - len(np.unique(np.concatenate(hashes)))
    assert obs_tables._n_repeated([hashes[0]]) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pd.Categorical(["a", "b"], ["b", "a"]), pd.Categorical(["a", None], ["b", "a"])),
        (pd.Categorical(["x", "b"]), pd.Categorical([None, "a"])),
        (pd.Categorical([3, 1]), pd.Categorical([2, 1])),
        (pd.Categorical(["S", "L"], ["S", "M", "L"], ordered=True), pd.Categorical(["L"], ["L", "S"])),
    ],
)
@pytest.mark.parametrize("compact", [True, False])
def test_categories_are_united_as_pandas_does(first, second, compact):
    found = obs_tables._united([first, second], compact)
    plain = [one if first.dtype == second.dtype else one.as_unordered() for one in (first, second)]
    assert found.tolist() == union_categoricals(plain).tolist()
    assert found.dtype == union_categoricals(plain, sort_categories=first.dtype != second.dtype).dtype


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8"])
def test_codes_of_other_types(tmp_path, dtype):
    path = written(tmp_path / "a.h5ad", table(23))
    with h5py.File(path, "r+") as file:
        codes = file["obs/size/codes"][:]
        del file["obs/size/codes"]
        file["obs/size/codes"] = codes.astype(dtype)
    found = open_data(path, stream=True).obs["size"]
    assert found.tolist() == table(23)["size"].tolist()
    assert found.cat.codes.dtype == np.int8


@pytest.mark.parametrize(("code", "dtype"), [(3, "i1"), (-2, "i1"), (259, "i8"), (0.5, "f4")])
def test_codes_of_no_category(tmp_path, code, dtype):
    path = written(tmp_path / "a.h5ad", table(23))
    with h5py.File(path, "r+") as file:
        codes = file["obs/size/codes"][:].astype(dtype)
        codes[20] = code
        del file["obs/size/codes"]
        file["obs/size/codes"] = codes
    with pytest.raises(DamagedDataError, match=r"a\.h5ad.*(row 20 has the code|not whole numbers)"):
        open_data(path, stream=True)
