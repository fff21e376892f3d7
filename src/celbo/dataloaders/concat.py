"""Several sets of cells side by side: each minibatch is a tuple with one part of each set."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checked
from .base import Loader, Tables
from .dataset import AnnTorchDataset
from .loader import AnnDataLoader

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["ConcatDataLoader"]


class ConcatDataLoader(Loader):
    """Minibatches of several sets of cells; the longest sets the length of an epoch, the others start over within it.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    indices_list
        Cells of each set, as row numbers or boolean masks. An empty set gives None as its part of every minibatch.
    shuffle
        Give every pass over a set its own order.
    batch_size
        Cells of each part; None or 0 takes ``celbo.settings.batch_size``.
    data_and_attributes
        Registry keys to read, see :class:`~celbo.dataloaders.AnnDataLoader`.
    drop_last
        Leave out last minibatches that are not full.
    distributed_sampler
        Give this process its share of each set.
    **data_loader_kwargs
        For :class:`~celbo.dataloaders.AnnDataLoader`: ``seed`` (each set has orders of its own), ``merge_small_tail``,
        ``load_sparse_tensor``, ...

    Attributes
    ----------
    dataloaders
        One for each set.
    largest_dl
        The one with the most minibatches.
    last_indices
        Rows of the first part of the minibatch handed out last.

    Raises
    ------
    ValueError
        For no set at all.

    Notes
    -----
    scvi-tools keeps the minibatches of a shorter set and hands out the same ones again; here each pass is a new order.
    The order is a function of seed, epoch and minibatch, so a loader can go on exactly where another one stood.
    """

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        indices_list: Sequence[Any],
        shuffle: bool = False,
        batch_size: int | None = 128,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        drop_last: bool | Sequence[bool] = False,
        distributed_sampler: bool = False,
        **data_loader_kwargs: Any,
    ) -> None:
        if not len(indices_list):
            raise ValueError("indices_list is empty: give the cells of at least one set.")
        self.adata_manager = adata_manager
        drops = [drop_last] * len(indices_list) if isinstance(drop_last, bool | int) else drop_last
        options = dict(data_loader_kwargs)
        sparse = bool(options.pop("load_sparse_tensor", False))
        tables = options.pop("dataset", None) or AnnTorchDataset(adata_manager, data_and_attributes, sparse)
        seed = options.pop("seed", None)
        loaders = [
            AnnDataLoader(
                adata_manager,
                indices,
                batch_size,
                shuffle=shuffle,
                drop_last=bool(drop),
                distributed_sampler=distributed_sampler,
                dataset=tables,
                seed=None if seed is None else seed + part,
                **options,
            )
            for part, (indices, drop) in enumerate(zip(indices_list, drops, strict=True))
        ]
        self._take_loaders(loaders)

    def _take_loaders(self, loaders: list[AnnDataLoader]) -> None:
        """Begin with one loader for each set; a subclass may make them of several data sets."""
        self.dataloaders = loaders
        self.largest_dl = max(loaders, key=len)
        self.epoch = 0
        self._resume_at = 0
        self._reached = (0, 0)

    @property
    def tables(self) -> Tables:  # type: ignore[override]
        """Where all cells can be read."""
        return self.dataloaders[0].tables

    @property
    def is_resumable(self) -> bool:
        """Whether each set can go on in the middle of an epoch."""
        return all(loader.is_resumable for loader in self.dataloaders)

    @property
    def last_indices(self) -> np.ndarray:  # type: ignore[override]
        """Rows of the first part of the minibatch handed out last, in its order."""
        return self.dataloaders[0].last_indices

    @property
    def last_weight(self) -> float:
        """Cells of the first part of the last minibatch over an equal share of it, see :class:`AnnDataLoader`."""
        return self.dataloaders[0].last_weight

    def take_share(self, rank: int, size: int) -> None:
        """Read the share of one of several processes from now on, of each set."""
        for loader in self.dataloaders:
            loader.take_share(rank, size)
        self.largest_dl = max(self.dataloaders, key=len)

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return len(self.largest_dl)

    def __iter__(self) -> Iterator[tuple[dict[str, Any] | None, ...]]:
        """One epoch of minibatches."""
        epoch, first = self.epoch, self._resume_at
        self.epoch, self._resume_at = epoch + 1, 0
        self._begin_epoch(epoch)
        streams = [self._endless(loader, epoch, first) for loader in self.dataloaders]
        longest = self.dataloaders.index(self.largest_dl)
        for batch in range(first, len(self)):
            self._reached = (epoch, batch + 1) if batch + 1 < len(self) else (epoch + 1, 0)
            parts = tuple(next(stream) for stream in streams)
            if parts[longest] is not None:  # else other processes have all the cells of it
                yield parts

    def _begin_epoch(self, epoch: int) -> None:
        """Hook of subclasses whose sets change from epoch to epoch (their sizes do not)."""

    def _endless(self, loader: AnnDataLoader, epoch: int, first: int) -> Iterator[dict[str, Any] | None]:
        """Minibatches of one set from the ``first`` of an epoch on, pass after pass."""
        n = len(loader)
        if not n:
            yield from itertools.repeat(None)
        passes_an_epoch = -(-len(self) // n)
        position = {"epoch": epoch * passes_an_epoch + first // n, "batch": first % n}
        loader.load_state_dict(loader.state_dict() | position)
        while True:
            yield from loader.parts()

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, to go on exactly there."""
        epoch, batch = self._reached
        return {"epoch": epoch, "batch": batch, "loaders": [loader.state_dict() for loader in self.dataloaders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader stood that gave ``state``; the next iteration starts after its last minibatch.

        Raises
        ------
        ValueError
            When the state belongs to other sets of cells or another batch size.
        """
        for loader, part in zip(self.dataloaders, state["loaders"], strict=True):
            loader.load_state_dict(part)
        self.epoch, self._resume_at = self._reached = (int(state["epoch"]), int(state["batch"]))
