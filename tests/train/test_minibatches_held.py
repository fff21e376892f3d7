"""No minibatch is in memory while the next one is made: of wide data each takes tens of megabytes."""

import weakref

import numpy as np
import pytest
from anndata import AnnData

from celbo.data import open as open_data
from celbo.dataloaders.dataset import AnnTorchDataset, Window
from celbo.model import SCVI


@pytest.mark.parametrize("streamed", [False, True])
def test_no_minibatch_is_held_while_the_next_is_made(tmp_path, monkeypatch, streamed):
    made, held = [], []

    def watch(cls):
        fetch = cls.fetch

        def watched(self, rows_n):
            held.append(sum(reference() is not None for reference in made))
            batch = fetch(self, rows_n)
            made.append(weakref.ref(batch["X"]))
            return batch

        monkeypatch.setattr(cls, "fetch", watched)

    adata = AnnData(np.random.default_rng(0).poisson(1.0, (100, 20)).astype(np.float32))
    if streamed:
        adata.write_h5ad(path := tmp_path / "cells.h5ad")
        adata = open_data(path, stream=True)
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4)
    watch(Window if streamed else AnnTorchDataset)
    model.train(max_epochs=2, batch_size=20, verbose=0, seed=0, accelerator="cpu", check_val_every_n_epoch=1)
    assert len(held) > 10
    assert not any(held)
