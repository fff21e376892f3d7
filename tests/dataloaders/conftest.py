"""One table in every storage that a row source reads, and a small AnnData that was set up."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import AnnDataManager
from celbo.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    StringUnsField,
)


def uncanonical(x):
    """CSR with every nonzero stored as two entries, columns unsorted."""
    dtype = x.dtype
    rows, columns = np.nonzero(x)
    whole = x[rows, columns]
    half = np.floor(whole / 2).astype(dtype)
    data = np.concatenate([half, (whole - half).astype(dtype)])
    order = np.lexsort((np.concatenate([-columns, columns]), np.concatenate([rows, rows])))
    indptr = np.concatenate([[0], np.cumsum(2 * np.bincount(rows, minlength=len(x)))])
    return sparse.csr_array((data[order], np.concatenate([columns, columns])[order], indptr), shape=x.shape)


def wide_indices(x):
    matrix = sparse.csr_array(x)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


def backed(x, folder, convert, **kwargs):
    path = folder / "table.h5ad"
    anndata.AnnData(convert(x)).write_h5ad(path, **kwargs)
    return anndata.read_h5ad(path, backed="r").X


def on_zarr(x, folder, convert):
    import zarr

    group = zarr.open_group(str(folder / "table.zarr"), mode="w", zarr_format=2)
    anndata.io.write_elem(group, "X", convert(x))
    return anndata.io.sparse_dataset(group["X"]) if sparse.issparse(convert(x)) else group["X"]


def dask_of(x, convert, columns=-1):
    import dask.array

    array = dask.array.from_array(x, chunks=(7, columns))
    return array.map_blocks(convert)


def hdf5(x, folder):
    file = h5py.File(folder / "dense.h5", "w")
    return file.create_dataset("x", data=x, chunks=(5, 3), compression="gzip")


MEMORY = {
    "dense": lambda x, folder: x,
    "fortran": lambda x, folder: np.asfortranarray(x),
    "strided": lambda x, folder: np.repeat(x, 2, axis=1)[:, ::2],
    "frame": lambda x, folder: pd.DataFrame(x),
    "csr_matrix": lambda x, folder: sparse.csr_matrix(x),
    "csr_array": lambda x, folder: sparse.csr_array(x),
    "csc_matrix": lambda x, folder: sparse.csc_matrix(x),
    "csc_array": lambda x, folder: sparse.csc_array(x),
    "csr_uncanonical": lambda x, folder: uncanonical(x),
    "csr_int64_indices": lambda x, folder: wide_indices(x),
}

DISK = {
    "h5py": hdf5,
    "backed_dense": lambda x, folder: backed(x, folder, np.asarray),
    "backed_csr": lambda x, folder: backed(x, folder, sparse.csr_matrix, compression="gzip"),
    "zarr_dense": lambda x, folder: on_zarr(x, folder, np.asarray),
    "zarr_csr": lambda x, folder: on_zarr(x, folder, sparse.csr_matrix),
    "dask_dense": lambda x, folder: dask_of(x, np.asarray),
    "dask_column_blocks": lambda x, folder: dask_of(x, np.asarray, columns=4),
    "dask_csr": lambda x, folder: dask_of(x, sparse.csr_matrix),
}

STORAGES = MEMORY | DISK


@pytest.fixture(
    params=["csr_matrix", "csr_array", "csc_matrix", "csr_uncanonical", "csr_int64_indices", "backed_csr", "zarr_csr"]
)
def sparse_storage(request, tmp_path):
    """Function that stores a dense array in one of the sparse ways whose rows can stay sparse."""
    return lambda x: STORAGES[request.param](x, tmp_path)


@pytest.fixture(params=STORAGES)
def storage(request, tmp_path):
    """Function that stores a dense array in one of the ways."""
    return lambda x: STORAGES[request.param](x, tmp_path)


N_CELLS, N_GENES = 50, 6


@pytest.fixture
def adata(rng):
    """Counts whose first gene is the row number, so that any row tells which cell it is."""
    x = rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)
    x[:, 0] = np.arange(N_CELLS)
    x[:, 1] = 1
    obs = {
        "tech": pd.Categorical([f"t{i % 3}" for i in range(N_CELLS)]),
        "donor": pd.Categorical([f"d{i % 5}" for i in range(N_CELLS)]),
        "score": rng.normal(size=N_CELLS),
    }
    adata = anndata.AnnData(sparse.csr_matrix(x), obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(N_CELLS)]))
    adata.var_names = [f"gene{i}" for i in range(N_GENES)]
    adata.uns["kind"] = "none"
    return adata


@pytest.fixture
def fields():
    """Fields of every kind that has one row a cell, and one that has not."""
    return [
        LayerField("X", None, is_count_data=True),
        CategoricalObsField("batch", "tech"),
        CategoricalObsField("labels", None),
        CategoricalJointObsField("extra_categorical_covs", ["donor", "tech"]),
        NumericalJointObsField("extra_continuous_covs", ["score"]),
        StringUnsField("minify_type", "kind"),
    ]


@pytest.fixture
def manager(adata, fields):
    """Manager of ``adata``."""
    manager = AnnDataManager(fields)
    manager.register_fields(adata)
    return manager
