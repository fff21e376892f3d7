import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from celbo.dataloaders import CSRRows, rows
from celbo.dataloaders.row_sources.source import MappedRows, as_indices
from celbo.store.mapped import put
from celbo.store.matrices.matrix import pieces
from celbo.store.tables.columns import put_column

SHAPE = (23, 9)
ORDERS = {
    "forward": np.arange(23),
    "backward": np.arange(23)[::-1],
    "scattered": np.array([7, 3, 21, 0, 12]),
    "repeats": np.array([5, 5, 2, 22, 5, 2]),
    "one": np.array([22]),
    "none": np.array([], dtype=np.int64),
    "run": np.arange(4, 17),
}


@pytest.fixture
def x(rng):
    return rng.poisson(0.6, SHAPE).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_rows_come_in_the_order_asked(storage, order, x):
    got = rows(storage(x)).take(ORDERS[order])
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), x[ORDERS[order]])


@pytest.mark.parametrize("order", ORDERS)
def test_mapped_columns_are_rows_like_others(order, rng):
    plain = pd.DataFrame({"codes": rng.integers(0, 9, 23).astype(np.int8), "scores": rng.normal(size=23)})
    mapped = pd.DataFrame(index=plain.index)
    for name in plain:
        put_column(mapped, name, put(lambda: [plain[name].to_numpy()], plain[name].dtype))  # noqa: B023 (called at once)
    source, wanted = rows(mapped), rows(plain).take(ORDERS[order])
    assert isinstance(source, MappedRows)
    np.testing.assert_array_equal(source.take(ORDERS[order]), wanted)
    ascending, place = np.unique(ORDERS[order], return_inverse=True)
    np.testing.assert_array_equal(source.load(ascending).take(place), wanted)
    one = rows(mapped["codes"].to_numpy()[:, None], np.int64)
    assert isinstance(one, MappedRows)
    np.testing.assert_array_equal(one.take(ORDERS[order])[:, 0], plain["codes"].to_numpy()[ORDERS[order]])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint16", "uint8"])
def test_stored_dtypes_come_out_as_asked(storage, dtype, x):
    source = rows(storage(x.astype(dtype)))
    np.testing.assert_array_equal(source.take([4, 1, 4]).numpy(), x[[4, 1, 4]])


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_asked_dtype(storage, dtype, x):
    got = rows(storage(x), dtype).take([20, 3]).numpy()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x[[20, 3]].astype(dtype))


@pytest.mark.parametrize(
    "columns", [[8, 7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 8], [2, 5, 1, 0, 3, 4, 8, 7, 6], [-1, 8, -1, 2]]
)
def test_columns_reorder_select_and_pad(storage, columns, x):
    source = rows(storage(x), columns=np.array(columns))
    assert source.n_columns == len(columns)
    padded = np.concatenate([x, np.zeros((len(x), 1), np.float32)], axis=1)  # column -1 is the one of zeros
    np.testing.assert_array_equal(source.take([11, 2, 11]).numpy(), padded[[11, 2, 11]][:, columns])


def test_size_is_known(storage, x):
    source = rows(storage(x))
    assert (source.n_rows, source.n_columns, len(source)) == (23, 9, 23)


def test_random_orders_of_wide_rows(storage, rng):
    x = rng.poisson(0.3, (200, 90)).astype(np.float64)
    source = rows(storage(x))
    for _ in range(3):
        order = rng.integers(0, 200, 40)
        np.testing.assert_array_equal(source.take(order).numpy(), x[order])


def test_out_is_filled_whole(storage, x):
    out = torch.full((3, 9), 7.0)
    got = rows(storage(x)).take([9, 0, 9], out=out)
    assert got is out
    np.testing.assert_array_equal(out.numpy(), x[[9, 0, 9]])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(2, 9), r"shape \(3, 9\)"),
        (torch.empty(3, 9, dtype=torch.float64), "float32"),
        (torch.empty(9, 3).T, "contiguous"),
    ],
)
def test_unfit_out_is_refused(out, message, x):
    with pytest.raises(ValueError, match=message):
        rows(x).take([1, 2, 3], out=out)


@pytest.mark.parametrize(("index", "named"), [([1, -24], "-24"), ([23], "23"), ([0, 99, 1], "99")])
def test_index_out_of_range_is_named(storage, index, named, x):
    with pytest.raises(IndexError, match=rf"row {named} \(indices\): there are 23"):
        rows(storage(x)).take(index)


