"""Arrays of sparse matrices that do not fit each other: named before compiled code walks along them."""

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from celbo.data import check_counts
from celbo.dataloaders.row_sources.open import rows
from celbo.model import SCVI
from celbo.store.damage import DamagedDataError
from celbo.store.matrices import index_structure
from celbo.store.matrices.index_structure import (
    check_index_structure,
    check_sparse,
    check_stored_columns,
    first_outside,
)

N, G = 30, 8


def matrix(convert=sparse.csr_matrix):
    return convert(np.random.default_rng(0).poisson(0.8, (N, G)).astype(np.float32))


def put(name, at, value):
    def damage(x):
        getattr(x, name)[at] = value

    return damage


def renew(name, change):
    return lambda x: setattr(x, name, change(getattr(x, name)))


FAULTS = {
    "descending": (put("indptr", 5, 1), r"4 begins at entry \d+ and ends before, at 1"),
    "negative": (put("indptr", 7, -3), "6 begins at entry"),
    "beginning": (put("indptr", 0, 2), "begins at entry 2, not at 0"),
    "too_far": (put("indptr", -1, 10**6), "ends at entry 1000000, but"),
    "far_off": (put("indptr", -1, 2**31 - 1), "ends at entry 2147483647, but"),
    "column": (put("indices", 9, 10**6), r"has an entry in (column|row) 1000000, there are"),
    "column_negative": (put("indices", 9, -1), r"has an entry in (column|row) -1, there are"),
    "few_values": (renew("data", lambda data: data[:-1]), "ends at entry"),
    "few_indices": (renew("indices", lambda indices: indices[:-1]), "ends at entry"),
    "few_pointers": (renew("indptr", lambda indptr: indptr[:-1]), "pointers"),
    "fractions": (renew("indices", lambda indices: indices + 0.5), "float64"),
}


@pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_by_all_that_walk(convert, fault):
    damage, message = FAULTS[fault]
    x = matrix(convert)
    damage(x)
    for walk in (check_sparse, check_counts, rows):
        with pytest.raises(ValueError, match=message):
            walk(x)


def test_coordinates():
    x = matrix(sparse.coo_matrix)
    check_sparse(x)
    x.row[3] = N
    with pytest.raises(ValueError, match=f"entry 3 is in row {N}, there are {N} rows"):
        check_counts(x)


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "i8", "u2", "u8"])
def test_the_first_bad_index_is_found_in_any_dtype(dtype):
    indices = np.zeros(3 * 2**20, dtype)
    assert first_outside(indices, 1) is None
    indices[2**21 + 5] = 7
    indices[-1] = -1 if "i" in dtype else 9
    assert first_outside(indices, 7) == 2**21 + 5


def test_right_matrices_pass_and_the_row_is_the_right_one():
    x = matrix()
    check_index_structure(x.indptr, x.indices, x.shape, "x")
    check_sparse(sparse.csr_matrix((0, 5)))
    room = matrix()
    room.data, room.indices = np.append(room.data, 0), np.append(room.indices, 99)  # scipy allows what is not used
    check_sparse(room)
    with pytest.raises(DamagedDataError, match=r"a\.h5ad \(X\) is damaged: its pointers end at entry"):
        check_index_structure(room.indptr, room.indices, room.shape, "a.h5ad (X)")
    for row in range(N):
        x = matrix()
        if x.indptr[row] < x.indptr[row + 1]:
            x.indices[x.indptr[row]] = G
            with pytest.raises(DamagedDataError, match=rf"row {row} has an entry in column {G}, there are {G}"):
                check_index_structure(x.indptr, x.indices, x.shape, "x")


@pytest.mark.parametrize("place", ["X", "layer"])
def test_an_anndata_in_memory_is_looked_at_at_setup(place):
    adata = anndata.AnnData(matrix())
    adata.layers["counts"] = matrix()
    (adata.X if place == "X" else adata.layers["counts"]).indptr[4:20] = 10**6
    with pytest.raises(ValueError, match="damaged: row"):
        SCVI.setup_anndata(adata, layer=None if place == "X" else "counts")


def test_a_query_is_looked_at_before_its_genes_are_moved():
    reference = anndata.AnnData(matrix())
    SCVI.setup_anndata(reference)
    query = anndata.AnnData(matrix())[:, ::-1].copy()
    query.X.indices[3] = 10**9
    with pytest.raises(ValueError, match=r"adata\.X is damaged: row 0 has an entry in column 1000000000"):
        SCVI.prepare_query_anndata(query, SCVI(reference, n_hidden=4, n_latent=2))


@pytest.mark.parametrize("fault", ["descending", "too_far", "column", "column_negative"])
@pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.csc_matrix], ids=["rows", "columns"])
@pytest.mark.filterwarnings("ignore:The backed matrix")
def test_a_backed_anndata(tmp_path, convert, fault):
    x = matrix(convert)
    FAULTS[fault][0](x)
    anndata.AnnData(x).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for walk in (check_counts, lambda x: rows(x).take(range(N)), SCVI.setup_anndata):
        with pytest.raises(ValueError, match="damaged"):
            walk(backed if walk == SCVI.setup_anndata else backed.X)
    backed.file.close()


def test_columns_on_disk_are_looked_at_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(index_structure, "_PIECE", 7)
    for at in (0, 20, 40):
        x = matrix(sparse.csc_matrix)
        x.indices[at] = N
        column = int(np.searchsorted(x.indptr, at, side="right")) - 1
        with h5py.File(tmp_path / f"{at}.h5", "w") as file:
            file["indptr"], file["indices"], file["data"] = x.indptr, x.indices, x.data
            with pytest.raises(
                DamagedDataError, match=rf"a is damaged: column {column} has an entry in row {N}, there"
            ):
                check_stored_columns(file, x.shape, "a")
