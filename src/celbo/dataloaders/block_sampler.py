"""Shuffling of data that stay on disk: random blocks of neighbouring rows, pooled, and shuffled within the pool.

The order is a pure function of (seed, epoch) and three sizes, so that a run can go on at any minibatch.

Dims: n positions, b blocks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .row_sources.source import RowCost
from .sampler import EpochSampler, Shard

__all__ = ["POOL_BYTES", "BlockSampler", "PooledOrder", "block_order", "pooled_order", "sizes_for"]

POOL_BYTES = 2**27
"""Memory that the rows of a pool may take: 128 MiB. Two pools are held at a time, one used and one being read."""

BLOCK_BYTES = 2**17
"""Least size of a block as it comes from the file: 128 KiB, a few hundred microseconds of reading."""

NUMBER_BYTES = 64
"""What a row's numbers (place, position, row, order) take while a pool is made, which counts where genes are few."""

ALONE = Shard()
"""The share of the only process."""

LEAST_BLOCKS = 128
"""Blocks a pool has at least, so that data sorted by cell type or batch come out mixed."""


def block_order(n_blocks: int, n_pools: int, seed: int, epoch: int) -> np.ndarray:
    """Order in which the blocks of an epoch are read, ``(b,)`` int64: a pure function of its arguments.

    The file is thought of as stretches of as many blocks as there are pools, and each pool takes a random block of each
    stretch: so that pools of cells sorted by type have the types in the shares that the file has, and not by chance
    (128 random blocks are few).
    """
    rng = np.random.default_rng([seed, epoch])
    turn_sp = np.tile(np.arange(n_pools), (-(-n_blocks // n_pools), 1))
    turn_b = rng.permuted(turn_sp, axis=1).ravel()[:n_blocks]
    return np.lexsort((rng.random(n_blocks), turn_b))


class PooledOrder:
    """All positions in the order of one epoch, each exactly once: a pure function of what it is made of.

    Blocks of ``block_rows`` neighbouring positions come in a random order (:func:`block_order`). What follows is cut
    into pools of ``pool_rows``, and each pool is shuffled, when it is asked for: the order as a whole is never in
    memory.

    Parameters
    ----------
    n
        Number of positions.
    block_rows, pool_rows
        Positions a block, and a pool.
    seed, epoch
        What the order is a function of.
    size
        Number of processes. Each has pools of its own, of other blocks, so that each reads its part of the file:
        the entries ``rank::size`` of the order are those of one process.
    """

    KEPT = 3
    """Pools that are remembered: those that are read ahead, and those that are used."""

    def __init__(self, n: int, block_rows: int, pool_rows: int, seed: int, epoch: int, size: int = 1) -> None:
        self.n, self.block_rows, self.pool_rows = n, block_rows, pool_rows
        self._key, self.size = (seed, epoch), size
        n_blocks = -(-n // block_rows)
        self._block_b = block_order(n_blocks, max(1, -(-n // pool_rows)), seed, epoch)
        self._missing = n_blocks * block_rows - n  # from the last block
        self._last_at = int(np.flatnonzero(self._block_b == n_blocks - 1)[0]) if n else 0
        self._pools: dict[tuple[int, int], np.ndarray] = {}

    def at(self, places_k: np.ndarray) -> np.ndarray:
        """Positions at some places of the order, ``(k,)`` int64."""
        rank_k, mine_k = places_k % self.size, places_k // self.size
        pool_k = mine_k // self.pool_rows
        found_k = np.empty(len(places_k), np.int64)
        for rank, pool in sorted(set(zip(rank_k.tolist(), pool_k.tolist()))):
            here = (rank_k == rank) & (pool_k == pool)
            found_k[here] = self._pool(rank, pool)[mine_k[here] - pool * self.pool_rows]
        return found_k

    def _pool(self, rank: int, number: int) -> np.ndarray:
        pool = self._pools.pop((rank, number), None)
        if pool is None:
            start = sum(len(range(r, self.n, self.size)) for r in range(rank))
            stop = start + len(range(rank, self.n, self.size))
            first = start + number * self.pool_rows
            pool = self._by_blocks(first, min(first + self.pool_rows, stop))
            np.random.default_rng([*self._key, 1, rank, number]).shuffle(pool)
        self._pools[rank, number] = pool  # the newest last
        while len(self._pools) > max(self.KEPT, self.size):
            del self._pools[next(iter(self._pools))]
        return pool

    def _by_blocks(self, first: int, last: int) -> np.ndarray:
        """Positions block by block, before they are shuffled, from one place to another."""
        place = np.arange(first, last)
        place[place >= (self._last_at + 1) * self.block_rows - self._missing] += self._missing
        return self._block_b[place // self.block_rows] * self.block_rows + place % self.block_rows


def pooled_order(n: int, block_rows: int, pool_rows: int, seed: int, epoch: int, size: int = 1) -> np.ndarray:
    """The whole of a :class:`PooledOrder`, ``(n,)`` int64."""
    return PooledOrder(n, block_rows, pool_rows, seed, epoch, size).at(np.arange(n))


def sizes_for(cost: RowCost, n: int, batch_size: int, pool_bytes: int | None = None) -> tuple[int, int]:
    """Rows a block and rows a pool, which hold memory under a bound and mix well.

    Parameters
    ----------
    cost
        Of the rows.
    n
        How many there are: pools are of about one size, so that each can have its part of every stretch of a file.
    batch_size
        Rows a minibatch; a pool is a whole number of them, two at least.
    pool_bytes
        Memory a pool may take; None: :data:`POOL_BYTES`.
    """
    bound = POOL_BYTES if pool_bytes is None else pool_bytes
    most = max(2, int(bound / (cost.bytes_per_row + NUMBER_BYTES)) // batch_size)
    batches = -(-n // batch_size)
    pool_rows = min(most, max(2, -(-batches // max(1, -(-batches // most))))) * batch_size
    wanted = max(cost.chunk_rows, int(BLOCK_BYTES / cost.bytes_per_row))
    return max(1, min(wanted, pool_rows // LEAST_BLOCKS)), pool_rows


class BlockSampler(EpochSampler):
    """Positions of each minibatch, read by blocks: see :class:`PooledOrder`.

    Parameters
    ----------
    n, batch_size
        Number of positions, and how many make a minibatch. Neighbouring positions should be neighbouring rows.
    sizes
        Rows a block and rows a pool.
    drop_last, merge_small_tail, seed, shard
        As in :class:`~celbo.dataloaders.sampler.EpochSampler`.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        sizes: tuple[int, int],
        *,
        drop_last: bool = False,
        merge_small_tail: bool = False,
        seed: int | None = None,
        shard: Shard = ALONE,
    ) -> None:
        self.block_rows, self.pool_rows = sizes
        super().__init__(
            n, batch_size, shuffle=True, drop_last=drop_last, merge_small_tail=merge_small_tail, seed=seed, shard=shard
        )

    def _order(self, epoch: int) -> Callable[[np.ndarray], np.ndarray]:
        return PooledOrder(self.n, self.block_rows, self.pool_rows, self.seed, epoch, self.shard.size).at

    def state_dict(self) -> dict[str, Any]:
        """Where the epochs stand, with the sizes that the order depends on."""
        return {**super().state_dict(), "block_rows": self.block_rows, "pool_rows": self.pool_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler stood; the sizes of its blocks and pools are taken over."""
        super().load_state_dict(state)
        self.block_rows, self.pool_rows = int(state["block_rows"]), int(state["pool_rows"])
