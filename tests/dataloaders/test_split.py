import numpy as np
import pandas as pd
import pytest

from celbo.core.rules import SCVI_TOOLS, followed
from celbo.dataloaders import Split, split_indices
from celbo.dataloaders.split import apportion, split_by_column, split_sizes, split_with_indexing

# (n, seed, sizes) -> set sizes, first cells of each set, and sum of (position + 1) * cell over each set,
# as scvi-tools 1.4.2 gave them
PEER = [
    (101, 0, {}, (91, 10, 0), ([53, 93, 78], [26, 86, 2], []), [218395, 3505, 0]),
    (
        101,
        7,
        {"train_size": 0.33, "validation_size": 0.33},
        (34, 33, 34),
        ([58, 33, 43], [37, 26, 78], [64, 61, 53]),
        [28680, 26974, 31433],
    ),
    (101, 42, {"train_size": 0.7}, (71, 30, 0), ([11, 91, 64], [84, 55, 66], []), [138433, 22585, 0]),
    (
        101,
        42,
        {"train_size": 0.55, "validation_size": 0.45},
        (56, 45, 0),
        ([27, 19, 94], [84, 55, 66], []),
        [89091, 47972, 0],
    ),
    (
        101,
        0,
        {"train_size": 0.5, "validation_size": 0.2, "shuffle": False},
        (51, 20, 30),
        ([20, 21, 22], [0, 1, 2], [71, 72, 73]),
        [70720, 2660, 42005],
    ),
]


def sets(split: Split):
    return split.train, split.validation, split.test


def assert_partition(split, n):
    assert sorted(np.concatenate(sets(split))) == list(range(n))
    assert all(part.dtype == np.int64 for part in sets(split))


@pytest.mark.parametrize(("n", "seed", "sizes", "lengths", "firsts", "sums"), PEER)
def test_split_of_scvi_tools(n, seed, sizes, lengths, firsts, sums, global_rng_untouched):
    split = split_indices(n, seed=seed, **sizes)
    assert tuple(map(len, sets(split))) == lengths
    assert tuple(part[:3].tolist() for part in sets(split)) == firsts
    assert [int((part * np.arange(1, len(part) + 1)).sum()) for part in sets(split)] == sums
    assert_partition(split, n)


def test_every_size_partitions_exactly():
    for n in range(1, 300):
        for train_size, validation_size in ((None, None), (1.0, None), (0.55, 0.45), (0.7, 0.1), (0.01, 0.0)):
            split = split_indices(n, train_size, validation_size, seed=n)
            assert_partition(split, n)
            assert (len(split.train), len(split.validation)) == split_sizes(n, train_size, validation_size)
            assert len(split.train) >= 1


@pytest.mark.parametrize(
    ("n", "sizes", "wanted"),
    [
        (10, (), (9, 1)),
        (11, (), (10, 1)),
        (101, (), (91, 10)),
        (2, (), (2, 0)),
        (101, (0.33, 0.33), (34, 33)),
        (100, (0.55, 0.45), (55, 45)),
    ],
)
def test_sizes(n, sizes, wanted):
    assert split_sizes(n, *sizes) == wanted


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0.0, None), "train_size <= 1\n.*got 0.0"),
        ((1.2, None), "train_size <= 1\n.*got 1.2"),
        ((-0.1, None), "train_size <= 1"),
        ((0.5, 1.0), "validation_size < 1\n.*got 1.0"),
        ((0.5, -0.1), "validation_size < 1"),
        ((0.8, 0.3), r"0.8 \+ 0.3"),
        ((float("nan"), None), "train_size"),
    ],
)
def test_sizes_out_of_range(sizes, message):
    with pytest.raises(ValueError, match=message):
        split_sizes(10, *sizes)


def test_no_cells():
    with pytest.raises(ValueError, match="no cells"):
        split_indices(0)


def test_no_seed_is_fresh_randomness(global_rng_untouched):
    assert not np.array_equal(split_indices(100).train, split_indices(100).train)


def test_stratified_split_keeps_shares(rng, global_rng_untouched):
    values = rng.choice(["a", "b", "c", "d"], p=[0.7, 0.2, 0.09, 0.01], size=1000)
    split = split_indices(1000, 0.7, 0.2, seed=0, stratify_by=values)
    assert_partition(split, 1000)
    assert tuple(map(len, sets(split))) == (700, 200, 100)
    for value, count in zip(*np.unique(values, return_counts=True)):
        for part, share in zip(sets(split), (0.7, 0.2, 0.1)):
            assert abs((values[part] == value).sum() - share * count) <= 2
    np.testing.assert_array_equal(split.train, split_indices(1000, 0.7, 0.2, seed=0, stratify_by=values).train)
    assert np.abs(np.diff(split.train)).mean() > 100  # shuffled, not category after category


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("train_size", [0.05, 0.3, 0.9])
def test_every_category_of_two_cells_trains(seed, train_size):
    values = np.random.default_rng(seed).permutation(np.repeat([f"v{i}" for i in range(5)], [390, 2, 2, 3, 3]))
    split = split_indices(400, train_size, seed=seed, stratify_by=values)
    assert set(values[split.train]) == {f"v{i}" for i in range(5)}
    assert_partition(split, 400)
    assert len(split.train) == split_sizes(400, train_size)[0]


