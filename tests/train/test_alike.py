"""Cells that are all the same are told before training."""

import logging

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from celbo.model import SCVI


def train(x_ng) -> None:
    adata = anndata.AnnData(x_ng)
    SCVI.setup_anndata(adata)
    SCVI(adata, n_hidden=4).train(max_epochs=1, train_size=1.0, verbose=0, seed=0, accelerator="cpu")


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.filterwarnings("ignore:adata.X")
def test_the_same_cells(said, storage, count):
    train(storage(np.full((3, 5), count, np.float32)))
    assert any("All 3 cells have the same counts" in message for message in said(logging.WARNING))


def test_many_of_the_same_cells(said):
    train(np.tile(np.arange(5, dtype=np.float32), (40, 1)))
    assert any("16 of 40 cells looked at have the same counts" in message for message in said(logging.WARNING))


def test_one_cell_that_differs_is_enough(said):
    x_ng = np.tile(np.arange(5, dtype=np.float32), (3, 1))
    x_ng[1, 2] = 9
    train(x_ng)
    assert not any("same counts" in message for message in said(logging.WARNING))
