"""Data that lie on the device: the same training, to the bit (the CPU stands in for a device)."""

import pytest
import torch

from celbo.data import simulate_counts
from celbo.dataloaders.resident import ResidentTables
from celbo.model import SCANVI, SCVI
from celbo.train.engines.engine import Engine


@pytest.mark.parametrize("cls", [SCVI, SCANVI])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_same_weights(monkeypatch, form, cls):
    weights, fetched = [], []
    for most_bytes in (0, 10**9):
        monkeypatch.setattr(Engine, "room_for_data", most_bytes)
        monkeypatch.setattr(
            ResidentTables, "fetch", lambda self, rows, f=ResidentTables.fetch: fetched.append(1) or f(self, rows)
        )
        adata = simulate_counts(150, 40, 3, 2, seed=1)
        adata.X = adata.X.toarray() if form == "dense" else adata.X
        semi = {"labels_key": "cell_type", "unlabeled_category": "type_0"} if cls is SCANVI else {}
        cls.setup_anndata(adata, batch_key="batch", **semi)
        model = cls(adata, n_hidden=8)
        model.train(2, seed=0, verbose=0, accelerator="cpu", check_val_every_n_epoch=1)
        assert bool(fetched) is bool(most_bytes)
        weights.append(model.module.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_nothing_moves_on_the_cpu():
    assert Engine().room_for_data == 0
