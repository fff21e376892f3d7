"""Row numbers in a file are row numbers; a split that is drawn stretch by stretch is a split."""

import numpy as np
import pandas as pd
import pytest

from celbo.dataloaders import AnnDataLoader, dataset, split, split_indices
from celbo.dataloaders.dataset import all_rows, from_bits, in_order, kept, to_bits
from celbo.dataloaders.split import split_by_column, split_sizes
from celbo.store import mapped as scratch
from celbo.store.mapped import is_mapped


@pytest.fixture(autouse=True)
def as_for_many(monkeypatch):
    monkeypatch.setattr(dataset, "MANY", 0)
    monkeypatch.setattr(dataset, "PIECE", 16)
    monkeypatch.setattr(split, "MANY", 0)
    monkeypatch.setattr(scratch, "STRETCH", 32)


def mapped(rows):
    return kept(lambda: [np.asarray(rows)], 1000)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 500])
@pytest.mark.parametrize("sizes", [{}, {"train_size": 0.4, "validation_size": 0.25}, {"train_size": 1.0}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_split_in_stretches_partitions(n, sizes, shuffle, global_rng_untouched):
    drawn = split_indices(n, **sizes, shuffle=shuffle, seed=3)
    sets = (drawn.train, drawn.validation, drawn.test)
    assert sorted(np.concatenate(sets).tolist()) == list(range(n))
    assert (len(drawn.train), len(drawn.validation)) == split_sizes(n, **sizes)
    assert all((np.diff(rows) > 0).all() for rows in sets)
    assert not drawn.train.flags.writeable


def test_each_stretch_has_its_share():
    drawn = split_indices(500, 0.7, 0.2, seed=0)
    for rows, share in ((drawn.train, 0.7), (drawn.validation, 0.2), (drawn.test, 0.1)):
        in_stretch = np.bincount(rows // 32, minlength=16)
        assert np.abs(in_stretch[:15] - 32 * share).max() < 2


def test_a_split_in_stretches_follows_the_seed():
    first, again, other = (split_indices(500, seed=seed).validation for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert 0 < len(np.intersect1d(first, other)) < 25  # of 50; by chance 5


def test_every_cell_is_drawn_equally_often():
    """Within 5 standard deviations of a binomial, over all cells of a stretch and of the short last one."""
    times_n = np.zeros(40)
    for seed in range(2000):
        times_n[split_indices(40, 0.75, seed=seed).validation] += 1
    expected = np.repeat([8 / 32, 2 / 8], [32, 8]) * 2000
    assert np.abs(times_n - expected).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_all_rows_lie_in_a_file():
    assert is_mapped(all_rows(100))
    np.testing.assert_array_equal(all_rows(100), np.arange(100))


@pytest.mark.parametrize("rows", [np.arange(50), np.arange(50)[::-1], np.r_[0:16, 15:40], np.r_[0:16, 14:40]])
def test_rows_in_order(rows):
    given = mapped(rows)
    found = in_order(given)
    np.testing.assert_array_equal(found, np.sort(rows))
    assert (found is given) == (np.diff(rows) >= 0).all()


def test_mapped_rows_are_those_of_memory(manager):
    rows = np.r_[3:20, 7, 40]
    loaders = [AnnDataLoader(manager, indices, 4) for indices in (mapped(rows), rows)]
    for from_file, from_memory in zip(*loaders, strict=True):
        for key in from_memory:
            np.testing.assert_array_equal(from_file[key], from_memory[key])
    np.testing.assert_array_equal(loaders[0].last_indices, rows[16:])
    assert loaders[0].last_indices.dtype == np.int64


def test_mapped_rows_that_do_not_exist(manager):
    with pytest.raises(IndexError, match=r"No cell 900 \(indices\): there are 50"):
        AnnDataLoader(manager, mapped([*range(40), 900]))


@pytest.mark.parametrize("kind", [object, "category", "string"])
def test_a_column_that_names_the_set_of_each_cell(rng, kind):
    values = rng.choice(["train", "validation", "test", None], 50)
    with pytest.warns(UserWarning, match=f"{(values == None).sum()} of 50 cells"):  # noqa: E711
        found = split_by_column(pd.Series(values, dtype=kind), "set")
    for rows, name in ((found.train, "train"), (found.validation, "validation"), (found.test, "test")):
        assert is_mapped(rows)
        np.testing.assert_array_equal(rows, np.flatnonzero(values == name))


@pytest.mark.parametrize("kind", [object, "category"])
def test_a_stratified_split_in_stretches(rng, kind, global_rng_untouched):
    values = rng.choice(["a", "b", None], p=[0.7, 0.2, 0.1], size=500)
    drawn = split_indices(500, 0.7, 0.2, seed=0, stratify_by=pd.Series(values, dtype=kind))
    sets = (drawn.train, drawn.validation, drawn.test)
    assert sorted(np.concatenate(sets).tolist()) == list(range(500))
    assert tuple(map(len, sets)) == (350, 100, 50)
    for value in ("a", "b", None):
        for rows, share in zip(sets, (0.7, 0.2, 0.1)):
            assert abs((values[rows] == value).sum() - share * (values == value).sum()) <= 2


def test_every_value_of_two_cells_trains():
    values = np.random.default_rng(0).permutation(np.repeat([f"v{i}" for i in range(5)], [390, 2, 2, 3, 3]))
    assert set(values[split_indices(400, 0.05, seed=1, stratify_by=values).train]) == {f"v{i}" for i in range(5)}
    with pytest.raises(ValueError, match="10 values with 2 cells or more, but only 2 cells"):
        split_indices(20, 0.1, stratify_by=np.repeat(np.arange(10), 2))


@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_row_numbers_as_bits(rng, monkeypatch, share):
    rows = np.flatnonzero(rng.random(1000) < share)
    bits = to_bits(mapped(rows))
    assert len(bits) <= 125
    for piece in (3, 125, 10**6):
        monkeypatch.setattr(dataset, "PIECE", piece)
        np.testing.assert_array_equal(from_bits(bits), rows)


def test_what_the_caller_may_change_is_copied(manager):
    rows = np.arange(20)
    view = rows.view()
    view.flags.writeable = False
    loader = AnnDataLoader(manager, view, 4)
    rows[:] = 0
    np.testing.assert_array_equal(loader.indices, np.arange(20))
