"""The minibatches of one of several processes, for loaders that are made by hand."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from ..core import checked
from .sampler import batch_edges

__all__ = ["BatchDistributedSampler"]


class BatchDistributedSampler(DistributedSampler):
    """Positions of a data set in minibatches, shared out over the processes; goes into a loader as ``sampler``.

    Parameters
    ----------
    dataset
        What is shared out; only its length counts.
    batch_size
        Positions a minibatch and process.
    drop_last
        Leave out a last minibatch that is not full.
    drop_dataset_tail
        Leave out positions that cannot be shared out evenly, instead of giving some out twice.
    **kwargs
        ``num_replicas``, ``rank``, ``shuffle``, ``seed`` of :class:`torch.utils.data.DistributedSampler`. Without the
        first two there must be a process group. Call ``set_epoch`` for another order.

    Raises
    ------
    ValueError
        Nothing would be left to give out.
    """

    @checked
    def __init__(
        self,
        dataset: Any,
        batch_size: int = 128,
        drop_last: bool = False,
        drop_dataset_tail: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset, drop_last=drop_dataset_tail, **kwargs)
        self.batch_size, self.drop_last_batch = batch_size, drop_last
        if not len(self):
            raise ValueError(
                f"{len(dataset)} positions over {self.num_replicas} processes in minibatches of {batch_size} leave "
                "none: make batch_size smaller, or do not drop what is left over."
            )

    def _edges(self) -> np.ndarray:
        return batch_edges(self.num_samples, self.batch_size, drop_last=self.drop_last_batch)

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]  # torch gives single positions
        """An epoch of minibatches of this process."""
        positions, edges = list(super().__iter__()), self._edges()
        return (positions[start:end] for start, end in itertools.pairwise(edges))

    def __len__(self) -> int:
        """Minibatches an epoch and process."""
        return len(self._edges()) - 1
