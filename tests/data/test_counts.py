from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.core.rules import SCVI_TOOLS, followed
from celbo.data import check_counts
from celbo.data.counts import is_count_matrix, looks_like_reads
from celbo.model import SCVI

N, G = 41, 7
STORAGES = ["dense", "frame", "csr_matrix", "csr_array", "csc_matrix", "csc_array", "coo_matrix"]
STORAGES += ["dense_backed", "csr_backed", "csc_backed", "dask_dense", "dask_csr", "zarr_dense", "zarr_csr"]


def counts(seed=0, dtype=np.float32):
    return np.random.default_rng(seed).poisson(0.8, (N, G)).astype(dtype)


@pytest.fixture
def store(tmp_path):
    """Function (name, dense array) -> the same matrix in that storage."""
    opened = []

    def build(name, x):
        if name == "dense":
            return x
        if name == "frame":
            return pd.DataFrame(x)
        if name.endswith("_backed"):
            form = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}[name.removesuffix("_backed")]
            path = tmp_path / f"{len(opened)}.h5ad"
            anndata.AnnData(form(x)).write_h5ad(path)
            opened.append(anndata.read_h5ad(path, backed="r"))
            return opened[-1].X
        if name.startswith("dask_"):
            da = pytest.importorskip("dask.array")
            whole = da.from_array(x, chunks=(13, G))
            return whole.map_blocks(sp.csr_matrix) if name == "dask_csr" else whole
        if name.startswith("zarr_"):
            return _in_zarr(name, x, tmp_path)
        return getattr(sp, name)(x)

    yield build
    for adata in opened:
        adata.file.close()


def _in_zarr(name, x, tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / name), mode="w")
    anndata.io.write_elem(group, "x", x if name == "zarr_dense" else sp.csr_matrix(x))
    return group["x"] if name == "zarr_dense" else anndata.io.sparse_dataset(group["x"])


@pytest.mark.parametrize("chunk_rows", [None, 1, 5])
@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_storage_gives_the_dense_answer(store, name, chunk_rows):
    x = counts()
    x[3], x[:, 2] = 0, 0
    report = check_counts(store(name, x), chunk_rows=chunk_rows)
    np.testing.assert_allclose(report.total_per_cell, x.sum(1, dtype=np.float64))
    np.testing.assert_array_equal(report.genes_per_cell, (x != 0).sum(1))
    np.testing.assert_array_equal(report.cells_per_gene, (x != 0).sum(0))
    assert (report.n_cells, report.n_genes, report.nnz, report.max) == (N, G, (x != 0).sum(), x.max())
    empty = np.flatnonzero(x.sum(1) == 0)
    assert report.n_empty_cells == len(empty)
    assert report.first["empty_cells"] == tuple(map(str, empty[:5]))
    assert report.first["empty_genes"] == ("2",)
    assert report.is_counts
    assert report.density == pytest.approx((x != 0).mean())


BAD = {"nan": np.nan, "inf": np.inf, "negative": -2.0, "noninteger": 1.5}


@pytest.mark.parametrize("row", [0, 5, N - 1], ids="row{}".format)
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_one_bad_entry_is_found_wherever_it_is(store, name, kind, row):
    x = counts()
    x[row, row % G] = BAD[kind]
    report = check_counts(store(name, x), obs_names=[f"cell{i}" for i in range(N)], chunk_rows=5)
    assert {k: getattr(report, f"n_{k}") for k in BAD} == {k: int(k == kind) for k in BAD}
    assert report.first[kind] == (f"cell{row}",)
    assert report.n_cells_with[kind] == 1
    assert not report.is_counts
    severity = "warning" if kind == "noninteger" else "error"
    assert report.findings()[0].severity == severity
    assert not is_count_matrix(store(name, x))


def test_many_bad_entries_are_counted_exactly():
    x = counts(dtype=np.float64)
    x[[1, 8, 30]] = -0.5
    x[2, 0], x[2, 1], x[40, 0], x[7, :3] = np.inf, -np.inf, np.nan, np.nan
    for form in (np.asarray, sp.csr_matrix, sp.csc_array):
        report = check_counts(form(x), chunk_rows=4)
        assert (report.n_negative, report.n_noninteger, report.n_inf, report.n_nan) == (3 * G, 3 * G, 2, 4)
        assert report.first["negative"] == ("1", "8", "30")
        assert report.first["nan"] == ("7", "40")
        assert report.first["inf"] == ("2",)
        assert report.n_cells_with == {"nan": 2, "inf": 1, "negative": 3, "noninteger": 3}