def test_mask_takes_its_rows(x):
    mask = np.zeros(23, bool)
    mask[[3, 19]] = True
    np.testing.assert_array_equal(rows(x).take(mask).numpy(), x[[3, 19]])
    with pytest.raises(IndexError, match="mask"):
        rows(x).take(mask[:5])


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [[1, 2]], ["a"]])
def test_what_is_no_index_is_refused(wrong):
    with pytest.raises(TypeError, match="list of integers"):
        as_indices(wrong, 10)


@pytest.mark.parametrize("array", [sparse.coo_array((3, 4)), sparse.lil_matrix((3, 4)), [[1, 2]], "X"])
def test_unknown_storage_is_named(array):
    with pytest.raises(TypeError, match=rf"{type(array).__qualname__}\. Supported are: .*csr_array"):
        rows(array)


@pytest.mark.parametrize("array", [np.array([["a"]]), pd.DataFrame({"a": ["x"]}), np.array([[1j]])])
def test_tables_of_no_numbers_are_refused(array):
    with pytest.raises(TypeError, match="not numbers"):
        rows(array)


def test_one_dimension_is_one_column_and_three_are_refused():
    assert rows(np.arange(4)).take([3]).tolist() == [[3.0]]
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        rows(np.zeros((2, 2, 2)))


def test_columns_are_checked(x):
    with pytest.raises(IndexError, match="column 9"):
        rows(x, columns=np.array([0, 9]))
    with pytest.raises(ValueError, match="same stored column twice"):
        rows(x, columns=np.array([0, 4, 4]))


def test_rows_are_fresh_each_time(storage, x):
    source = rows(storage(x))
    first = source.take([1, 2])
    first.zero_()
    np.testing.assert_array_equal(source.take([1, 2]).numpy(), x[[1, 2]])


def test_memory_of_csr_is_shared(x):
    matrix = sparse.csr_matrix(x)
    source = rows(matrix)
    assert isinstance(source, CSRRows)
    for mine, theirs in (
        (source.values, matrix.data),
        (source.indices, matrix.indices),
        (source.indptr, matrix.indptr),
    ):
        assert np.shares_memory(mine, theirs)


@pytest.mark.parametrize("columns", [None, [8, 0, 1, 2, 3, 4, 5, 6, 7], [4, 2]])
def test_rows_that_stay_sparse(sparse_storage, columns, x):
    stored = sparse_storage(x)
    source = rows(stored, columns=columns)
    got = source.take_sparse([6, 2, 6])
    assert got.layout == (torch.sparse_csc if getattr(stored, "format", "csr") == "csc" else torch.sparse_csr)
    wanted = x[[6, 2, 6]] if columns is None else x[[6, 2, 6]][:, columns]
    assert got.values().numel() == np.count_nonzero(wanted)
    np.testing.assert_array_equal(got.to_dense().numpy(), wanted)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_sparse_rows_with_columns_out_of_order(repeated, compiled, x, monkeypatch):
    """Entries are put in order where one is there twice, which a whole matrix is asked once."""
    monkeypatch.setattr("celbo.dataloaders.row_sources.sparse.BLOCK", 7)
    if not compiled:
        monkeypatch.setattr("celbo.dataloaders.row_sources.sparse.works", lambda family: False)
    matrix = sparse.csr_matrix(x)[:, ::-1]
    assert not matrix.has_sorted_indices
    wanted = x[:, ::-1].copy()
    if repeated:
        row = int(np.flatnonzero(x.any(1))[-1])
        matrix.indices[matrix.indptr[row + 1] - 1] = matrix.indices[matrix.indptr[row]]
        wanted = matrix.toarray()
    source = rows(matrix)
    assert source.may_repeat_entries == repeated
    got = source.take_sparse(np.arange(len(x)))
    np.testing.assert_array_equal(got.to_dense().numpy(), wanted)
    assert got.values().numel() == np.count_nonzero(wanted)


@pytest.mark.parametrize("columns", [None, [1, 0, 2, 3, 4, 5, 6, 7, 8], [0, 4]])
def test_row_sums(x, columns, monkeypatch):
    monkeypatch.setattr("celbo.dataloaders.row_sources.sparse.BLOCK", 7)
    source = rows(sparse.csr_matrix(x), columns=columns)
    wanted = x if columns is None else x[:, columns]
    np.testing.assert_array_equal(source.row_sums_n, wanted.sum(1, dtype=np.float64))
    assert source.row_sums_n is source.row_sums_n


def test_row_sums_of_large_counts_are_exact():
    x = np.full((2, 3), 2.0**24 - 1, np.float32)
    x[:, 0] = 1
    np.testing.assert_array_equal(rows(sparse.csr_array(x)).row_sums_n, x.astype(np.float64).sum(1))


