"""Matrices that stay on disk: any index, many files, and what damage is called."""

import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from celbo.data import StoredMatrix, check_counts
from celbo.data import open as open_data
from celbo.store.damage import ChangedFileError, DamagedDataError
from celbo.store.matrices.matrix import stored_matrix
from celbo.store.part import StoredPart

N, G = 60, 7


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.7, (N, G)).astype(np.float32)
    x[5] = 0
    return x


def write(folder, x, name="cells.h5ad", convert=sparse.csr_matrix, **options):
    adata = anndata.AnnData(convert(x))
    path = folder / name
    if path.suffix == ".zarr":
        anndata.io.write_zarr(path, adata, **options)
    else:
        adata.write_h5ad(path, **options)
    return path


@pytest.fixture(params=["h5ad", "gzip", "dense", "zarr", "zarr dense", "two files"])
def stored(request, x, tmp_path):
    kind = request.param
    if kind == "two files":
        paths = [write(tmp_path, x[:13], "a.h5ad"), write(tmp_path, x[13:], "b.zarr")]
        return open_data(paths, stream=True).X
    convert = np.asarray if "dense" in kind else sparse.csr_matrix
    name = "cells.zarr" if "zarr" in kind else "cells.h5ad"
    options = {"compression": "gzip"} if kind == "gzip" else {}
    return open_data(write(tmp_path, x, name, convert, **options), stream=True).X


pytestmark = pytest.mark.filterwarnings(
    "ignore:Writing zarr v2 data", "ignore:Observation names are not unique", "ignore:Variable names are not unique"
)

