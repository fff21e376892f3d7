import itertools
import json

import numpy as np
import pytest
import torch

from celbo.core import settings
from celbo.dataloaders.sampler import EpochSampler, Shard, batch_edges

BATCH_SIZES = [1, 2, 3, 4, 5, 6, 7, 128]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("merge", [False, True])
def test_no_size_loses_a_cell(batch_size, merge):
    for n in range(301):
        sizes = np.diff(batch_edges(n, batch_size, merge_small_tail=merge))
        assert sizes.sum() == n
        assert (sizes[:-1] == batch_size).all()
        assert len(sizes) == 0 or 0 < sizes[-1] <= batch_size + 2 * merge


@pytest.mark.parametrize("batch_size", [3, 4, 5, 6, 7, 128])
def test_no_small_batch_in_training(batch_size):
    for n in range(3, 301):
        assert np.diff(batch_edges(n, batch_size, merge_small_tail=True)).min() >= 3


def test_batches_of_two_that_were_asked_for_stay():
    assert np.diff(batch_edges(6, 2, merge_small_tail=True)).tolist() == [2, 2, 2]
    assert np.diff(batch_edges(7, 2, merge_small_tail=True)).tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1]), (2, [2]), (128, [128]), (129, [129]), (130, [130]), (131, [128, 3])]
)
def test_where_the_tail_goes(n, sizes):
    assert np.diff(batch_edges(n, 128, merge_small_tail=True)).tolist() == sizes


def test_drop_last_drops_just_the_last():
    for n in range(40):
        assert np.diff(batch_edges(n, 6, drop_last=True, merge_small_tail=True)).tolist() == [6] * (n // 6)


def epochs(sampler, count):
    return [np.concatenate(list(sampler)) for _ in range(count)]


def test_without_shuffling_every_epoch_is_in_order():
    for order in epochs(EpochSampler(20, 6), 2):
        np.testing.assert_array_equal(order, np.arange(20))


def test_epochs_differ_and_seeds_repeat(global_rng_untouched):
    first, again, other = (epochs(EpochSampler(50, 8, shuffle=True, seed=seed), 3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for order in first:
        assert sorted(order) == list(range(50))
    for one, two in itertools.combinations(first, 2):
        assert not np.array_equal(one, two)


def test_no_seed_is_fresh_randomness(global_rng_untouched):
    assert not np.array_equal(
        epochs(EpochSampler(50, 8, shuffle=True), 1), epochs(EpochSampler(50, 8, shuffle=True), 1)
    )


def test_seed_of_the_settings(monkeypatch):
    monkeypatch.setattr(settings, "seed", 5)
    np.testing.assert_array_equal(
        epochs(EpochSampler(50, 8, shuffle=True), 2), epochs(EpochSampler(50, 8, shuffle=True, seed=5), 2)
    )


def test_a_broken_off_epoch_is_not_resumed_by_accident():
    sampler = EpochSampler(20, 6, shuffle=True, seed=0)
    next(iter(sampler))
    assert sorted(np.concatenate(list(sampler))) == list(range(20))


@pytest.mark.parametrize("batches", range(13))
def test_resume_goes_on_exactly(batches):
    """4 batches an epoch, 3 epochs: whatever was handed out before the save and after the load is the whole run."""
    sampler = EpochSampler(20, 6, shuffle=True, seed=3)
    wanted = [batch.tolist() for _ in range(3) for batch in sampler]
    killed = EpochSampler(20, 6, shuffle=True, seed=3)
    before = [batch.tolist() for batch in itertools.islice(forever(killed), batches)]
    resumed = EpochSampler(20, 6, shuffle=True, seed=99)
    resumed.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    after = [batch.tolist() for batch in itertools.islice(forever(resumed), 12 - batches)]
    assert before + after == wanted


def forever(sampler):
    while True:
        yield from sampler


@pytest.mark.parametrize(("n", "batch_size"), [(21, 6), (20, 7)])
def test_state_of_another_loader_is_refused(n, batch_size):
    with pytest.raises(ValueError, match="saved loader"):
        EpochSampler(n, batch_size).load_state_dict(EpochSampler(20, 6).state_dict())


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_is_checked(batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        EpochSampler(5, batch_size)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 20])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_tail", [False, True])
def test_shards_share_an_epoch_out(n, size, drop_tail):
    shares = [
        np.concatenate(
            [*EpochSampler(n, 2, shuffle=True, shard=Shard(rank, size, drop_tail), seed=1), np.array([], int)]
        )
        for rank in range(size)
    ]
    assert len({len(share) for share in shares}) == 1
    given = np.concatenate(shares)
    if drop_tail:
        assert len(given) == len(set(given)) == n - n % size
    else:
        assert set(given) == set(range(n))
        assert len(given) - n < size


def test_shards_without_a_seed_agree_on_the_order():
    shares = [epochs(EpochSampler(8, 2, shuffle=True, shard=Shard(rank, 2)), 1)[0] for rank in range(2)]
    assert sorted(np.concatenate(shares)) == list(range(8))


def test_no_process_group_is_said():
    with pytest.raises(ValueError, match="init_process_group"):
        Shard.of_process_group(False)


def test_shard_of_a_process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert Shard.of_process_group(True) == Shard(rank=0, size=1, drop_tail=True)
    finally:
        torch.distributed.destroy_process_group()
