"""Splits that lie on the device."""

import numpy as np
import pytest
import torch

from celbo.data import AnnDataManager, synthetic_iid
from celbo.data.fields import CategoricalObsField, LayerField
from celbo.dataloaders import DataSplitter, DeviceBackedDataSplitter


@pytest.fixture
def manager():
    adata = synthetic_iid(batch_size=50, n_genes=8, sparse_format="csr_matrix", seed=0)
    manager = AnnDataManager([LayerField("X", None), CategoricalObsField("batch", "batch")])
    manager.register_fields(adata)
    return manager


def test_same_cells_as_the_other_splitter(manager):
    splitter = DeviceBackedDataSplitter(manager, 0.5, 0.3, accelerator="cpu", batch_size=20, seed=1)
    splitter.setup()
    plain = DataSplitter(manager, 0.5, 0.3, seed=1)
    x = manager.adata.X.toarray()
    for loader, rows in (
        (splitter.train_dataloader(), plain.train_idx),
        (splitter.val_dataloader(), plain.val_idx),
        (splitter.test_dataloader(), plain.test_idx),
    ):
        assert len(loader) == -(-len(rows) // 20)
        np.testing.assert_array_equal(torch.cat([batch["X"] for batch in loader]), x[rows])
    assert splitter.device == torch.device("cpu")


def test_all_cells_at_once_and_empty_sets(manager):
    splitter = DeviceBackedDataSplitter(manager, 1.0, accelerator="cpu")
    (batch,) = splitter.train_dataloader()
    assert (batch["X"].shape, batch["batch"].dtype) == ((100, 8), torch.int64)
    assert splitter.val_dataloader() is None
    assert splitter.test_dataloader() is None


def test_shuffling_and_drop_last(manager):
    splitter = DeviceBackedDataSplitter(
        manager, 1.0, accelerator="cpu", batch_size=30, shuffle=True, drop_last=True, seed=0
    )
    loader = splitter.train_dataloader()
    epochs = [torch.cat([batch["X"] for batch in loader]) for _ in range(2)]
    assert len(loader) == 3
    assert [len(epoch) for epoch in epochs] == [90, 90]
    assert not torch.equal(*epochs)
