"""Figures of the counts against numpy, from every storage."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from celbo.posterior import group_means

GROUPS = [np.array([0, 3, 4]), np.arange(10, 40), np.array([5]), np.arange(40)]


@pytest.fixture
def counts(rng):
    x = rng.poisson(0.7, size=(40, 9)).astype(np.float32)
    x[4] = 0
    return x


def expected(x, groups=GROUPS):
    total = x.sum(1, keepdims=True, dtype=np.float64)
    scaled = np.divide(1e4 * x, total, out=np.zeros(x.shape), where=total > 0)
    return [np.stack([table[cells].mean(0) for cells in groups]) for table in (x, x != 0, scaled)]


def agree(found, wanted):
    for have, want in zip((found.mean, found.nonzero, found.normalized), wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6)


STORAGES = {
    "dense": np.asarray,
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "integers": lambda x: sp.csr_matrix(x.astype(np.int32)),
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("entries", [5, 2**18])
def test_storages(counts, storage, entries, monkeypatch):
    monkeypatch.setattr("celbo.store.matrices.blocks._ENTRIES", entries)
    agree(group_means(STORAGES[storage](counts), GROUPS), expected(counts))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_backed(counts, kind, tmp_path):
    anndata.AnnData(kind(counts)).write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    agree(group_means(backed.X, GROUPS), expected(counts))
    backed.file.close()


@pytest.mark.parametrize("storage", STORAGES)
def test_columns(counts, storage):
    """Depth is that of the model's genes alone; a gene that is not there has no counts."""
    columns = np.array([4, -1, 0, 7])
    model = np.where(columns >= 0, counts[:, columns], 0)
    agree(group_means(STORAGES[storage](counts), GROUPS, columns), expected(model))


def test_repeats_and_no_cells(counts):
    groups = [np.array([1, 1, 2]), np.array([], dtype=np.int64)]
    found = group_means(counts, groups)
    np.testing.assert_allclose(found.mean[0], counts[[1, 1, 2]].mean(0), rtol=1e-6)
    assert (found.mean[1] == 0).all()
