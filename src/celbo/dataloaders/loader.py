"""Minibatches of cells."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..core import UnknownArgumentError, checked, settings
from ..store.mapped import is_mapped, taken
from .base import Loader
from .block_sampler import BlockSampler, sizes_for
from .dataset import AnnTorchDataset, all_rows, in_order, row_numbers
from .read_ahead import read_ahead
from .resident import ResidentTables
from .sampler import EpochSampler, Shard

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["AnnDataLoader"]

logger = logging.getLogger("celbo")

WORKER_OPTIONS = frozenset(
    {
        "num_workers",
        "persistent_workers",
        "prefetch_factor",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "in_order",
    }
)
"""Options of torch's DataLoader about worker processes. There are none here; the minibatches are the same."""


class AnnDataLoader(Loader):
    """Minibatches of registered data, rows in the order asked; iterating again gives the next epoch.

    Each minibatch is a dict of fresh tensors by registry key: ``X`` ``(n, g)`` float32, fields of ``obs`` ``(n, 1)``,
    of ``obsm`` ``(n, k)``; ``batch``, ``labels``, ``extra_categorical_covs`` and ``ind_x`` are int64, all else float32.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    indices
        Cells to read: row numbers in any order, with repeats if you like, or a boolean mask. None: all.
    batch_size
        Cells a minibatch; None or 0 takes ``celbo.settings.batch_size``.
    shuffle
        Give every epoch its own order.
    sampler
        Instead of the loader's own order: an iterable with ``len()``, each item of which is the positions in
        ``indices`` that make up one minibatch.
    drop_last
        Leave out a last minibatch that is not full.
    drop_dataset_tail
        With ``distributed_sampler``: leave out the cells that cannot be shared out evenly, instead of repeating some.
    data_and_attributes
        Registry keys to read, as a list or as a dict of key to dtype. None: every key with one row a cell.
    iter_ndarray
        Give numpy arrays instead of tensors.
    distributed_sampler
        Give this process its share of the cells (``torch.distributed`` must have a process group).
    load_sparse_tensor
        Keys stored sparse come out as sparse tensors of torch, of the same layout (CSR or CSC).
    seed
        Of the shuffling. None: ``celbo.settings.seed``, and fresh randomness where that is None too. The global random
        generators are neither read nor changed.
    merge_small_tail
        A last minibatch of 1 or 2 cells joins the one before it. For training, where batch normalisation cannot work
        with them; no cell is lost.
    pin_memory
        Give tensors in pinned memory where a CUDA device is there.
    dataset
        The tables to read from, when another loader of the same manager has them already; it then decides on
        ``data_and_attributes`` and ``load_sparse_tensor``.
    pool_bytes
        Memory for the rows of data on disk that are read and shuffled together; None: 128 MiB. Two such pools are held
        at a time. See Notes.
    **kwargs
        ``num_workers`` and torch's other options about worker processes: accepted and without effect, since
        minibatches are read in the calling process.

    Attributes
    ----------
    last_indices
        Rows of the minibatch handed out last, in its order.

    Raises
    ------
    IndexError
        When ``indices`` names a cell that does not exist.
    TypeError
        For an unknown keyword.
    ValueError
        For ``sampler`` together with ``shuffle``, or ``distributed_sampler`` without a process group.

    Notes
    -----
    Tables on disk (backed h5ad, zarr, :class:`~celbo.data.StoredMatrix`, dask) are read by a thread, many minibatches
    at once and ahead of the model. Shuffling then means: random blocks of neighbouring rows, pooled until
    ``pool_bytes`` are full, shuffled within the pool (:func:`~celbo.dataloaders.block_sampler.pooled_order`); so
    ``indices`` are sorted first. Every cell still comes exactly once an epoch.
    """

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        indices: object = None,
        batch_size: int | None = 128,
        shuffle: bool = False,
        sampler: object = None,
        drop_last: bool = False,
        drop_dataset_tail: bool = False,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        iter_ndarray: bool = False,
        distributed_sampler: bool = False,
        load_sparse_tensor: bool = False,
        *,
        seed: int | None = None,
        merge_small_tail: bool = False,
        pin_memory: bool = False,
        dataset: AnnTorchDataset | None = None,
        pool_bytes: int | None = None,
        **kwargs: Any,
    ) -> None:
        _check_options(kwargs)
        self.adata_manager = adata_manager
        tables = _tables(adata_manager, data_and_attributes, load_sparse_tensor, dataset)
        self.tables: Any = tables
        cells = all_rows(len(tables)) if indices is None else row_numbers(indices, len(tables))
        self.batch_size = int(batch_size or settings.batch_size)
        self.last_indices: np.ndarray = np.empty(0, dtype=np.int64)
        self.drop_last, self.drop_dataset_tail, self.iter_ndarray = drop_last, drop_dataset_tail, iter_ndarray
        self.pin_memory = pin_memory and torch.cuda.is_available()
        if sampler is not None and (shuffle or distributed_sampler):
            raise ValueError("A `sampler` sets the order itself: pass it without `shuffle` and `distributed_sampler`.")
        options: dict[str, Any] = {"drop_last": drop_last, "merge_small_tail": merge_small_tail, "seed": seed}
        options["shard"] = Shard.of_process_group(drop_dataset_tail) if distributed_sampler else Shard()
        self._read_at_once = 0
        if (cost := self.tables.cost) is not None:
            sizes = sizes_for(cost, len(cells), self.batch_size, pool_bytes)
            self._read_at_once = sizes[1]
        is_mine = indices is None or is_mapped(cells)  # what the caller may change later is copied
        if sampler is not None:
            self.sampler: Any = sampler
        elif cost is not None and shuffle:
            is_mine, cells = True, in_order(cells)  # neighbouring positions are then neighbouring rows of the file
            self.sampler = BlockSampler(len(cells), self.batch_size, sizes, **options)
        else:
            self.sampler = EpochSampler(len(cells), self.batch_size, shuffle=shuffle, **options)
        self.indices = cells if is_mine else cells.copy()

    @property
    def dataset(self) -> torch.utils.data.Subset:
        """The cells that are read, as torch's loaders have them."""
        return torch.utils.data.Subset(self.tables, self.indices)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One epoch of minibatches."""
        return filter(_is_there, self.parts())  # which keeps no minibatch while the next one is made

    def parts(self) -> Iterator[dict[str, Any] | None]:
        """One epoch of minibatches; None where other processes have all the cells of one."""
        if self._read_at_once and isinstance(self.sampler, EpochSampler):
            yield from self._parts_read_ahead(self.sampler)
            return
        for positions in self.sampler:
            self.last_indices = taken(self.indices, np.atleast_1d(positions)).astype(np.int64, copy=False)
            yield self._finish(self.tables.fetch(self.last_indices)) if len(self.last_indices) else None

    def _parts_read_ahead(self, sampler: EpochSampler) -> Iterator[dict[str, Any] | None]:
        with closing(read_ahead(self.tables, self.indices, sampler.coming(), self._read_at_once)) as batches:
            for n in sampler.advance():
                yield self._next_of(batches, n)

    def _next_of(self, batches: Iterator[tuple[np.ndarray, dict[str, Tensor]]], n: int) -> dict[str, Any] | None:
        self.last_indices, batch = next(batches)
        return self._finish(batch) if n else None

    def use_tables(self, tables: ResidentTables) -> None:
        """Read from tables that lie on a device from now on: the same minibatches, but there."""
        self.tables, self.pin_memory = tables, False

    @property
    def last_weight(self) -> float:
        """Cells of the minibatch handed out last over an equal share of it, where processes share minibatches."""
        return self.sampler.last_weight if isinstance(self.sampler, EpochSampler) else 1.0

    @property
    def is_resumable(self) -> bool:
        """Whether the order is the loader's own, so that it can go on in the middle of an epoch."""
        return isinstance(self.sampler, EpochSampler)

    def take_share(self, rank: int, size: int) -> None:
        """Read the share of one of several processes from now on: the cells of every minibatch are shared out.

        Raises
        ------
        TypeError
            When the order comes from a ``sampler`` of the caller, who must share it out.
        """
        self._own_sampler().take_share(rank, size)

    def _finish(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        if self.iter_ndarray:
            return {key: value.numpy() for key, value in batch.items()}
        if self.pin_memory:
            return {key: value.pin_memory() for key, value in batch.items()}
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, to go on exactly there: seed, epoch, minibatches of it that were handed out.

        Raises
        ------
        TypeError
            When the order comes from a ``sampler`` of the caller, whose state is the caller's to keep.
        """
        return self._own_sampler().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader stood that gave ``state``; the next iteration starts after its last minibatch."""
        self._own_sampler().load_state_dict(state)

    def _own_sampler(self) -> EpochSampler:
        if not isinstance(self.sampler, EpochSampler):
            kind = type(self.sampler).__name__
            raise TypeError(
                f"This loader's order comes from a {kind} that was passed as `sampler`: keep the state of that one, "
                "and share it out among processes where there are several."
            )
        return self.sampler


def _is_there(batch: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    return batch is not None


def _tables(
    manager: "AnnDataManager", keys: list[str] | dict[str, Any] | None, sparse: bool, given: AnnTorchDataset | None
) -> AnnTorchDataset:
    if given is None:
        return AnnTorchDataset(manager, keys, sparse)
    if keys is not None or sparse:
        raise ValueError("`dataset` already says which keys to read and how: leave out the other two arguments.")
    return given


def _check_options(options: dict[str, Any]) -> None:
    known = [*list(inspect.signature(AnnDataLoader).parameters)[:-1], *sorted(WORKER_OPTIONS)]
    for name in options:
        if name not in WORKER_OPTIONS:
            raise UnknownArgumentError.among(name, "AnnDataLoader", known)
    if options.get("num_workers"):
        logger.debug(
            "num_workers=%s has no effect: minibatches are read in the calling process.", options["num_workers"]
        )
