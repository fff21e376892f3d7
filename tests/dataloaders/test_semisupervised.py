"""Pairs of labelled and unlabelled minibatches: nothing lost, nothing twice, seeded, restartable."""

from itertools import chain

import anndata
import numpy as np
import pytest

from celbo.data import AnnDataManager
from celbo.data import fields as f
from celbo.dataloaders import (
    ConcatDataLoader,
    SemiSupervisedDataLoader,
    SemiSupervisedDataSplitter,
    dataset,
    semisupervised,
    split,
)
from celbo.store import mapped as scratch

N = 100


def manager_of(labels) -> AnnDataManager:
    adata = anndata.AnnData(np.arange(len(labels), dtype=np.float32)[:, None] * np.ones((1, 2), np.float32))
    adata.obs["label"] = labels
    manager = AnnDataManager(
        [
            f.LayerField("X", None, is_count_data=True),
            f.LabelsWithUnlabeledObsField("labels", "label", "Unknown"),
        ]
    )
    manager.register_fields(adata)
    return manager


@pytest.fixture(autouse=True, params=["few", "many"])
def cells_of_the_data(request, monkeypatch):
    """Row numbers in memory, and in files as for many cells."""
    if request.param == "many":
        for module in (dataset, semisupervised, split):
            monkeypatch.setattr(module, "MANY", 0)
        monkeypatch.setattr(scratch, "STRETCH", 32)


@pytest.fixture
def manager():
    """60 cells without label, 25 of A, 10 of B, 5 of C, mixed."""
    labels = np.array(["Unknown"] * 60 + ["A"] * 25 + ["B"] * 10 + ["C"] * 5, dtype=object)
    return manager_of(labels[np.random.default_rng(0).permutation(N)])


def cells(part) -> list[int]:
    """Row numbers, which the first gene holds."""
    return [int(value) for value in part["X"][:, 0]]


def labelled_rows(manager) -> np.ndarray:
    return np.flatnonzero(manager.adata.obs["label"].to_numpy() != "Unknown")


def epoch(loader) -> tuple[list[list[int]], list[list[int]]]:
    pairs = list(loader)
    return [cells(full) for full, _ in pairs], [cells(part) for _, part in pairs]


def flat(batches) -> list[int]:
    return list(chain.from_iterable(batches))


class TestSplitter:
    def test_partition_without_loss_or_duplication(self, manager):
        splitter = SemiSupervisedDataSplitter(manager, train_size=0.7, validation_size=0.2, seed=3)
        sets = [splitter.train_idx, splitter.val_idx, splitter.test_idx]
        assert sorted(np.concatenate(sets).tolist()) == list(range(N))
        known = set(labelled_rows(manager).tolist())
        assert [len(known & set(one.tolist())) for one in sets] == [28, 8, 4]
        assert [len(one) for one in sets] == [70, 20, 10]
        assert (splitter.n_train, splitter.n_val) == (70, 20)

    def test_seeded(self, manager):
        one, same, other = (SemiSupervisedDataSplitter(manager, seed=seed).train_idx.tolist() for seed in (1, 1, 2))
        assert one == same
        assert one != other

    def test_a_given_split_is_kept(self, manager):
        given = [np.arange(10, 90), np.arange(10), np.arange(90, 100)]
        splitter = SemiSupervisedDataSplitter(manager, external_indexing=given)
        assert splitter.train_idx.tolist() == given[0].tolist()

    def test_labels_keep_their_share_where_asked(self, manager):
        splitter = SemiSupervisedDataSplitter(manager, train_size=0.8, stratify_by="label", seed=0)
        counts = manager.adata.obs["label"].iloc[splitter.train_idx].value_counts()
        assert counts.to_dict() == {"Unknown": 48, "A": 20, "B": 8, "C": 4}

    def test_loaders(self, manager):
        splitter = SemiSupervisedDataSplitter(manager, n_samples_per_label=4, batch_size=16, train_size=0.8, seed=0)
        full, part = epoch(splitter.train_dataloader())
        assert sorted(flat(full)) == sorted(splitter.train_idx.tolist())
        _, count_l = np.unique(manager.adata.obs["_scvi_labels"].iloc[splitter.train_idx], return_counts=True)
        assert {len(batch) for batch in part} == {np.minimum(count_l[:3], 4).sum()}  # the fourth: without label
        full, part = epoch(splitter.val_dataloader())
        assert flat(full) == splitter.val_idx.tolist()
        assert set(flat(part)) == set(labelled_rows(manager)) & set(splitter.val_idx.tolist())
        assert splitter.test_dataloader() is None

    def test_all_cells_labelled_or_none(self):
        all_labelled = SemiSupervisedDataSplitter(manager_of(["A", "B"] * 10), train_size=0.5, seed=0)
        full, part = epoch(all_labelled.train_dataloader())
        assert sorted(flat(full)) == sorted(flat(part))
        none = SemiSupervisedDataSplitter(manager_of(["Unknown"] * 20), seed=0)
        assert [part for _, part in none.train_dataloader()] == [None]

    @pytest.mark.filterwarnings("ignore:Category 'A' .1. .* has fewer than 3 cells:UserWarning")
    def test_a_single_labelled_cell_is_too_few(self):
        for labels, per_label in ((["A"] + ["Unknown"] * 20, None), (["A"] * 9 + ["Unknown"] * 20, 1)):
            splitter = SemiSupervisedDataSplitter(manager_of(labels), train_size=1.0, n_samples_per_label=per_label)
            with pytest.raises(ValueError, match="a single labelled cell to train on"):
                splitter.train_dataloader()

    def test_a_datamodule_goes_elsewhere(self, manager):
        with pytest.raises(ValueError, match=r"train\(datamodule="):
            SemiSupervisedDataSplitter(manager, datamodule=object())