def test_stratify_takes_columns_with_missing_values():
    values = pd.Categorical(["a", None, "b", None] * 10, categories=["a", "b", "unused"])
    split = split_indices(40, 0.5, seed=1, stratify_by=values)
    assert_partition(split, 40)
    assert pd.isna(np.asarray(values)[split.train]).sum() == 10


def test_stratify_is_checked():
    with pytest.raises(ValueError, match="3 values for 4 cells"):
        split_indices(4, stratify_by=["a", "b", "c"])
    with pytest.raises(ValueError, match="10 values with 2 cells or more, but only 2 cells"):
        split_indices(20, 0.1, stratify_by=np.repeat(np.arange(10), 2))


def test_apportion():
    assert apportion(np.array([50, 30, 20]), 10).tolist() == [5, 3, 2]
    assert apportion(np.array([1, 1, 1]), 2).sum() == 2
    assert apportion(np.array([97, 2, 1]), 3, least_c=np.array([1, 1, 0])).tolist() == [2, 1, 0]
    assert apportion(np.array([0, 3]), 3).tolist() == [0, 3]
    for total in range(101):
        counts = np.array([61, 29, 7, 3])
        parts = apportion(counts, total)
        assert parts.sum() == total
        assert (np.abs(parts - counts * total / 100) < 1).all()
        assert (parts <= counts).all()


def test_sets_from_outside_are_taken_as_they_are():
    given = [[5, 1], np.array([0, 3, 2]), [4]]
    split = split_with_indexing(6, given)
    assert [part.tolist() for part in sets(split)] == [[5, 1], [0, 3, 2], [4]]
    split.validation[0] = 5
    assert given[1][0] == 0
    assert given == [[5, 1], given[1], [4]]


def test_sets_from_outside_may_be_masks_or_missing():
    mask = np.arange(6) < 4
    split = split_with_indexing(6, [mask, ~mask])
    assert [part.tolist() for part in sets(split)] == [[0, 1, 2, 3], [4, 5], []]
    assert split_with_indexing(2, [[0, 1], None, np.array([])]).validation.dtype == np.int64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0, 1, 2], [2, 3, 4, 5]], "overlapping indexing between train and valid sets\nCell 2 is there in both"),
        ([[0, 1, 2], [3], [1, 4, 5]], "between train and test sets\nCell 1"),
        ([[0, 1], [2, 3], [3, 4, 5]], "between test and valid sets\nCell 3"),
        ([[0, 1, 1, 2], [3, 4, 5]], "duplicate indexing in train set\nCell 1 is there more than once"),
        ([[0, 1], [6]], "validation set: No cell 6"),
        ([[-7], [2]], "train set: No cell -7"),
        ([[0.5], [2]], "train set: .*integers"),
        ([np.ones(5, bool)], "train set: .*mask"),
        ([[[0]], [2]], "One of the .* is not a np.array\nThe train set has 2 dimensions"),
        (np.arange(6), "not of list type\n.*not a ndarray"),
        ([[], [0, 1, 2, 3, 4, 5]], "no training cells"),
        ([[0], [1], [2], [3, 4, 5]], "got 4 sets"),
    ],
)
def test_sets_from_outside_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        split_with_indexing(6, given)


def test_unused_cells_are_counted():
    with pytest.warns(UserWarning, match="3 of 6 cells are in no set of external_indexing"):
        split_with_indexing(6, [[0, 1], [2]])
    with followed(SCVI_TOOLS), pytest.raises(Warning, match="There are missing indices") as raised:
        split_with_indexing(6, [[0, 1], [2]])
    assert str(raised.value) == "There are missing indices please fix or remove those lines"  # as scvi-tools has it
    assert raised.value.__notes__ == ["3 of 6 cells are in no set."]


def test_a_cell_twice_is_an_exception_of_either_library():
    for kind in (ValueError, Warning):
        with pytest.raises(kind) as raised:
            split_with_indexing(6, [[0, 1, 2], [3, 4, 4], [5]])
        assert str(raised.value) == "There are duplicate indexing in valid set"


def test_split_in_a_column():
    split = split_by_column(pd.Categorical(["test", "train", "validation", "train"]))
    assert [part.tolist() for part in sets(split)] == [[1, 3], [2], [0]]
    with pytest.warns(UserWarning, match="1 of 3 cells are in no set of 'fold'"):
        assert split_by_column(["train", None, "test"], "fold").train.tolist() == [0]
    with pytest.raises(ValueError, match=r"'valid'\. Did you mean 'validation'"):
        split_by_column(["train", "valid"])
    with pytest.raises(ValueError, match="no cell with the value 'train'"):
        split_by_column(["test", "test"])
