"""Which cells make up each minibatch, epoch after epoch.

The order is a pure function of (seed, epoch), so the state of a run is three integers and resuming is exact.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core import settings

__all__ = ["EpochSampler", "Shard", "batch_edges", "settled_seed"]

SMALL_TAIL = 2
"""A last batch of up to this many cells is too small for batch normalisation and joins the one before it."""


def batch_edges(
    n: int,
    batch_size: int,
    *,
    drop_last: bool = False,
    merge_small_tail: bool = False,
    small_tail: int = SMALL_TAIL,
) -> np.ndarray:
    """Edges of the minibatches over ``n`` positions: batch ``i`` is ``edges[i]:edges[i + 1]``.

    Parameters
    ----------
    n
        Number of positions.
    batch_size
        Positions a minibatch.
    drop_last
        Leave out a last batch that is not full. Nothing else ever leaves a position out.
    merge_small_tail
        A last batch of 1 or 2 positions joins the batch before it, where there is one.
    small_tail
        Another number than 2.

    Returns
    -------
    ``(batches + 1,)`` int64, starting at 0.
    """
    edges = np.arange(0, n + 1, batch_size, dtype=np.int64)
    tail = n - int(edges[-1])
    if tail == 0 or drop_last:
        return edges
    if merge_small_tail and tail <= small_tail and len(edges) > 1:
        edges[-1] = n
        return edges
    return np.append(edges, n)


@dataclass(frozen=True)
class Shard:
    """The part of an epoch that one of several processes takes.

    Attributes
    ----------
    rank, size
        This process's number, and how many there are.
    drop_tail
        Leave out up to ``size - 1`` positions so that all processes have equally many; otherwise positions from the
        front are given out twice for the same purpose.
    exact
        Give out every position once: the processes share each minibatch, so that together they do what one process
        does with minibatches ``size`` times as large. The last one may leave a process one position less, or none.
    """

    rank: int = 0
    size: int = 1
    drop_tail: bool = False
    exact: bool = False

    @classmethod
    def of_process_group(cls, drop_tail: bool) -> "Shard":
        """Rank and size from ``torch.distributed``.

        Raises
        ------
        ValueError
            When no process group was started.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise ValueError(
                "distributed_sampler=True shares the cells out among processes, but torch.distributed has no process "
                "group here: call torch.distributed.init_process_group() first, or leave distributed_sampler out."
            )
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size(), drop_tail)

    def count(self, n: int) -> int:
        """How many of ``n`` positions a process gets."""
        if self.exact:
            return n  # shared out minibatch by minibatch
        return n // self.size if self.drop_tail else -(-n // self.size)

    def share(self, order_n: np.ndarray) -> np.ndarray:
        """Part for this process of an epoch's order: every ``size``-th position, from ``rank`` on."""
        if self.size == 1 or self.exact or not len(order_n):
            return order_n
        return np.resize(order_n, self.count(len(order_n)) * self.size)[self.rank :: self.size]


class EpochSampler:
    """Positions of each minibatch; iterating once is one epoch.

    Parameters
    ----------
    n
        Number of positions, numbered from 0.
    batch_size
        Positions a minibatch.
    shuffle
        Give every epoch its own order, drawn from a private generator.
    drop_last, merge_small_tail
        See :func:`batch_edges`.
    seed
        Same seed, same orders. None: fresh randomness. Global generators are neither read nor changed.
    shard
        The part of each epoch that this process takes. All processes need the same seed: None is 0
        when there are several.

    Attributes
    ----------
    last_weight
        Positions of the last minibatch over an equal share of it: 1, save for a last one of uneven shares.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        merge_small_tail: bool = False,
        seed: int | None = None,
        shard: Shard = Shard(),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is a number of cells, at least 1, got {batch_size!r}.")
        self.n, self.batch_size, self.shuffle = int(n), int(batch_size), bool(shuffle)
        self._drop_last, self._merge_small_tail = drop_last, merge_small_tail
        self.seed = settled_seed(seed, shard)
        self._take(shard)
        self.last_weight = 1.0
        self.epoch = 0
        self._resume_at = 0
        self._reached = (0, 0)

    def _take(self, shard: Shard) -> None:
        self.shard = shard
        together = shard.size if shard.exact else 1
        self._edges = batch_edges(
            shard.count(self.n),
            self.batch_size * together,
            drop_last=self._drop_last,
            merge_small_tail=self._merge_small_tail,
            small_tail=SMALL_TAIL * together,
        )

    def take_share(self, rank: int, size: int) -> None:
        """Give out the share of one of several processes from now on, each position to one of them: see ``exact`` of
        :class:`Shard`. The processes need the same seed.
        """
        if self.shard.size == 1:  # whoever asked for another way of sharing keeps it
            self._take(Shard(rank, size, exact=True))

    def __len__(self) -> int:
        """Minibatches an epoch, of all processes together."""
        return len(self._edges) - 1

    def order(self, epoch: int) -> np.ndarray:
        """All positions in the order of one epoch, ``(n,)`` int64, before they are shared out among processes."""
        if not self.shuffle:
            return np.arange(self.n, dtype=np.int64)
        return np.random.default_rng([self.seed, epoch]).permutation(self.n)

    def __iter__(self) -> Iterator[np.ndarray]:
        """One epoch: the positions of each minibatch, ``(batch_size,)`` int64; an ``exact`` share may be empty."""
        epoch, first = self.epoch, self._resume_at
        self.epoch, self._resume_at = epoch + 1, 0
        mine = self.shard.share(self.order(epoch))
        for batch in range(first, len(self)):
            self._reached = (epoch, batch + 1) if batch + 1 < len(self) else (epoch + 1, 0)
            yield self._my_part(mine[self._edges[batch] : self._edges[batch + 1]])

    def coming(self) -> list[np.ndarray]:
        """What the next iteration will give, for whoever reads ahead of it; moves nothing."""
        mine = self.shard.share(self.order(self.epoch))
        parts = [
            mine[start:stop] for start, stop in zip(self._edges[self._resume_at :], self._edges[self._resume_at + 1 :])
        ]
        return [part[self.shard.rank :: self.shard.size] for part in parts] if self.shard.exact else parts

    def _my_part(self, positions: np.ndarray) -> np.ndarray:
        """Positions of a minibatch for this process, and in ``last_weight`` how much more they are than its share."""
        if not self.shard.exact:
            return positions
        mine = positions[self.shard.rank :: self.shard.size]
        self.last_weight = len(mine) * self.shard.size / len(positions)
        return mine

    def state_dict(self) -> dict[str, Any]:
        """Where the epochs stand: the minibatch after the last one handed out. Plain integers, fit for JSON."""
        epoch, batch = self._reached
        return {"seed": self.seed, "epoch": epoch, "batch": batch, "n": self.n, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler stood: the next iteration starts with the minibatch after its last one.

        Raises
        ------
        ValueError
            When the state belongs to another number of cells or another batch size: its orders would not be the same.
        """
        for name in ("n", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"The saved loader had {name}={state[name]}, this one has {getattr(self, name)}: it cannot go on "
                    "in the same order. Make it from the same cells with the same batch size."
                )
        self.seed = int(state["seed"])
        self.epoch, self._resume_at = self._reached = (int(state["epoch"]), int(state["batch"]))


def settled_seed(seed: int | None, shard: Shard = Shard()) -> int:
    """The seed given, or that of ``celbo.settings``, or a fresh one (0 for several processes, which must agree)."""
    given = settings.seed if seed is None else seed
    if given is not None:
        return int(given)
    return 0 if shard.size > 1 else secrets.randbits(63)
