import inspect

import numpy as np
import pytest
import torch

from celbo.core import settings
from celbo.data import AnnDataManager, synthetic_iid
from celbo.dataloaders import AnnDataLoader, DataSplitter, split_indices
from celbo.model import SCVI


def cells(loader):
    return [int(cell) for batch in loader for cell in batch["X"][:, 0]]


def test_shape_of_the_peers():
    names = list(inspect.signature(DataSplitter).parameters)
    assert names[:7] == [
        "adata_manager",
        "train_size",
        "validation_size",
        "shuffle_set_split",
        "load_sparse_tensor",
        "pin_memory",
        "external_indexing",
    ]


def test_sets_and_loaders(manager, global_rng_untouched):
    splitter = DataSplitter(manager, 0.5, 0.3, seed=2, batch_size=4)
    splitter.setup()
    wanted = split_indices(50, 0.5, 0.3, seed=2)
    for got, part in (
        (splitter.train_idx, wanted.train),
        (splitter.val_idx, wanted.validation),
        (splitter.test_idx, wanted.test),
    ):
        np.testing.assert_array_equal(got, part)
    assert (splitter.n_train, splitter.n_val) == (25, 15)
    assert splitter.data_loader_kwargs == {"batch_size": 4}
    train = cells(splitter.train_dataloader())
    assert sorted(train) == sorted(wanted.train)
    assert train != wanted.train.tolist()
    assert cells(splitter.val_dataloader()) == wanted.validation.tolist()
    assert cells(splitter.test_dataloader()) == wanted.test.tolist()


def test_train_batches_are_never_tiny_and_inference_batches_as_asked(manager):
    splitter = DataSplitter(manager, 0.5, seed=0, batch_size=8)
    assert [len(batch["X"]) for batch in splitter.train_dataloader()] == [8, 8, 9]
    assert [len(batch["X"]) for batch in splitter.val_dataloader()] == [8, 8, 8, 1]
    splitter = DataSplitter(manager, 0.5, seed=0, batch_size=8, drop_last=True)
    assert [len(batch["X"]) for batch in splitter.train_dataloader()] == [8, 8, 8]
    assert [len(batch["X"]) for batch in splitter.val_dataloader()] == [8, 8, 8, 1]


def test_no_validation_cells_no_loader(manager):
    splitter = DataSplitter(manager, 1.0)
    assert splitter.n_val == 0
    assert splitter.val_dataloader() is None
    assert splitter.test_dataloader() is None
    assert isinstance(splitter.train_dataloader(), AnnDataLoader)


def test_seed_of_the_settings(manager, monkeypatch):
    monkeypatch.setattr(settings, "seed", 11)
    first, second = DataSplitter(manager), DataSplitter(manager, seed=11)
    np.testing.assert_array_equal(first.train_idx, second.train_idx)
    assert cells(first.train_dataloader()) == cells(second.train_dataloader())


def test_setup_does_not_draw_again(manager):
    splitter = DataSplitter(manager)
    before = splitter.train_idx.copy()
    splitter.setup("fit")
    np.testing.assert_array_equal(splitter.train_idx, before)


def test_without_shuffling_validation_comes_first(manager):
    splitter = DataSplitter(manager, 0.5, 0.2, shuffle_set_split=False)
    assert splitter.val_idx.tolist() == list(range(10))
    assert splitter.train_idx.tolist() == list(range(10, 35))


def test_other_ways_to_split(manager, adata):
    donors = np.asarray(adata.obs["donor"])
    splitter = DataSplitter(manager, 0.6, 0.2, stratify_by="donor", seed=0)
    assert {donor: (donors[splitter.train_idx] == donor).sum() for donor in set(donors)} == dict.fromkeys(
        set(donors), 6
    )
    adata.obs["fold"] = ["train"] * 30 + ["validation"] * 15 + ["test"] * 5
    splitter = DataSplitter(manager, split_by="fold")
    assert (splitter.n_train, splitter.n_val, len(splitter.test_idx)) == (30, 15, 5)
    splitter = DataSplitter(manager, external_indexing=[np.arange(40), np.arange(40, 50)])
    assert splitter.val_idx.tolist() == list(range(40, 50))


def test_columns_and_ways_are_checked(manager):
    with pytest.raises(KeyError, match="Did you mean 'donor'"):
        DataSplitter(manager, stratify_by="donr")
    with pytest.raises(ValueError, match="external_indexing and stratify_by"):
        DataSplitter(manager, external_indexing=[[0]], stratify_by="donor")


def test_sparse_minibatches_are_made_dense_after_the_transfer(manager, adata):
    splitter = DataSplitter(manager, load_sparse_tensor=True, data_and_attributes=["X", "batch"], seed=0)
    batch = next(iter(splitter.val_dataloader()))
    assert batch["X"].layout == torch.sparse_csr
    dense = splitter.on_after_batch_transfer(batch, 0)
    np.testing.assert_array_equal(dense["X"].numpy(), adata.X.toarray()[splitter.val_idx])
    assert dense["batch"] is batch["batch"]


def test_manager_without_anndata_is_said(fields):
    with pytest.raises(ValueError, match="has no AnnData yet"):
        DataSplitter(AnnDataManager(fields))


def test_an_unknown_argument_is_named_with_the_splitters_own():
    adata = synthetic_iid(batch_size=20, seed=0)
    SCVI.setup_anndata(adata)
    model = SCVI(adata)
    with pytest.raises(TypeError, match=r"'stratify'.*Did you mean 'stratify_by'"):
        model.train(max_epochs=1, verbose=0, datasplitter_kwargs={"stratify": "batch"})
