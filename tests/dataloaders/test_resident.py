"""Tables on a device (here the CPU stands in for one): the minibatches of tables in memory."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from celbo.data import AnnDataManager
from celbo.data.fields import CategoricalObsField, LayerField, NumericalJointObsField
from celbo.dataloaders import AnnDataLoader, AnnTorchDataset
from celbo.dataloaders.resident import ResidentCSR, ResidentTables, resident_bytes, resident_tables

CPU = torch.device("cpu")


def manager(x):
    rng = np.random.default_rng(0)
    obs = {"batch": pd.Categorical(rng.choice(["a", "b"], len(rng.random(x.shape[0])))), "age": rng.random(x.shape[0])}
    adata = anndata.AnnData(x, obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(x.shape[0])]))
    fields = [
        LayerField("X", None, is_count_data=True),
        CategoricalObsField("batch", "batch"),
        NumericalJointObsField("extra_continuous_covs", ["age"]),
    ]
    made = AnnDataManager(fields, setup_method_args={})
    made.register_fields(adata)
    return made


def counts(n=40, g=30, density=0.2):
    rng = np.random.default_rng(1)
    return sp.csr_matrix(rng.poisson(2.0, (n, g)) * (rng.random((n, g)) < density), dtype=np.float32)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, lambda x: x.toarray()])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_the_same_minibatches(form, dtype):
    dataset = AnnTorchDataset(manager(form(counts().astype(dtype))))
    resident = ResidentTables(dataset, CPU)
    assert len(resident) == 40
    for rows in ([0], [39, 3, 3, 17], list(range(40))):
        given, expected = resident.fetch(np.array(rows)), dataset.fetch(np.array(rows))
        assert list(given) == list(expected)
        for key, table in expected.items():
            assert given[key].dtype == table.dtype
            assert torch.equal(given[key], table), key


def test_rows_that_are_empty_full_or_stored_twice():
    matrix = sp.csr_matrix(
        (np.array([1.0, 2.0, 4.0, 5.0, 6.0, 7.0], np.float32), [1, 1, 0, 1, 2, 3], [0, 2, 2, 6]), shape=(3, 4)
    )
    expected = torch.from_numpy(matrix.toarray())
    assert expected[0, 1] == 3.0
    resident = ResidentCSR(matrix, CPU)
    assert torch.equal(resident.gather(torch.tensor([2, 1, 0, 0])), expected[[2, 1, 0, 0]])


def test_no_count_at_all():
    resident = ResidentCSR(sp.csr_matrix((3, 4), dtype=np.float32), CPU)
    assert torch.equal(resident.gather(torch.tensor([0, 2])), torch.zeros(2, 4))


def test_what_fits():
    dataset = AnnTorchDataset(manager(counts()))
    needed = resident_bytes(dataset)
    assert needed == 8 * 41 + 8 * dataset.data["X"].nnz + 40 * 8 + 40 * 4
    assert resident_tables(dataset, CPU, needed - 1) is None
    assert isinstance(resident_tables(dataset, CPU, needed), ResidentTables)
    assert resident_tables(AnnTorchDataset(manager(counts()), load_sparse_tensor=True), CPU, 10**9) is None


def test_loaders_give_the_same_minibatches():
    made = manager(counts())
    plain, moved = (AnnDataLoader(made, batch_size=7, shuffle=True, seed=4) for _ in range(2))
    moved.use_tables(ResidentTables(moved.tables, CPU))
    for one, other in zip(plain, moved, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