class TestPairs:
    def test_labelled_part_has_labels_only_and_starts_over(self, manager):
        full, part = epoch(SemiSupervisedDataLoader(manager, batch_size=16, shuffle=True, seed=0))
        assert sorted(flat(full)) == list(range(N))
        assert len(full) == len(part) == 7
        known = labelled_rows(manager).tolist()
        assert sorted(flat(part[:3])) == known
        assert sorted(flat(part[3:6])) == known
        assert part[0] != part[3]

    def test_n_samples_per_label_is_drawn_anew_each_epoch(self, manager):
        loader = SemiSupervisedDataLoader(manager, n_samples_per_label=6, batch_size=128, shuffle=True, seed=0)
        labels = manager.adata.obs["label"].to_numpy()
        drawn = []
        for _ in range(20):
            (part,) = epoch(loader)[1]
            assert len(set(part)) == len(part)
            names, counts = np.unique(labels[part].astype(str), return_counts=True)
            assert dict(zip(names, counts)) == {"A": 6, "B": 6, "C": 5}
            drawn.append(frozenset(part))
        assert len(set(drawn)) > 15
        assert frozenset.union(*drawn) == set(labelled_rows(manager).tolist())  # no labelled cell is never seen

    def test_small_last_batches_are_merged(self):
        manager = manager_of(["A"] * 33 + ["Unknown"] * 33)
        loader = SemiSupervisedDataLoader(manager, batch_size=16, merge_small_tail=True, shuffle=True, seed=0)
        full, part = epoch(loader)
        assert sorted(map(len, full)) == [16, 16, 16, 18]
        assert [len(batch) for batch in part] == [16, 17, 16, 17]

    def test_seeded_and_the_global_generators_rest(self, manager, global_rng_untouched):
        def two(seed):
            loader = SemiSupervisedDataLoader(manager, n_samples_per_label=3, batch_size=32, shuffle=True, seed=seed)
            return [epoch(loader), epoch(loader)]

        assert two(5) == two(5)
        assert two(5) != two(6)
        assert two(5)[0] != two(5)[1]

    @pytest.mark.parametrize("n_read", [0, 1, 4, 7, 8, 16])
    def test_goes_on_exactly_where_another_stood(self, manager, n_read):
        def loader(seed):
            return SemiSupervisedDataLoader(manager, 6, batch_size=16, shuffle=True, seed=seed)

        def stream(loader):
            while True:
                for full, part in loader:
                    yield cells(full), cells(part)

        first, second = loader(1), loader(2)
        reading = stream(first)
        for _ in range(n_read):
            next(reading)
        second.load_state_dict(first.state_dict())
        going_on = stream(second)
        assert [next(going_on) for _ in range(20)] == [next(reading) for _ in range(20)]

    def test_last_indices_are_those_of_all_cells(self, manager):
        loader = SemiSupervisedDataLoader(manager, indices=np.arange(50)[::-1], batch_size=16)
        for full, _ in loader:
            assert loader.last_indices.tolist() == cells(full)

    def test_indices_as_a_mask(self, manager):
        mask = np.arange(N) < 30
        full, part = epoch(SemiSupervisedDataLoader(manager, indices=mask))
        assert flat(full) == list(range(30))
        assert flat(part) == [row for row in labelled_rows(manager) if row < 30]

    def test_drop_last_never_drops_labelled_cells(self, manager):
        full, part = epoch(SemiSupervisedDataLoader(manager, batch_size=64, drop_last=True))
        assert [len(batch) for batch in full] == [64]
        assert [len(batch) for batch in part] == [40]

    def test_nonsense_is_refused(self, manager):
        with pytest.raises(ValueError, match="n_samples_per_label"):
            SemiSupervisedDataLoader(manager, n_samples_per_label=0)
        with pytest.raises(ValueError, match="indices_list is empty"):
            ConcatDataLoader(manager, [])


def test_concat_of_three_sets_of_their_own_lengths(manager):
    sets = [np.arange(40), np.arange(40, 50), np.arange(50, 75)]
    loader = ConcatDataLoader(manager, sets, batch_size=10)
    assert len(loader) == 4
    parts = [[cells(part) for part in batch] for batch in loader]
    assert [batch[0] for batch in parts] == [list(range(i, i + 10)) for i in (0, 10, 20, 30)]
    assert [batch[1] for batch in parts] == [list(range(40, 50))] * 4
    assert [len(batch[2]) for batch in parts] == [10, 10, 5, 10]