def test_view_of_anndata(x):
    view = anndata.AnnData(sparse.csr_matrix(x))[[5, 1, 8]]
    np.testing.assert_array_equal(rows(view.X).take([2, 0]).numpy(), x[[8, 5]])


def test_csc_is_converted_once_and_said(x, monkeypatch):
    said = []
    monkeypatch.setattr(
        "celbo.dataloaders.row_sources.sparse.logger.debug", lambda message, *args: said.append(message % args)
    )
    source = rows(sparse.csc_matrix(x))
    source.take([1])
    source.take([2])
    assert said == ["A 23 x 9 matrix in CSC form is converted to CSR once, to read its rows."]


def test_backed_csc_is_loaded_with_a_warning(x, tmp_path):
    anndata.AnnData(sparse.csc_matrix(x)).write_h5ad(tmp_path / "csc.h5ad")
    backed = anndata.read_h5ad(tmp_path / "csc.h5ad", backed="r")
    with pytest.warns(UserWarning, match="loaded into memory and converted to CSR"):
        source = rows(backed.X)
    np.testing.assert_array_equal(source.take([9, 4]).numpy(), x[[9, 4]])
    backed.file.close()


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_closed_file_is_said(x, tmp_path, convert):
    anndata.AnnData(convert(x)).write_h5ad(tmp_path / "closed.h5ad")
    backed = anndata.read_h5ad(tmp_path / "closed.h5ad", backed="r")
    source = rows(backed.X)
    backed.file.close()
    with pytest.raises(ValueError, match="closed"):
        source.take([1])


def test_dask_without_known_shape_is_refused(x):
    import dask.array

    array = dask.array.from_array(x)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        rows(array[array[:, 0] > 0])


@pytest.mark.parametrize(
    ("ascending", "gap", "most", "stretches"),
    [
        ([], 0, 9, []),
        ([3], 0, 9, [(3, 4)]),
        ([0, 1, 2], 0, 9, [(0, 3)]),
        ([0, 2, 3, 9], 0, 9, [(0, 1), (2, 4), (9, 10)]),
        ([0, 2, 3, 9], 1, 9, [(0, 4), (9, 10)]),
        ([0, 2, 3, 9], 5, 10, [(0, 10)]),
        ([0, 2, 3, 9], 5, 3, [(0, 3), (3, 4), (9, 10)]),
        ([0, 1, 2, 3, 4], 0, 2, [(0, 2), (2, 4), (4, 5)]),
    ],
)
def test_pieces(ascending, gap, most, stretches):
    found = list(pieces(np.array(ascending, dtype=np.int64), gap, most))
    assert [(start, stop) for start, stop, _ in found] == stretches
    assert [row for _, _, rows in found for row in rows] == ascending


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_the_compiled_loop_writes_what_scipy_does(index_dtype, rng):
    """Rows without entries, columns out of order and repeated ones; more rows than one thread takes."""
    counts = rng.integers(0, 9, 700).astype(np.int32)
    counts[rng.random(700) < 0.2] = 0
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(index_dtype)
    columns = rng.integers(0, 500, indptr[-1]).astype(np.int32)
    matrix = sparse.csr_array((rng.random(indptr[-1]).astype(np.float32), columns, indptr), shape=(700, 500))
    rows = rng.integers(0, 700, 900)
    found = CSRRows(matrix).take(rows).numpy()
    np.testing.assert_array_equal(found, matrix[rows].toarray())
    assert (CSRRows(matrix)._entries is None) == (index_dtype is np.int64)  # larger than the loop is made for


@pytest.mark.parametrize("n_repeated", [0, 1, 300])
def test_the_compiled_search_finds_repeated_entries(n_repeated, rng):
    """Rows of any length, many for each thread: one entry that is there twice is enough, wherever it is."""
    matrix = sparse.random(3000, 70, 0.1, format="csr", dtype=np.float32, rng=rng)[:, rng.permutation(70)]
    long_rows = np.flatnonzero(np.diff(matrix.indptr) > 2)
    for row in rng.choice(long_rows, n_repeated, replace=False):
        matrix.indices[matrix.indptr[row] + 2] = matrix.indices[matrix.indptr[row]]
    # and a column that a row has in common with the next is none
    assert CSRRows(matrix).may_repeat_entries == (n_repeated > 0)


def test_rows_without_numba(monkeypatch, rng):
    matrix = sparse.random(50, 20, 0.3, format="csr", dtype=np.float32, rng=rng)
    monkeypatch.setattr("celbo.dataloaders.row_sources.sparse.works", lambda family: False)
    source = CSRRows(matrix)
    assert source._entries is None
    np.testing.assert_array_equal(source.take([4, 4, 0]).numpy(), matrix.toarray()[[4, 4, 0]])
