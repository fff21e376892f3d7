import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from celbo.core import settings
from celbo.dataloaders import AnnDataLoader, AnnTorchDataset


def cells(batch):
    """Row numbers of a minibatch, which the fixture keeps in the first gene."""
    return batch["X"][:, 0].long().tolist()


def test_minibatch_keys_shapes_and_dtypes(manager, adata):
    batches = list(AnnDataLoader(manager, batch_size=8))
    assert [len(batch["X"]) for batch in batches] == [8] * 6 + [2]
    kinds = {key: (value.dtype, tuple(value.shape)) for key, value in batches[0].items()}
    assert kinds == {
        "X": (torch.float32, (8, 6)),
        "batch": (torch.int64, (8, 1)),
        "labels": (torch.int64, (8, 1)),
        "extra_categorical_covs": (torch.int64, (8, 2)),
        "extra_continuous_covs": (torch.float32, (8, 1)),
    }
    np.testing.assert_array_equal(torch.cat([batch["X"] for batch in batches]).numpy(), adata.X.toarray())


@pytest.mark.parametrize("indices", [[7, 3, 42, 0, 7, 7, 11], np.arange(49, -1, -1), [5]])
def test_every_key_keeps_the_order_asked(manager, adata, indices):
    loader = AnnDataLoader(manager, indices, batch_size=3)
    got = {key: torch.cat([batch[key] for batch in loader]).numpy() for key in ("X", "batch", "extra_continuous_covs")}
    np.testing.assert_array_equal(got["X"], adata.X.toarray()[indices])
    np.testing.assert_array_equal(got["batch"][:, 0], np.asarray(adata.obs["_scvi_batch"])[indices])
    covariate = adata.obsm["_scvi_extra_continuous_covs"].to_numpy(np.float32)
    np.testing.assert_array_equal(got["extra_continuous_covs"], covariate[indices])
    np.testing.assert_array_equal(loader.indices, indices)


def test_mask_of_cells(manager):
    mask = [i in (3, 30) for i in range(50)]
    assert [cells(batch) for batch in AnnDataLoader(manager, mask)] == [[3, 30]]


@pytest.mark.parametrize("indices", [[0, 50], [-51]])
def test_cells_that_do_not_exist(manager, indices):
    with pytest.raises(IndexError, match="No cell"):
        AnnDataLoader(manager, indices)


def test_shuffling_keeps_keys_together_and_loses_no_cell(manager, adata, global_rng_untouched):
    loader = AnnDataLoader(manager, batch_size=7, shuffle=True, seed=1, merge_small_tail=True)
    for _ in range(2):
        batches = list(loader)
        order = [cell for batch in batches for cell in cells(batch)]
        assert sorted(order) == list(range(50))
        assert order != list(range(50))
        assert [len(batch["X"]) for batch in batches] == [7] * 6 + [8]
        codes = torch.cat([batch["batch"] for batch in batches])[:, 0].numpy()
        np.testing.assert_array_equal(codes, np.asarray(adata.obs["_scvi_batch"])[order])


def test_state_dict_resumes_in_the_middle_of_an_epoch(manager):
    loader = AnnDataLoader(manager, batch_size=8, shuffle=True, seed=4)
    wanted = [cells(batch) for _ in range(2) for batch in loader]
    first = AnnDataLoader(manager, batch_size=8, shuffle=True, seed=4)
    run = iter(first)
    before = [cells(next(run)) for _ in range(3)]
    second = AnnDataLoader(manager, batch_size=8, shuffle=True)
    second.load_state_dict(first.state_dict())
    assert before + [cells(batch) for _ in range(2) for batch in second] == wanted


def test_minibatches_are_fresh(manager, adata):
    loader = AnnDataLoader(manager, batch_size=50)
    for value in next(iter(loader)).values():
        value.zero_()
    batch = next(iter(loader))
    assert cells(batch) == list(range(50))
    np.testing.assert_array_equal(batch["batch"][:, 0].numpy(), adata.obs["_scvi_batch"])


def test_length_and_batch_size(manager, monkeypatch):
    assert len(AnnDataLoader(manager, batch_size=8)) == 7
    assert len(AnnDataLoader(manager, batch_size=8, drop_last=True)) == 6
    monkeypatch.setattr(settings, "batch_size", 13)
    assert AnnDataLoader(manager, batch_size=None).batch_size == 13
    assert [len(batch["X"]) for batch in AnnDataLoader(manager, batch_size=None, drop_last=True)] == [13] * 3


def test_keys_that_are_asked_for(manager):
    assert list(next(iter(AnnDataLoader(manager, data_and_attributes=["batch"])))) == ["batch"]
    batch = next(iter(AnnDataLoader(manager, data_and_attributes={"X": np.int64, "batch": np.float32})))
    assert (batch["X"].dtype, batch["batch"].dtype) == (torch.int64, torch.float32)
    with pytest.raises(KeyError, match="Did you mean 'labels'"):
        AnnDataLoader(manager, data_and_attributes=["label"])
    with pytest.raises(KeyError, match="minify_type"):
        AnnDataLoader(manager, data_and_attributes=["minify_type"])


