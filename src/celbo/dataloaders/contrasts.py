"""Pairs of minibatches: some background cells, and as many target cells."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core import IS_TARGET, checked, number_of
from .concat import ConcatDataLoader
from .dataset import registered
from .row_sources.source import as_indices
from .split import Split, split_indices, split_with_indexing
from .splitter import DataSplitter

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["ContrastiveDataLoader", "ContrastiveDataSplitter", "StackedDataSplitter", "both_sets"]


def both_sets(background_indices: object, target_indices: object, n_obs: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of both sets of cells.

    Parameters
    ----------
    background_indices, target_indices
        Row numbers or boolean masks.
    n_obs
        Number of cells.

    Raises
    ------
    ValueError
        An empty set, or a cell in both.
    """
    sets = {}
    for name, given in (("background_indices", background_indices), ("target_indices", target_indices)):
        sets[name] = np.unique(as_indices(given, n_obs, what="cell"))
        if not len(sets[name]):
            other = "without the condition studied" if name.startswith("b") else "with it"
            raise ValueError(f"{name} is empty: give the row numbers, or a mask, of the cells {other}.")
    background, target = sets.values()
    common = np.intersect1d(background, target)
    if len(common):
        raise ValueError(
            f"background_indices and target_indices have {number_of(len(common), 'cell')} in common (row "
            f"{common[0]} is one): a cell is a background or a target cell, so leave it out of one of them."
        )
    return background, target


class ContrastiveDataLoader(ConcatDataLoader):
    """Named pairs of minibatches, ``{"background": ..., "target": ...}``, of equal numbers of cells.

    The larger set sets the length of an epoch; the other starts over within it, in a new order each time. No minibatch
    has more cells than the smaller set.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    background_indices, target_indices
        Cells of each set, as row numbers or boolean masks.
    shuffle, batch_size, data_and_attributes, distributed_sampler
        See :class:`~celbo.dataloaders.ConcatDataLoader`; ``batch_size`` cells of each set.
    drop_last
        Leave out a last minibatch of the larger set that is not full.
    load_sparse_tensor, **data_loader_kwargs
        For :class:`~celbo.dataloaders.AnnDataLoader`.

    Raises
    ------
    ValueError
        An empty set, or a cell in both.
    """

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        background_indices: Sequence[int],
        target_indices: Sequence[int],
        shuffle: bool = False,
        batch_size: int = 128,
        data_and_attributes: dict[str, Any] | None = None,
        drop_last: bool = False,
        distributed_sampler: bool = False,
        load_sparse_tensor: bool = False,
        **data_loader_kwargs: Any,
    ) -> None:
        sets = both_sets(background_indices, target_indices, registered(adata_manager).n_obs)
        sizes = [len(rows) for rows in sets]
        super().__init__(
            adata_manager,
            list(sets),
            shuffle=shuffle,
            batch_size=min(batch_size, *sizes),
            data_and_attributes=data_and_attributes,
            # a short minibatch of the smaller set would cut those of the larger; its cells come in the next pass
            drop_last=[drop_last or size < max(sizes) for size in sizes],
            distributed_sampler=distributed_sampler,
            load_sparse_tensor=load_sparse_tensor,
            **data_loader_kwargs,
        )

    def __iter__(self) -> Iterator[Any]:
        """One epoch of pairs."""
        for pair in super().__iter__():
            if pair[0] is not None and pair[1] is not None:  # else the set has no cells for this process
                parts: dict[str, Any] = dict(zip(("background", "target"), pair, strict=True))
                n = min(len(next(iter(part.values()))) for part in parts.values())
                yield {name: {key: rows[:n] for key, rows in part.items()} for name, part in parts.items()}


