"""Latents of counts that reach the encoder as CSR: those of dense counts."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from celbo.data import simulate_counts
from celbo.model import SCANVI, SCVI, LinearSCVI
from celbo.verbs import cells as answering


@pytest.fixture
def cells() -> anndata.AnnData:
    return simulate_counts(200, 150, 3, 2, seed=5)


@pytest.fixture
def dense(monkeypatch):
    """Switch the sparse way off."""
    return lambda: monkeypatch.setattr(answering, "encodes_faster_sparse", lambda model, adata: False)


@pytest.mark.parametrize("cls", [SCVI, LinearSCVI, SCANVI])
@pytest.mark.parametrize("options", [{}, {"encode_covariates": True, "n_layers": 2}, {"log_variational": False}])
def test_same_latents(cells, quick, dense, cls, options):
    more = {"labels_key": "cell_type", "unlabeled_category": "Unknown"} if cls is SCANVI else {}
    cls.setup_anndata(cells, batch_key="batch", **more)
    model = quick(cls(cells, **options), max_epochs=1)
    assert answering.encodes_faster_sparse(model, cells)
    rows = np.random.default_rng(0).permutation(200)[:77]
    sparse = model.get_latent_representation(indices=rows, return_dist=True)
    dense()
    for one, other in zip(sparse, model.get_latent_representation(indices=rows, return_dist=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def encodes_sparse(cells, **options):
    SCVI.setup_anndata(cells, batch_key="batch")
    return answering.encodes_faster_sparse(SCVI(cells, **options), cells)


def test_where_it_is_not_faster(cells):
    assert encodes_sparse(cells)
    cells.X = sp.csc_matrix(cells.X)
    assert not encodes_sparse(cells.copy())
    cells.X = cells.X.toarray()
    assert not encodes_sparse(cells.copy())
    cells.X = sp.csr_matrix(cells.X + 1)
    assert not encodes_sparse(cells.copy())


def test_encoders_of_others_get_dense_counts(cells):
    SCVI.setup_anndata(cells, batch_key="batch")
    model = SCVI(cells)

    class Own(torch.nn.Module):
        pass

    model.module.z_encoder = Own()
    assert not answering.encodes_faster_sparse(model, cells)