def test_numpy_minibatches(manager):
    batch = next(iter(AnnDataLoader(manager, iter_ndarray=True)))
    assert all(isinstance(value, np.ndarray) for value in batch.values())


def test_sparse_minibatches(manager, adata):
    batch = next(iter(AnnDataLoader(manager, [4, 2, 4], load_sparse_tensor=True)))
    assert batch["X"].layout == torch.sparse_csr
    assert batch["batch"].layout == torch.strided
    np.testing.assert_array_equal(batch["X"].to_dense().numpy(), adata.X.toarray()[[4, 2, 4]])


def test_sampler_of_the_caller(manager):
    sampler = torch.utils.data.BatchSampler([2, 0, 1], batch_size=2, drop_last=False)
    loader = AnnDataLoader(manager, [10, 20, 30], sampler=sampler)
    assert (len(loader), loader.sampler) == (2, sampler)
    assert [cells(batch) for batch in loader] == [[30, 10], [20]]
    with pytest.raises(TypeError, match="BatchSampler"):
        loader.state_dict()
    with pytest.raises(ValueError, match="sets the order itself"):
        AnnDataLoader(manager, sampler=sampler, shuffle=True)


def test_worker_options_are_accepted(manager):
    loader = AnnDataLoader(manager, num_workers=2, persistent_workers=True, pin_memory=True, prefetch_factor=2)
    assert sum(len(batch["X"]) for batch in loader) == 50


@pytest.mark.parametrize(
    ("name", "near"), [("batchsize", "batch_size"), ("num_worker", "num_workers"), ("shufle", "shuffle")]
)
def test_unknown_argument_is_named_with_the_nearest(manager, name, near):
    with pytest.raises(TypeError, match=f"'{name}'. Did you mean '{near}'"):
        AnnDataLoader(manager, **{name: 1})


def test_shared_tables(manager):
    tables = AnnTorchDataset(manager, ["X"])
    loader = AnnDataLoader(manager, [1], dataset=tables)
    assert list(next(iter(loader))) == ["X"]
    assert len(loader.dataset) == 1
    with pytest.raises(ValueError, match="`dataset` already says"):
        AnnDataLoader(manager, dataset=tables, load_sparse_tensor=True)


def test_distributed_needs_a_process_group(manager):
    with pytest.raises(ValueError, match="init_process_group"):
        AnnDataLoader(manager, distributed_sampler=True)


def test_backed_anndata_in_any_order(manager, adata, tmp_path):
    adata.write_h5ad(tmp_path / "backed.h5ad")
    backed = anndata.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    order = [40, 3, 3, 17, 0]
    for in_order, wanted in zip(
        AnnDataLoader(manager.transfer_fields(backed), order, batch_size=2), AnnDataLoader(manager, order, batch_size=2)
    ):
        assert {key: value.tolist() for key, value in in_order.items()} == {
            key: value.tolist() for key, value in wanted.items()
        }
    backed.file.close()


def test_genes_come_in_the_models_order(manager, adata, rng):
    x = np.concatenate([adata.X.toarray(), rng.poisson(1.0, (50, 3))], axis=1)
    names = np.array([*adata.var_names, "other1", "other2", "other3"])
    order = np.array([8, 3, 0, 6, 5, 1, 7, 2, 4])
    query = anndata.AnnData(sparse.csr_matrix(x[:, order]), obs=adata.obs[["tech", "donor", "score"]], uns={"kind": ""})
    query.var_names = names[order]
    batch = next(iter(AnnDataLoader(manager.transfer_fields(query), [7, 3])))
    np.testing.assert_array_equal(batch["X"].numpy(), adata.X.toarray()[[7, 3]])


def test_dataset_like_the_peers(manager, adata):
    dataset = AnnTorchDataset(manager)
    assert len(dataset) == 50
    assert dataset.registered_keys == list(dataset.keys_and_dtypes) == list(dataset.data)
    assert dataset.keys_and_dtypes["X"] is np.float32
    assert sparse.issparse(dataset.get_data("X"))
    x = adata.X.toarray()
    for indices, wanted in (
        (3, [3]),
        (-1, [49]),
        (np.int64(3), [3]),
        ([5, 2], [5, 2]),
        (slice(2, 6), [2, 3, 4, 5]),
        (np.array([4, 1, 4]), [4, 1, 4]),
        (np.arange(50) == 9, [9]),
    ):
        item = dataset[indices]
        np.testing.assert_array_equal(item["X"], x[wanted])
        assert item["batch"].shape == (len(wanted), 1)
    with pytest.raises(IndexError, match="50"):
        dataset[50]


def test_table_without_a_reader_is_named_by_its_key(manager, adata):
    adata.obs["_scvi_batch"] = "a"  # someone wrote over the codes
    with pytest.raises(TypeError, match="Registry key 'batch'"):
        AnnTorchDataset(manager)
