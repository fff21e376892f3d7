"""Faults of loaders seen elsewhere, and the behaviour that must stand in their place."""

import anndata
import numpy as np
import pytest
from scipy import sparse

from celbo.data import AnnDataManager
from celbo.data.fields import CategoricalObsField, LayerField
from celbo.dataloaders import AnnDataLoader, AnnTorchDataset, DataSplitter, rows

pytestmark = pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")  # the data are small on purpose


def marked(n, convert=sparse.csr_matrix):
    """AnnData whose first gene is the row number."""
    x = np.ones((n, 4), np.float32)
    x[:, 0] = np.arange(n)
    adata = anndata.AnnData(convert(x))
    adata.obs["site"] = [f"s{i % 2}" for i in range(n)]
    return adata


def manager_of(adata):
    manager = AnnDataManager([LayerField("X", None), CategoricalObsField("batch", "site")])
    manager.register_fields(adata)
    return manager


def cells(batch):
    return batch["X"][:, 0].long().tolist()


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_backed_rows_come_in_the_order_asked(tmp_path, convert):
    """scvi-tools sorts the rows of backed data within each minibatch, and so gives cells each other's results."""
    marked(300, convert).write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    order = [7, 3, 250, 3, 299, 0]
    for batch in AnnDataLoader(manager_of(backed), order):
        assert cells(batch) == order
        assert batch["batch"][:, 0].tolist() == [i % 2 for i in order]
    backed.file.close()


def test_csr_array_is_read():
    """scvi-tools ends with "data type not understood": it looks for ``spmatrix``."""
    assert cells(next(iter(AnnDataLoader(manager_of(marked(5, sparse.csr_array)), [4, 1])))) == [4, 1]


def test_unknown_storage_never_gives_the_rows_of_the_field_before():
    """scvi-tools has no last ``else``: an unknown type silently gets the previous field's rows."""
    with pytest.raises(TypeError, match="coo_array"):
        rows(sparse.coo_array(np.eye(5)))
    manager = manager_of(marked(6))
    manager.adata.obs["_scvi_batch"] = list("ababab")
    with pytest.raises(TypeError, match="Registry key 'batch'"):
        AnnTorchDataset(manager)


@pytest.mark.parametrize("n", [19, 129, 130, 145])
def test_no_cell_is_dropped_or_moved_for_the_batch_size(n):
    """scvi-tools moves or silently drops the last 1 or 2 training cells (#2916, #2926)."""
    splitter = DataSplitter(manager_of(marked(n)), train_size=1.0, seed=0)
    sizes = [len(batch["X"]) for batch in splitter.train_dataloader()]
    assert sum(sizes) == splitter.n_train == n
    assert min(sizes) > 2


def test_batch_size_stays_what_was_asked():
    """A fix of split sizes once broke ``batch_size`` (#3128)."""
    splitter = DataSplitter(manager_of(marked(100)), batch_size=10)
    assert {len(batch["X"]) for batch in splitter.train_dataloader()} == {10}
    assert splitter.train_dataloader().batch_size == splitter.val_dataloader().batch_size == 10


def test_external_indexing_is_not_changed_and_warns_in_words():
    """scvi-tools appends to the list it is given, and raises a bare ``Warning`` for unused cells (#3601)."""
    manager = manager_of(marked(6))
    given = [np.array([1, 2]), np.array([3])]
    with pytest.warns(UserWarning, match="3 of 6 cells"):
        splitter = DataSplitter(manager, external_indexing=given)
    assert len(given) == 2
    assert splitter.train_idx.tolist() == [1, 2]


def test_two_cells_still_train():
    """The default split of 2 cells is (0, 0) in scvi-tools."""
    assert DataSplitter(manager_of(marked(2)), seed=0).n_train == 2


def test_shuffling_leaves_the_global_generators_alone(global_rng_untouched):
    """Splits and loaders of scvi-tools move torch's global generator."""
    splitter = DataSplitter(manager_of(marked(40)))
    for _ in range(2):
        assert sum(len(batch["X"]) for batch in splitter.train_dataloader()) == splitter.n_train


def test_minibatches_do_not_share_memory_with_the_anndata():
    adata = marked(8, np.asarray)
    for batch in AnnDataLoader(manager_of(adata), batch_size=8):
        batch["X"].fill_(-1)
        batch["batch"].fill_(-1)
    assert adata.X[:, 0].tolist() == list(range(8))
    assert set(adata.obs["_scvi_batch"]) == {0, 1}
