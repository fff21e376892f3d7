"""Compact names of cells answer as an index of plain strings does."""

import copy
import pickle
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.store.tables import names as cell_names
from celbo.store.tables.names import CellNames, names_of
from celbo.store.writing.anndata import CAN_WRITE

NAMES = [f"cell_{i}" for i in range(40)] + ["", "é-ß", "細胞", "a" * 3000, "cell_0 ", "\U0001f9ec"]


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch):
    monkeypatch.setattr(cell_names, "STEP", 7)


@pytest.fixture
def index():
    return pd.Index(CellNames.from_pieces(lambda: [NAMES[:9], [], NAMES[9:]]), name="cell")


@pytest.fixture
def plain():
    return pd.Index(NAMES, name="cell", dtype=object)


@pytest.fixture
def adata(index):
    x = sparse.csr_matrix(np.arange(3 * len(NAMES), dtype=np.float32).reshape(-1, 3))
    obs = pd.DataFrame({"kind": pd.Categorical(np.arange(len(NAMES)) % 3)}, index=index)
    with anndata.settings.override(check_uniqueness=False):
        return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abc")))


@pytest.mark.parametrize(
    "some", [slice(None, 5), slice(3, None, 4), slice(30, 2, -3), [4, 2, 2, -1], np.arange(46) % 2 == 0, []]
)
def test_some_are_plain_strings(index, plain, some):
    found = index[np.asarray(some, int) if isinstance(some, list) else some]
    wanted = plain[np.asarray(some, int) if isinstance(some, list) else some]
    assert found.dtype == object
    pd.testing.assert_index_equal(found, wanted)


@pytest.mark.parametrize(
    "ask",
    {
        "one": lambda i: i[43],
        "last": lambda i: i[-1],
        "list": lambda i: list(i),
        "array": lambda i: i.to_numpy().tolist(),
        "str": lambda i: i.str.upper().tolist(),
        "split": lambda i: i.str.split("_").str[0].tolist(),
        "astype": lambda i: i.astype(str).tolist(),
        "isin": lambda i: i.isin(["é-ß", "nobody"]).tolist(),
        "equals": lambda i: i.equals(pd.Index(NAMES)),
        "equals not": lambda i: i.equals(pd.Index(NAMES[::-1])),
        "equals shorter": lambda i: i.equals(pd.Index(NAMES[:4])),
        "lookup": lambda i: i.get_indexer(["細胞", "nobody", ""]).tolist(),
        "location": lambda i: i.get_loc("cell_3"),
        "compare": lambda i: (i == "cell_3").tolist(),
        "unique": lambda i: (i.is_unique, i.nunique()),
        "append": lambda i: i.append(pd.Index(["x"])).tolist(),
        "append same": lambda i: i.append(i).tolist(),
        "sort": lambda i: i.sort_values().tolist(),
        "map": lambda i: i.map(len).tolist(),
        "union": lambda i: sorted(i.union(pd.Index(["zz"]))),
        "missing": lambda i: i.isna().any(),
        "take with fill": lambda i: i.take([0, -1], allow_fill=True, fill_value="none").tolist(),
        "reindex": lambda i: pd.Series(range(46), index=i).reindex(["cell_5", "nobody"]).fillna(-1).tolist(),
        "series": lambda i: pd.Series(i).head(3).tolist(),
        "frame": lambda i: pd.DataFrame({"x": range(46)}, index=i).loc["細胞", "x"],
        "reset": lambda i: pd.DataFrame({"x": range(46)}, index=i).reset_index().query("x < 3")["cell"].tolist(),
        "sorted frame": lambda i: pd.DataFrame({"x": range(46)}, index=i).sort_index().index.tolist(),
        "join": lambda i: (
            pd.DataFrame({"x": range(46)}, index=i).join(pd.Series([1], index=["cell_1"], name="y")).y.sum()
        ),
        "concat": lambda i: pd.concat([pd.DataFrame({"x": range(46)}, index=i)] * 2).index.tolist(),
        "pickle": lambda i: pickle.loads(pickle.dumps(i)).tolist(),
        "deepcopy": lambda i: copy.deepcopy(i).tolist(),
    }.items(),
    ids=lambda item: item[0],
)
def test_answers_as_plain_strings_do(index, plain, ask):
    assert ask[1](index) == ask[1](plain)


def test_all_of_them_are_the_same_array(index):
    assert index[np.ones(46, bool)].array is index.array
    assert names_of(index) is index.array
    assert names_of(pd.Index(NAMES)) is None


def test_size_is_that_of_the_text(index):
    assert index.array.nbytes == sum(len(name.encode()) for name in NAMES) + 8 * 47


def test_equal_names_have_equal_hashes(index):
    twice = index.append(index).array.hashes()
    assert len(np.unique(twice)) == len(NAMES)
    np.testing.assert_array_equal(twice[:46], twice[46:])


@pytest.mark.skipif(not CAN_WRITE, reason="this anndata has no place for writers")
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
def test_anndata_writes_them(adata, tmp_path, name, options):
    path = tmp_path / name
    adata.write_h5ad(path, **options) if name == "a.h5ad" else adata.write_zarr(path)
    found = anndata.read_h5ad(path) if name == "a.h5ad" else anndata.read_zarr(path)
    assert found.obs_names.tolist() == NAMES
    pd.testing.assert_series_equal(found.obs["kind"].reset_index(drop=True), adata.obs["kind"].reset_index(drop=True))


WRITES = """
import sys
from pathlib import Path
import pandas as pd
from celbo.store.tables.names import CellNames
from celbo.store.writing.matrix import new_anndata, write_table
names = pd.Index(CellNames.from_pieces(lambda: [["a", "b"]]))
with new_anndata(Path(sys.argv[1]), overwrite=False) as root:
    write_table(root, "obs", pd.DataFrame(index=names))
    write_table(root, "var", pd.DataFrame(index=["g"]))
"""


def test_a_process_that_opened_nothing_writes_them(tmp_path):
    command = [sys.executable, "-W", "error", "-c", WRITES, str(tmp_path / "two.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(anndata.read_h5ad(tmp_path / "two.h5ad").obs_names) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_subsets_and_copies_of_an_anndata(adata, tmp_path):
    some = adata[[3, 1]].copy()
    assert some.obs_names.tolist() == ["cell_3", "cell_1"]
    some.write_h5ad(tmp_path / "some.h5ad")
    assert adata.copy().obs_names.tolist() == NAMES
    assert anndata.concat([adata, some]).n_obs == 48
    assert adata["細胞"].X.toarray().tolist() == adata.X[42].toarray().tolist()
