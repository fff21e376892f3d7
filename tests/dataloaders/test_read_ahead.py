"""Minibatches of data on disk: the same as from memory, read many at a time."""

import logging
import threading

import anndata
import numpy as np
import pytest

from celbo.data import AnnDataManager
from celbo.dataloaders import AnnDataLoader, ConcatDataLoader, DataSplitter
from celbo.dataloaders import dataset as dataset_module
from celbo.dataloaders.read_ahead import read_ahead

N = 50


@pytest.fixture
def on_disk(adata, fields, tmp_path):
    """Manager of the same AnnData in a file, its rows left there."""
    adata.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    manager = AnnDataManager(fields)
    manager.register_fields(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    yield manager
    manager.adata.file.close()


def same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(np.asarray(first[key]), np.asarray(second[key]))


@pytest.mark.parametrize("most_rows", [1, 8, 20, 1000])
@pytest.mark.parametrize("batches", [[[3, 1, 1], [49], [0, 48, 2]], [[7]], []])
def test_rows_come_in_the_order_asked(on_disk, manager, batches, most_rows):
    rows = [np.array(batch) for batch in batches]
    backwards = np.arange(50)[::-1]  # position p is row 49 - p
    read = list(read_ahead(AnnDataLoader(on_disk).tables, backwards, [49 - row for row in rows], most_rows))
    assert len(read) == len(rows)
    for (rows_n, batch), wanted in zip(read, rows):
        np.testing.assert_array_equal(rows_n, wanted)
        same(batch, AnnDataLoader(manager).tables.fetch(wanted))


def test_loader_in_order_is_that_of_memory(on_disk, manager):
    for batch, wanted in zip(AnnDataLoader(on_disk, [9, 3, 3, 40], 3), AnnDataLoader(manager, [9, 3, 3, 40], 3)):
        same(batch, wanted)


@pytest.mark.parametrize("pool_bytes", [1, 1000, None])
def test_every_cell_once_an_epoch(on_disk, adata, pool_bytes):
    loader = AnnDataLoader(on_disk, batch_size=8, shuffle=True, seed=1, pool_bytes=pool_bytes)
    orders = []
    for _ in range(2):
        rows = []
        for batch in loader:
            np.testing.assert_array_equal(batch["X"][:, 0], loader.last_indices)  # the first gene is the row number
            np.testing.assert_array_equal(
                batch["extra_continuous_covs"][:, 0], adata.obs["score"].to_numpy("f4")[loader.last_indices]
            )
            rows += loader.last_indices.tolist()
        assert sorted(rows) == list(range(N))
        orders.append(rows)
    assert orders[0] != orders[1]
    again = AnnDataLoader(on_disk, batch_size=8, shuffle=True, seed=1, pool_bytes=pool_bytes)
    assert [row for _ in again for row in again.last_indices.tolist()] == orders[0]


def test_resumes_in_the_middle_of_an_epoch(on_disk):
    def rows_of(loader, n=None):
        rows = []
        for batch, _ in zip(loader, range(n or 10**6)):
            rows.append(batch["X"][:, 0].tolist())
        return rows

    def make():
        return AnnDataLoader(on_disk, batch_size=8, shuffle=True, seed=4, pool_bytes=1000)

    whole, stopped, resumed = make(), make(), make()
    wanted = rows_of(whole) + rows_of(whole)
    rows_of(stopped)
    rows_of(stopped, 3)
    resumed.load_state_dict(stopped.state_dict())
    # zip asks for one more than it gives; the state is that of the last minibatch handed out
    assert rows_of(resumed) == wanted[7 + 4 :]


def test_sparse_minibatches_and_genes_in_another_order(adata, fields, tmp_path):
    manager = AnnDataManager(fields)
    manager.register_fields(adata)
    adata[:, ::-1].copy().write_h5ad(tmp_path / "reversed.h5ad")
    backed = anndata.read_h5ad(tmp_path / "reversed.h5ad", backed="r")
    target = manager.transfer_fields(backed)
    for batch in AnnDataLoader(target, batch_size=16, load_sparse_tensor=True):
        assert batch["X"].layout is not None
        np.testing.assert_array_equal(batch["X"].to_dense()[:, 1], 1)
    backed.file.close()


def test_splitter_reads_validation_cells_from_front_to_back(on_disk, manager):
    splitter, in_memory = DataSplitter(on_disk, seed=0), DataSplitter(manager, seed=0)
    np.testing.assert_array_equal(splitter.val_idx, in_memory.val_idx)  # the same cells as from memory
    rows = [row for batch in splitter.val_dataloader() for row in batch["X"][:, 0].tolist()]
    assert rows == sorted(splitter.val_idx.tolist())
    rows = [row for batch in splitter.train_dataloader() for row in batch["X"][:, 0].tolist()]
    assert sorted(rows) == sorted(in_memory.train_idx.tolist())


def test_several_sets_side_by_side(on_disk):
    loader = ConcatDataLoader(on_disk, [range(40), range(40, 50)], shuffle=True, batch_size=8, seed=0)
    first, second = zip(*[(a["X"][:, 0].tolist(), b["X"][:, 0].tolist()) for a, b in loader])
    assert sorted(row for part in first for row in part) == list(range(40))
    assert {row for part in second for row in part} == set(range(40, 50))


class TestMemory:
    @pytest.fixture
    def scarce(self, monkeypatch):
        """Windows of more than so many rows find no memory."""

        def allow(most):
            load = dataset_module.Window.__init__

            def loading(self, tables, ascending):
                if len(ascending) > most:
                    raise MemoryError
                load(self, tables, ascending)

            monkeypatch.setattr(dataset_module.Window, "__init__", loading)

        return allow

    def test_windows_are_halved_and_it_is_said(self, on_disk, scarce, caplog):
        scarce(20)
        loader = AnnDataLoader(on_disk, batch_size=8, shuffle=True, seed=1)
        plain = AnnDataLoader(on_disk, batch_size=8, shuffle=True, seed=1).sampler.coming()
        messages = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())
        logging.getLogger("celbo").addHandler(handler)
        try:
            rows = [batch["X"][:, 0].tolist() for batch in loader]
        finally:
            logging.getLogger("celbo").removeHandler(handler)
        assert rows == [batch.tolist() for batch in plain]
        assert "Not enough memory" in messages[0]

    def test_no_memory_for_a_single_minibatch(self, on_disk, scarce):
        scarce(5)
        with pytest.raises(MemoryError, match="smaller batch_size"):
            list(AnnDataLoader(on_disk, batch_size=8))


def test_threads_end_with_the_epoch_or_when_it_is_left(on_disk):
    before = threading.active_count()
    list(AnnDataLoader(on_disk, batch_size=8))
    epoch = iter(AnnDataLoader(on_disk, batch_size=8, pool_bytes=1))
    next(epoch)
    assert threading.active_count() == before + 1
    del epoch
    assert threading.active_count() == before


def test_file_that_is_replaced_is_noticed(on_disk, adata, tmp_path):
    loader = AnnDataLoader(on_disk, batch_size=8)
    assert len(list(loader)) == 7
    (tmp_path / "other.h5ad").write_bytes(b"something else")
    (tmp_path / "other.h5ad").replace(tmp_path / "cells.h5ad")
    with pytest.raises(OSError, match=r"cells\.h5ad was changed while it was being read"):
        list(loader)