INDICES = [
    slice(None),
    slice(3, 50, 4),
    7,
    -1,
    [9, 2, 2, 59],
    np.arange(N) % 3 == 0,
    (slice(2, 9), slice(1, 3)),
    (np.array([4, 1]), np.array([5, 0])),
    np.ix_([40, 3], [6, 2, 0]),
    [],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_any_index(stored, x, index):
    row, column = index if isinstance(index, tuple) else (index, slice(None))
    rows, columns = (i if isinstance(i, slice) else np.ravel(i) for i in (row, column))
    wanted = x[rows if isinstance(rows, slice) or rows.dtype == bool else rows.astype(int)][:, columns]
    np.testing.assert_array_equal(stored[index].toarray(), wanted)


def test_whole_and_some_columns(stored, x):
    assert stored.shape == (N, G)
    np.testing.assert_array_equal(stored.to_memory().toarray(), x)
    np.testing.assert_array_equal(stored.with_columns(np.array([5, 1])).to_memory().toarray(), x[:, [5, 1]])
    assert stored.copy() is stored
    with pytest.raises(TypeError, match="cannot be written"):
        stored[0] = 1


def test_memory_of_a_row_is_that_of_its_values(stored, x):
    assert stored.bytes_per_row == pytest.approx(8 + 8 * np.count_nonzero(x) / N, rel=0.2)


def test_an_anndata_with_it_gives_views(stored, x):
    adata = anndata.AnnData(stored)
    np.testing.assert_array_equal(adata[[4, 30, 2]].X.toarray(), x[[4, 30, 2]])
    np.testing.assert_array_equal(adata[3:6, 2:4].to_memory().X.toarray(), x[3:6, 2:4])


def test_counts_are_looked_at_once(stored, x, monkeypatch):
    report = check_counts(stored)
    np.testing.assert_array_equal(report.total_per_cell, x.sum(1))

    def fail(*args):
        raise AssertionError("read again")

    monkeypatch.setattr(StoredPart, "read", fail)
    assert check_counts(stored).nnz == np.count_nonzero(x)


def test_by_columns_is_refused_with_what_to_do(x, tmp_path):
    path = write(tmp_path, x, convert=sparse.csc_matrix)
    with pytest.raises(ValueError, match=r"stored by columns.*tocsr"):
        open_data(path, stream=True)
    np.testing.assert_array_equal(open_data(path).X.toarray(), x)  # fits in memory


class TestDamage:
    @pytest.fixture
    def large(self):
        rng = np.random.default_rng(1)
        return sparse.random(3000, 20, 0.4, format="csr", dtype=np.float32, random_state=rng)

    def chunks(self, folder, name):
        return sorted(
            path
            for path in (folder / "X" / name).rglob("*")
            if path.is_file() and not path.name.startswith((".z", "zarr"))
        )

    def zarr(self, tmp_path, large):
        return write(tmp_path, large, "cells.zarr", chunks=(1000, 20))

    def test_truncated_h5ad(self, tmp_path, large):
        path = write(tmp_path, large)
        path.write_bytes(path.read_bytes()[:20_000])
        with pytest.raises(DamagedDataError, match=r"cells\.h5ad \(20000 bytes\) cannot be read"):
            open_data(path, stream=True)

    def test_damaged_chunk_of_h5ad_names_file_and_rows(self, tmp_path, large):
        path = write(tmp_path, large, compression="gzip")
        with h5py.File(path) as file:
            place = file["X/data"].id.get_chunk_info(0)
        with path.open("r+b") as file:
            file.seek(place.byte_offset + 5)
            file.write(b"\x00" * 50)
        x = open_data(path, stream=True).X
        with pytest.raises(DamagedDataError, match=r"Rows 10 to 19 of .*cells\.h5ad \(X\) cannot be read"):
            x[10:20]

    def test_truncated_chunk_of_zarr(self, tmp_path, large):
        path = self.zarr(tmp_path, large)
        chunk = self.chunks(path, "data")[0]
        chunk.write_bytes(chunk.read_bytes()[:30])
        with pytest.raises(DamagedDataError, match=r"Rows 0 to \d+ of .*cells\.zarr"):
            open_data(path, stream=True).X.to_memory()

    @pytest.mark.parametrize("name", ["data", "indices"])
    def test_missing_chunk_of_zarr_is_not_zeros(self, tmp_path, large, name):
        path = self.zarr(tmp_path, large)
        self.chunks(path, name)[0].unlink()
        with pytest.raises(DamagedDataError, match=rf"cells\.zarr.*chunks of '{name}' are missing.* rows 0 to \d+"):
            open_data(path, stream=True)

    def test_columns_out_of_range(self, tmp_path, large):
        path = write(tmp_path, large)
        with h5py.File(path, "r+") as file:
            file["X/indices"][400] = 20_000
        row = int(np.searchsorted(large.indptr, 400, side="right")) - 1
        x = open_data(path, stream=True).X
        with pytest.raises(
            DamagedDataError, match=rf"Rows {row} to {row} .*row {row} has an entry in column 20000, the matrix has 20"
        ):
            x[row]

    def test_row_pointers_that_do_not_fit(self, tmp_path, large):
        path = write(tmp_path, large)
        with h5py.File(path, "r+") as file:
            file["X/indptr"][-1] = 10**9
        with pytest.raises(DamagedDataError, match="do not fit"):
            open_data(path, stream=True)

    def test_rows_are_counted_within_their_file(self, tmp_path, large):
        first, second = write(tmp_path, large, "a.h5ad"), write(tmp_path, large, "b.h5ad")
        with h5py.File(second, "r+") as file:
            file["X/indices"][0] = -3
        x = open_data([first, second], stream=True).X
        with pytest.raises(DamagedDataError, match=r"Rows 0 to 0 of .*b\.h5ad"):
            x[3000]


class TestChange:
    def test_file(self, x, tmp_path):
        path = write(tmp_path, x)
        matrix = open_data(path, stream=True).X
        matrix.check_unchanged(thorough=True)
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ChangedFileError, match=r"cells\.h5ad was changed"):
            matrix.check_unchanged()

    @pytest.mark.parametrize("how", ["replaced", "gone"])
    def test_chunk_of_zarr(self, x, tmp_path, how):
        path = write(tmp_path, x, "cells.zarr")
        matrix = open_data(path, stream=True).X
        matrix.check_unchanged()
        chunk = TestDamage().chunks(path, "data")[0]
        shutil.copy(chunk, tmp_path / "copy")
        chunk.unlink()
        if how == "replaced":
            Path(tmp_path / "copy").rename(chunk)
        with pytest.raises(ChangedFileError, match=r"cells\.zarr .* (was changed|is gone)"):
            matrix.check_unchanged()

    def test_store_as_a_whole(self, x, tmp_path):
        path = write(tmp_path, x, "cells.zarr")
        matrix = open_data(path, stream=True).X
        shutil.rmtree(path)
        with pytest.raises(ChangedFileError, match="is gone"):
            matrix.check_unchanged()


def test_matrix_of_anndata_is_taken_over(x, tmp_path):
    backed = anndata.read_h5ad(write(tmp_path, x), backed="r")
    matrix = stored_matrix(backed.X)
    assert isinstance(matrix, StoredMatrix)
    assert matrix.files == [tmp_path / "cells.h5ad"]
    assert stored_matrix(matrix) is matrix
    backed.file.close()