def test_raise_and_tell(log):
    x = counts()
    report = check_counts(x)
    report.raise_if_bad()
    x[5, 0], x[9] = -1, 0
    report = check_counts(x)
    with pytest.raises(ValueError, match=r"adata.X holds 1 negative value in 1 of 41 cells \('5'\).*layer='counts'"):
        report.raise_if_bad("adata.X")
    report.tell("adata.X")
    assert any("1 of 41 cells has no counts ('9')" in message for message in log)
    x[5, 0], x[8, 1] = 0, 0.25
    with pytest.warns(UserWarning, match=r"1 of .* nonzero values are not whole numbers.*use layer='counts'"):
        check_counts(x).tell("adata.X", ["layer='counts'"])


def test_bad_counts_can_be_a_warning_as_in_scvi_tools():
    x = counts().astype(np.float64)
    x[5, 0], x[6, 0] = -1, np.nan
    report = check_counts(x)
    with followed(SCVI_TOOLS):
        report.raise_if_bad("adata.X")
        with pytest.warns(UserWarning, match="Are you sure") as warned:
            report.tell("adata.X")
    shown = " ".join(str(warning.message) for warning in warned)
    assert "adata.X does not contain unnormalized count data. Are you sure this is what you want?" in shown
    assert "1 negative value in 1 of" in shown
    assert "1 NaN value in 1 of" in shown
    with pytest.raises(ValueError, match=r"holds 1 NaN value.* holds 1 negative value"):
        report.raise_if_bad("adata.X")


def test_the_warning_points_at_the_line_of_the_user():
    adata = anndata.AnnData(counts() + 0.25)
    with pytest.warns(UserWarning, match="are not whole numbers") as warned:
        SCVI.setup_anndata(adata)
    assert [Path(one.filename).name for one in warned] == [Path(__file__).name]


def test_all_nan_and_empty_matrices():
    report = check_counts(np.full((3, 2), np.nan))
    assert (report.n_nan, report.max) == (6, 0.0)
    for x in (np.zeros((0, 4)), np.zeros((4, 0)), sp.csr_matrix((0, 4)), sp.csc_matrix((4, 0))):
        report = check_counts(x)
        assert report.is_counts
        assert report.density == 0
    assert check_counts(sp.csr_matrix((4, 3))).n_empty_cells == 4
    assert check_counts(np.zeros((0, 4))).totals.mean == 0


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
def test_stored_zeros_are_zeros(form):
    x = form(counts())
    x.data[:] = np.where(np.arange(x.nnz) % 2, x.data, 0)
    dense = x.toarray()
    report = check_counts(x, chunk_rows=3)
    assert report.nnz == (dense != 0).sum() < x.nnz
    np.testing.assert_array_equal(report.genes_per_cell, (dense != 0).sum(1))
    np.testing.assert_array_equal(report.cells_per_gene, (dense != 0).sum(0))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, np.bool_, np.float64, np.float16])
def test_every_number_type(dtype):
    x = (counts() > 0).astype(dtype)
    for form in (np.asarray, sp.csr_matrix) if dtype is not np.float16 else (np.asarray,):
        report = check_counts(form(x))
        assert report.is_counts
        np.testing.assert_array_equal(report.total_per_cell, x.sum(1, dtype=np.float64))
    if np.issubdtype(dtype, np.signedinteger):
        x[4, 4] = -1
        assert check_counts(x).n_negative == 1


def test_sums_are_exact_beyond_float32():
    x = np.full((2, 5), 2.0**24, dtype=np.float32)
    x[:, 0] = 1
    np.testing.assert_array_equal(check_counts(sp.csr_matrix(x)).total_per_cell, [4 * 2.0**24 + 1] * 2)


def test_what_is_no_matrix_of_numbers():
    with pytest.raises(TypeError, match="real numbers, this one is of dtype object"):
        check_counts(np.array([["a", "b"]], dtype=object))
    with pytest.raises(ValueError, match=r"cells by genes, got an array of shape \(3,\)"):
        check_counts(np.zeros(3))
    with pytest.raises(TypeError, match="x must be a matrix of cells by genes"):
        check_counts([[1, 2]])
    with pytest.raises(ValueError, match="chunk_rows must be a whole number of at least 1"):
        check_counts(counts(), chunk_rows=0)


def test_progress_ends_at_the_total():
    seen = []
    check_counts(counts(), chunk_rows=10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, N), (20, N), (30, N), (40, N), (N, N)]


def test_nothing_is_changed_or_kept():
    x = sp.csr_matrix(counts())
    before = x.copy()
    check_counts(x)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(x, part), getattr(before, part))


def test_reads_have_more_twos_than_ones():
    x = counts()
    assert not looks_like_reads(x)
    assert looks_like_reads(sp.csr_matrix(x * 2))


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_array])
def test_entries_outside_of_a_sparse_matrix_are_found(make):
    x = make(np.eye(4, 3, dtype=np.float32))
    x.indices[1] = 2**28
    length = x.shape[0 if x.format == "csc" else 1]
    with pytest.raises(ValueError, match=rf"damaged: .* in (row|column) {2**28}, there are {length}"):
        check_counts(x)