class ContrastiveDataSplitter(DataSplitter):
    """Split background and target cells separately, and pair them.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    background_indices, target_indices
        Cells of each set, as row numbers or boolean masks; other cells are not used.
    train_size, validation_size, shuffle_set_split, load_sparse_tensor, pin_memory, external_indexing, **kwargs
        See :class:`~celbo.dataloaders.DataSplitter`.

    Attributes
    ----------
    background_train_idx, background_val_idx, background_test_idx, target_train_idx, target_val_idx, target_test_idx
        Cells of each set in each part, once they are split.

    Raises
    ------
    ValueError
        An empty set, or a cell in both.
    """

    data_loader_cls = ContrastiveDataLoader
    background_train_idx: list[int]
    background_val_idx: list[int]
    background_test_idx: list[int]
    target_train_idx: list[int]
    target_val_idx: list[int]
    target_test_idx: list[int]

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        background_indices: Sequence[int],
        target_indices: Sequence[int],
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        pin_memory: bool = False,
        external_indexing: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.background_indices, self.target_indices = both_sets(
            background_indices, target_indices, registered(adata_manager).n_obs
        )
        super().__init__(
            adata_manager,
            train_size,
            validation_size,
            shuffle_set_split,
            load_sparse_tensor,
            pin_memory,
            external_indexing,
            **kwargs,
        )

    def _split(self) -> Split:
        parts = [self._split_of(rows) for rows in (self.background_indices, self.target_indices)]
        for kind, part in zip(("background", "target"), parts, strict=True):
            lists = {"train": part.train, "val": part.validation, "test": part.test}
            vars(self).update({f"{kind}_{name}_idx": rows.tolist() for name, rows in lists.items()})
        return Split(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("train", "validation", "test")))

    def _split_of(self, rows: np.ndarray) -> Split:
        if self.external_indexing is not None:
            given = split_with_indexing(registered(self.adata_manager).n_obs, self.external_indexing)
            return Split(*(part[np.isin(part, rows)] for part in (given.train, given.validation, given.test)))
        values = None if self.stratify_by is None else self._obs(self.stratify_by).to_numpy()[rows]
        sizes = (self.train_size, self.validation_size, self.shuffle_set_split, self.seed)
        part = split_indices(len(rows), *sizes, values)
        return Split(rows[part.train], rows[part.validation], rows[part.test])

    def _pairs(self, rows: np.ndarray, what: str, **options: Any) -> Any:
        background, target = (np.intersect1d(rows, one) for one in (self.background_indices, self.target_indices))
        if not len(background) or not len(target):
            if what == "training":
                raise ValueError("external_indexing leaves no background or no target cells to train on: add some.")
            return None
        given: dict[str, Any] = {"pin_memory": self.pin_memory, **options, **self.data_loader_kwargs}
        given.pop("sparse_on_cpu", None)
        sets: Any = {"background_indices": background, "target_indices": target}
        return ContrastiveDataLoader(
            self.adata_manager, **sets, **given | {"load_sparse_tensor": self.load_sparse_tensor}
        )

    def train_dataloader(self) -> Any:
        """Pairs of training cells, in another order each epoch."""
        options = {"drop_last": self.drop_last, "merge_small_tail": True, "seed": self.seed}
        return self._pairs(self.train_idx, "training", shuffle=True, **options)

    def val_dataloader(self) -> Any:
        """Pairs of validation cells, or None where a set has none."""
        return self._pairs(self.val_idx, "validation")

    def test_dataloader(self) -> Any:
        """Pairs of test cells, or None where a set has none."""
        return self._pairs(self.test_idx, "test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Pair with its sparse tensors made dense, on the device they lie on."""
        return {
            name: super(ContrastiveDataSplitter, self).on_after_batch_transfer(part) for name, part in batch.items()
        }


class StackedDataSplitter(ContrastiveDataSplitter):
    """Background and target cells in one minibatch, for modules that take a minibatch of any cells.

    The first half are background cells, the second as many target cells; the column :data:`~celbo.core.IS_TARGET` says
    which. Arguments are those of :class:`ContrastiveDataSplitter`.
    """

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """One minibatch of a pair, its sparse tensors made dense, on the device they lie on."""
        background, target = super().on_after_batch_transfer(batch, dataloader_idx).values()
        stacked = {key: torch.cat([rows, target[key]]) for key, rows in background.items()}
        n, like = len(next(iter(background.values()))), next(iter(stacked.values()))
        is_target_n1 = torch.arange(2 * n, device=like.device).ge(n).float()[:, None]
        return stacked | {IS_TARGET: is_target_n1}
