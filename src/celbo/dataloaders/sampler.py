"""Which cells make up each minibatch, epoch after epoch.

The order is a pure function of (seed, epoch), so the state of a run is three integers and resuming is exact.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core import settings

__all__ = ["Coming", "EpochSampler", "Shard", "batch_edges", "settled_seed"]

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

    def places(self, n: int, start: int, stop: int) -> np.ndarray:
        """Where in the order of an epoch this process's part of a minibatch is.

        Parameters
        ----------
        n
            Positions of the epoch.
        start, stop
            Edges of the minibatch: among all positions where ``exact``, else among this process's.
        """
        if self.exact:
            return np.arange(start + self.rank, stop, self.size)
        return np.arange(start, stop) if self.size == 1 else (self.rank + self.size * np.arange(start, stop)) % n


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

    Raises
    ------
    ValueError
        ``batch_size`` is below 1.
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
        return self._order(epoch)(np.arange(self.n, dtype=np.int64))

    def _order(self, epoch: int) -> Callable[[np.ndarray], np.ndarray]:
        """What gives the positions at some places of an epoch's order."""
        if not self.shuffle:
            return lambda places_k: places_k
        return np.random.default_rng([self.seed, epoch]).permutation(self.n).__getitem__

    def __iter__(self) -> Iterator[np.ndarray]:
        """One epoch: the positions of each minibatch, ``(batch_size,)`` int64; an ``exact`` share may be empty."""
        coming = self.coming()
        for _, positions in zip(self.advance(), coming, strict=True):
            yield positions

    def advance(self) -> Iterator[int]:
        """One epoch for whoever has its minibatches from :meth:`coming`: how many positions each has."""
        epoch, first = self.epoch, self._resume_at
        self.epoch, self._resume_at = epoch + 1, 0
        for batch in range(first, len(self)):
            self._reached = (epoch, batch + 1) if batch + 1 < len(self) else (epoch + 1, 0)
            start, stop = int(self._edges[batch]), int(self._edges[batch + 1])
            n = len(self.shard.places(self.n, start, stop))
            if self.shard.exact:
                self.last_weight = n * self.shard.size / (stop - start)
            yield n

    def coming(self) -> "Coming":
        """What the next iteration will give, for whoever reads ahead of it (:meth:`advance`); moves nothing."""
        return Coming(self._order(self.epoch), self.shard, self.n, self._edges[self._resume_at :])

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


class Coming(Sequence[np.ndarray]):
    """Positions of the minibatches of an epoch, each worked out when it is asked for.

    Parameters
    ----------
    order
        Gives the positions at some places of the epoch's order.
    shard
        The part that this process takes.
    n
        Positions of the epoch.
    edges
        Of the minibatches.
    """

    def __init__(self, order: Callable[[np.ndarray], np.ndarray], shard: Shard, n: int, edges: np.ndarray) -> None:
        self._order, self._shard, self._n, self._edges = order, shard, n, edges

    def __len__(self) -> int:
        return max(0, len(self._edges) - 1)

    def __getitem__(self, batch: Any) -> Any:
        """One minibatch, or a list of them for a slice."""
        if isinstance(batch, slice):
            return [self[one] for one in range(len(self))[batch]]
        one = range(len(self))[batch]
        return self._order(self._shard.places(self._n, int(self._edges[one]), int(self._edges[one + 1])))


def settled_seed(seed: int | None, shard: Shard = Shard()) -> int:
    """The seed given, or that of ``celbo.settings``, or a fresh one (0 for several processes, which must agree)."""
    given = settings.seed if seed is None else seed
    if given is not None:
        return int(given)
    return 0 if shard.size > 1 else secrets.randbits(63)
