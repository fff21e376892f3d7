"""Shuffling of data that stay on disk: random blocks of neighbouring rows, pooled, and shuffled within the pool.

The order is a pure function of (seed, epoch) and three sizes, so that a run can go on at any minibatch.

Dims: n positions, b blocks.
"""

from typing import Any

import numpy as np

from .row_source import RowCost
from .sampler import EpochSampler, Shard

__all__ = ["POOL_BYTES", "BlockSampler", "block_order", "pooled_order", "sizes_for"]

POOL_BYTES = 2**27
"""Memory that the rows of a pool may take: 128 MiB. Two pools are held at a time, one used and one being read."""

BLOCK_BYTES = 2**17
"""Least size of a block as it comes from the file: 128 KiB, a few hundred microseconds of reading."""

ALONE = Shard()
"""The share of the only process."""

LEAST_BLOCKS = 128
"""Blocks a pool has at least, so that data sorted by cell type or batch come out mixed."""


def block_order(n_blocks: int, seed: int, epoch: int) -> np.ndarray:
    """Order in which the blocks of an epoch are read, ``(b,)`` int64: a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n_blocks)


def pooled_order(n: int, block_rows: int, pool_rows: int, seed: int, epoch: int, size: int = 1) -> np.ndarray:
    """All positions in the order of one epoch, each exactly once; a pure function of its arguments.

    Blocks of ``block_rows`` neighbouring positions come in random order (:func:`block_order`). What follows is cut into
    pools of ``pool_rows``, and each pool is shuffled.

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
        positions ``rank::size`` of the answer are those of one process.

    Returns
    -------
    ``(n,)`` int64.
    """
    n_blocks = -(-n // block_rows)
    first_b = block_order(n_blocks, seed, epoch) * block_rows
    order_n = (first_b[:, None] + np.arange(block_rows)).ravel()
    order_n = order_n[order_n < n]
    rng = np.random.default_rng([seed, epoch, 1])
    mixed_n = np.empty(n, np.int64)
    start = 0
    for rank in range(size):
        mine = order_n[start : start + len(range(rank, n, size))]
        for first in range(0, len(mine), pool_rows):
            rng.shuffle(mine[first : first + pool_rows])
        mixed_n[rank::size] = mine
        start += len(mine)
    return mixed_n


def sizes_for(cost: RowCost, batch_size: int, pool_bytes: int | None = None) -> tuple[int, int]:
    """Rows a block and rows a pool, which hold memory under a bound and mix well.

    Parameters
    ----------
    cost
        Of the rows.
    batch_size
        Rows a minibatch; a pool is a whole number of them, two at least.
    pool_bytes
        Memory a pool may take; None: :data:`POOL_BYTES`.
    """
    bound = POOL_BYTES if pool_bytes is None else pool_bytes
    pool_rows = max(2, int(bound / cost.bytes_per_row) // batch_size) * batch_size
    wanted = max(cost.chunk_rows, int(BLOCK_BYTES / cost.bytes_per_row))
    return max(1, min(wanted, pool_rows // LEAST_BLOCKS)), pool_rows


class BlockSampler(EpochSampler):
    """Positions of each minibatch, read by blocks: see :func:`pooled_order`.

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

    def order(self, epoch: int) -> np.ndarray:
        """All positions in the order of one epoch, ``(n,)`` int64, before they are shared out among processes."""
        return pooled_order(self.n, self.block_rows, self.pool_rows, self.seed, epoch, self.shard.size)

    def state_dict(self) -> dict[str, Any]:
        """Where the epochs stand, with the sizes that the order depends on."""
        return {**super().state_dict(), "block_rows": self.block_rows, "pool_rows": self.pool_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler stood; the sizes of its blocks and pools are taken over."""
        super().load_state_dict(state)
        self.block_rows, self.pool_rows = int(state["block_rows"]), int(state["pool_rows"])
