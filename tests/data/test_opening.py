"""``celbo.data.open``: many files as one AnnData, and what decides between loading and streaming."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import StoredMatrix, opening, top_variable_genes
from celbo.data import open as open_data
from celbo.data.inputs import input_paths
from celbo.data.opening import is_streamed, with_genes
from celbo.store.memory import available_memory, readable_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data", "ignore:Variable names are not unique")


def cells(n, genes, prefix="c", **obs):
    rng = np.random.default_rng(n)
    x = rng.poisson(1.0, (n, len(genes))).astype(np.float32)
    table = pd.DataFrame(obs, index=[f"{prefix}{i}" for i in range(n)])
    return anndata.AnnData(sparse.csr_matrix(x), obs=table, var=pd.DataFrame(index=list(genes)))


@pytest.fixture
def write(tmp_path):
    def write(adata, name):
        path = tmp_path / name
        adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)
        return path

    return write


class TestOneFile:
    @pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
    def test_streams_what_it_holds(self, write, name):
        adata = cells(30, "abcd", batch=pd.Categorical(["x", "y"] * 15))
        adata.layers["counts"] = adata.X.toarray()
        adata.obsm["place"], adata.uns["note"] = np.ones((30, 2)), {"by": "é"}
        found = open_data(write(adata, name), stream=True)
        assert is_streamed(found)
        for x in (found.X, found.layers["counts"]):
            np.testing.assert_array_equal(x.to_memory().toarray(), adata.X.toarray())
        pd.testing.assert_frame_equal(found.obs, adata.obs)
        np.testing.assert_array_equal(found.obsm["place"][:], adata.obsm["place"])
        assert found.uns["note"]["by"] == "é"

    def test_layers_that_are_asked_for(self, write):
        adata = cells(5, "ab")
        adata.layers["one"], adata.layers["two"] = adata.X.copy(), adata.X.copy()
        path = write(adata, "a.h5ad")
        assert list(open_data(path, stream=True, layers=["two"]).layers) == ["two"]
        with pytest.raises(KeyError, match=r"a\.h5ad.*'tow'.*'two'"):
            open_data(path, stream=True, layers=["tow"])

    def test_chooses_by_what_fits(self, write, monkeypatch, log):
        path = write(cells(30, "abcd"), "a.h5ad")
        assert not is_streamed(open_data(path))
        assert log == []  # plainly fits
        monkeypatch.setattr(opening, "available_memory", lambda: 100)
        assert is_streamed(open_data(path))
        assert "streamed from disk" in log[0]
        assert not is_streamed(open_data(path, stream=False))

    def test_shapes_that_do_not_fit_are_damage(self, write):
        import h5py

        path = write(cells(5, "ab"), "a.h5ad")
        with h5py.File(path, "r+") as file:
            file["X"].attrs["shape"] = [5, 3]
        with pytest.raises(ValueError, match=r"a\.h5ad: X is 5 x 3, but obs has 5 rows and var 2"):
            open_data(path, stream=True)


class TestManyFiles:
    def test_genes_are_matched_by_name(self, write, log):
        first, second = cells(4, "abcd"), cells(6, "dxba", "other")
        found = open_data([write(first, "a.h5ad"), write(second, "b.zarr")], stream=True)
        assert list(found.var_names) == ["a", "b", "d"]
        wanted = np.concatenate([first[:, list("abd")].X.toarray(), second[:, list("abd")].X.toarray()])
        np.testing.assert_array_equal(found.X.to_memory().toarray(), wanted)
        assert "3 are in all files" in log[0]

    def test_loaded_is_what_is_streamed(self, write):
        paths = [write(cells(4, "abcd"), "a.h5ad"), write(cells(6, "dcba", "other"), "b.h5ad")]
        streamed, loaded = open_data(paths, stream=True), open_data(paths, stream=False)
        assert sparse.issparse(loaded.X)
        np.testing.assert_array_equal(streamed.X.to_memory().toarray(), loaded.X.toarray())
        pd.testing.assert_frame_equal(streamed.obs, loaded.obs)

    def test_no_gene_in_common(self, write):
        with pytest.raises(ValueError, match=r"no gene in common.*'a', 'b'.*'x'"):
            open_data([write(cells(4, "ab"), "a.h5ad"), write(cells(4, "x"), "b.h5ad")])

    def test_gene_that_is_twice_in_one_of_them(self, write):
        twice = cells(4, "abc")
        twice.var_names = ["a", "b", "b"]
        with pytest.raises(ValueError, match=r"more than once \('b'\)"):
            open_data([write(cells(4, "ab"), "a.h5ad"), write(twice, "b.h5ad")])

    def test_names_of_cells_in_two_files(self, write, log):
        paths = [write(cells(3, "ab"), "one.h5ad"), write(cells(4, "ab"), "two.h5ad")]
        names = open_data(paths, stream=True).obs_names
        assert names.is_unique
        assert list(names[:1]) + list(names[3:4]) == ["c0-one", "c0-two"]
        assert "3 names of cells are in several files" in log[0]

    def test_categories_are_united(self, write):
        first = cells(3, "ab", donor=pd.Categorical(["é", "", "a"]), same=pd.Categorical(["z", "y", "z"], ["z", "y"]))
        second = cells(2, "ab", "o", donor=["b", "é"], same=pd.Categorical(["y", "z"], ["z", "y"]), more=[1, 2])
        obs = open_data([write(first, "a.h5ad"), write(second, "b.h5ad")], stream=True).obs
        assert list(obs["donor"]) == ["é", "", "a", "b", "é"]
        assert list(obs["donor"].cat.categories) == ["", "a", "b", "é"]
        assert list(obs["same"].cat.categories) == ["z", "y"]  # the order of all files
        assert "more" not in obs

    def test_columns_of_every_dtype(self, write):
        def table(n):
            return {
                "int": np.arange(n, dtype=np.int8),
                "float": np.linspace(0, 1, n),
                "bool": np.arange(n) % 2 == 0,
                "text": [f"é{i}" for i in range(n)],
                "ordered": pd.Categorical(["lo", "hi"] * (n // 2), ["lo", "hi"], ordered=True),
                "nullable": pd.array([1, None] * (n // 2), dtype="Int64"),
                "mask": pd.array([True, None] * (n // 2), dtype="boolean"),
            }

        parts = [cells(n, "ab", f"{n}-", **table(n)) for n in (4, 6)]
        obs = open_data([write(part, f"{i}.h5ad") for i, part in enumerate(parts)], stream=True).obs
        wanted = pd.concat([part.obs for part in parts])
        pd.testing.assert_frame_equal(obs, wanted, check_categorical=True, check_dtype=False)
        assert obs["ordered"].cat.ordered
        assert obs["nullable"].dtype == "Int64"
        assert obs["int"].dtype == np.int8

    def test_many_donors(self, write):
        names = [f"donor_{i}" for i in range(20_000)]
        halves = [names[:12_000], names[8_000:]]
        parts = [
            anndata.AnnData(
                sparse.csr_matrix((len(half), 1), dtype=np.float32),
                obs=pd.DataFrame({"d": pd.Categorical(half)}, index=half),
            )
            for half in halves
        ]
        obs = open_data([write(part, f"{i}.h5ad") for i, part in enumerate(parts)], stream=True).obs
        assert len(obs["d"].cat.categories) == 20_000
        assert list(obs["d"]) == halves[0] + halves[1]

    def test_layers_that_all_have(self, write, log):
        first, second = cells(3, "ab"), cells(2, "ab", "o")
        first.layers["counts"], second.layers["counts"], second.layers["else"] = first.X, second.X, second.X
        found = open_data([write(first, "a.h5ad"), write(second, "b.h5ad")], stream=True)
        assert list(found.layers) == ["counts"]
        assert "else" in log[0]


class TestPaths:
    def test_a_folder_by_name(self, write, tmp_path):
        (tmp_path / "notes.txt").write_text("not data")
        paths = [write(cells(2, "a"), name) for name in ("b.zarr", "a.h5ad")]
        assert input_paths(tmp_path) == sorted(paths)

    def test_what_is_wrong_is_said(self, write, tmp_path):
        path = write(cells(2, "a"), "a.h5ad")
        (tmp_path / "empty").mkdir()
        for given, error, message in [
            ([], ValueError, "No file is named"),
            ([path, tmp_path / "b.h5ad"], FileNotFoundError, r"no file .*b\.h5ad"),
            ([path, path], ValueError, "named more than once"),
            (tmp_path / "empty", ValueError, r"holds no counts .* but nothing.*reads \.h5ad"),
            (tmp_path / "nowhere", FileNotFoundError, "nowhere"),
        ]:
            with pytest.raises(error, match=message):
                open_data(given)


def test_some_genes_of_what_streams(write):
    adata = cells(9, "abcdef")
    wanted = np.array([1, 0, 0, 1, 1, 0], dtype=bool)
    few = with_genes(open_data(write(adata, "a.h5ad"), stream=True), wanted)
    assert isinstance(few.X, StoredMatrix)
    np.testing.assert_array_equal(few.X.to_memory().toarray(), adata[:, wanted].X.toarray())
    assert list(few.var_names) == ["a", "d", "e"]
    assert top_variable_genes(few.X, 2).sum() == 2


def test_memory_is_told():
    free = available_memory()
    assert free is None or 10**6 < free < 10**15
    assert [readable_bytes(size) for size in (7, 7e3, 7e7, 7.25e9)] == ["7 bytes", "7 kB", "70 MB", "7.2 GB"]
