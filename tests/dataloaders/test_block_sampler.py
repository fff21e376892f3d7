"""Order of data on disk: blocks, pools, and that it can be begun anywhere."""

import numpy as np
import pytest

from celbo.dataloaders.block_sampler import BlockSampler, PooledOrder, block_order, pooled_order, sizes_for
from celbo.dataloaders.row_sources.source import RowCost
from celbo.dataloaders.sampler import Shard


@pytest.mark.parametrize(("n", "block", "pool"), [(1, 4, 8), (10, 3, 4), (100, 7, 20), (100, 100, 100), (37, 1, 1000)])
@pytest.mark.parametrize("size", [1, 3])
def test_every_position_once(n, block, pool, size):
    order = pooled_order(n, block, pool, seed=3, epoch=5, size=size)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_a_pure_function_of_seed_and_epoch(global_rng_untouched):
    def order(seed, epoch):
        return pooled_order(200, 8, 50, seed, epoch).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(*of)) for of in [(1, 2), (1, 3), (2, 2)]}) == 3
    assert block_order(9, 3, 1, 2).tolist() == block_order(9, 3, 1, 2).tolist()


@pytest.mark.parametrize(("n_blocks", "n_pools"), [(0, 1), (1, 5), (12, 4), (13, 4), (1000, 8), (37, 1), (37, 37)])
def test_every_block_once(n_blocks, n_pools):
    assert sorted(block_order(n_blocks, n_pools, 0, 0)) == list(range(n_blocks))


def test_each_pool_has_a_block_of_each_stretch_of_the_file():
    order_b = block_order(12 * 50, 50, seed=4, epoch=1)
    for pool in order_b.reshape(50, 12):
        assert sorted(pool // 50) == list(range(12))
    within = order_b.reshape(50, 12) % 50
    assert np.abs(np.corrcoef(np.sort(within, axis=1), rowvar=False)).mean() < 0.9  # which block it is, is by chance


def test_the_place_of_a_block_is_uniform():
    places = np.stack([np.argsort(block_order(20, 4, seed, 0)) for seed in range(2000)])
    expected = (20 - 1) / 2
    assert np.abs(places.mean(axis=0) - expected).max() < 4 * np.sqrt((20**2 - 1) / 12 / 2000)


def test_places_can_be_asked_for_in_any_order(rng):
    whole = pooled_order(1003, 7, 64, seed=2, epoch=3, size=2)
    order = PooledOrder(1003, 7, 64, seed=2, epoch=3, size=2)
    for _ in range(50):
        places = rng.integers(0, 1003, 20)
        np.testing.assert_array_equal(order.at(places), whole[places])


def test_a_pool_is_whole_blocks_shuffled():
    order = pooled_order(1000, 10, 100, seed=0, epoch=0)
    for pool in order.reshape(-1, 100):
        blocks, counts = np.unique(pool // 10, return_counts=True)
        assert counts.tolist() == [10] * 10
        assert np.abs(np.diff(pool // 10)).mean() > 5  # blocks are not left together
        assert np.ptp(blocks) > 30  # and come from all over the file


def test_minibatches_of_sorted_data_are_mixed():
    """Rows sorted by type: each minibatch has about the share of each type that the data have."""
    n, n_types = 20_000, 10
    type_n = np.arange(n) // (n // n_types)
    sizes = sizes_for(RowCost(1608.0, 1), n, 128, pool_bytes=1608 * 8192)
    batches = list(BlockSampler(n, 128, sizes, seed=0))[:-1]
    share = np.stack([np.bincount(type_n[batch], minlength=n_types) / 128 for batch in batches])
    by_chance = np.sqrt(0.1 * 0.9 / 128)
    assert share.std(axis=0).mean() < 1.1 * by_chance  # blocks in an order by chance give 1.4, unshuffled ones 0.3


class TestProcesses:
    @pytest.mark.parametrize("n", [96, 101])
    def test_shares_are_of_other_blocks_and_make_up_the_whole(self, n):
        samplers = []
        for rank in range(2):
            sampler = BlockSampler(n, 8, (4, 16), seed=1)
            sampler.take_share(rank, 2)
            samplers.append(sampler)
        parts = [list(sampler) for sampler in samplers]
        assert len(parts[0]) == len(parts[1])
        mine = [np.concatenate(part) for part in parts]
        assert sorted(np.concatenate(mine).tolist()) == list(range(n))
        of_both = np.intersect1d(mine[0] // 4, mine[1] // 4)
        assert len(of_both) <= 1  # the block at the border

    def test_shares_that_repeat_a_few(self):
        parts = [list(BlockSampler(21, 4, (2, 8), seed=1, shard=Shard(rank, 2))) for rank in range(2)]
        assert [len(np.concatenate(part)) for part in parts] == [11, 11]
        assert set(np.concatenate(parts[0] + parts[1]).tolist()) == set(range(21))


class TestState:
    def test_goes_on_in_the_middle_of_an_epoch(self):
        whole = BlockSampler(50, 8, (4, 16), seed=2)
        epochs = [list(whole), list(whole)]
        stopped = BlockSampler(50, 8, (4, 16), seed=2)
        list(stopped)
        second = iter(stopped)
        for _ in range(3):
            next(second)
        state = stopped.state_dict()
        resumed = BlockSampler(50, 8, (1, 8), seed=9)  # made with other sizes and seed: those of the state hold
        resumed.load_state_dict(state)
        assert [batch.tolist() for batch in resumed.coming()] == [batch.tolist() for batch in epochs[1][3:]]
        assert [batch.tolist() for batch in resumed] == [batch.tolist() for batch in epochs[1][3:]]

    def test_other_data_are_refused(self):
        with pytest.raises(ValueError, match="n=50"):
            BlockSampler(51, 8, (4, 16)).load_state_dict(BlockSampler(50, 8, (4, 16)).state_dict())


class TestSizes:
    @pytest.mark.parametrize("bytes_per_row", [16.0, 1608.0, 48_008.0, 1e9])
    @pytest.mark.parametrize("chunk_rows", [1, 500, 10**6])
    def test_a_pool_keeps_the_bound_and_many_blocks(self, bytes_per_row, chunk_rows):
        block, pool = sizes_for(RowCost(bytes_per_row, chunk_rows), 10**7, 128, 2**27)
        assert pool % 128 == 0
        assert pool * bytes_per_row <= 2**27 or pool == 2 * 128
        assert 1 <= block <= max(1, pool // 128)

    def test_blocks_are_as_large_as_the_chunks_of_the_file(self):
        assert sizes_for(RowCost(1608.0, 300), 10**6, 128)[0] == 300

    @pytest.mark.parametrize("n", [1, 129, 20_000, 83_000, 84_000, 10**6])
    def test_pools_are_of_about_one_size(self, n):
        _, pool = sizes_for(RowCost(1608.0, 1), n, 128)
        most = 2**27 // (1608 + 64) // 128 * 128
        n_pools = -(-n // pool)
        assert n_pools == -(-n // most)
        assert n_pools * pool - n < 128 * n_pools or pool == 2 * 128
