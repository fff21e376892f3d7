"""Cells with and without label: pairs of minibatches, and a split that keeps both kinds in each set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import REGISTRY_KEYS, checked
from ..store.mapped import is_mapped, put_together, stretches, taken
from .concat import ConcatDataLoader
from .dataset import MANY, all_rows, registered, row_numbers
from .loader import AnnDataLoader
from .sampler import Shard, settled_seed
from .split import Split, split_indices, split_sizes
from .splitter import DataSplitter
from .stratified import Strata, drawn

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["SemiSupervisedDataLoader", "SemiSupervisedDataSplitter", "label_codes", "n_classes_of"]

_UNLABELED = "unlabeled_category"


def label_codes(adata_manager: "AnnDataManager") -> np.ndarray:
    """Label code of each cell, ``(n,)`` integers; the last code stands for cells without label."""
    return np.asarray(adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).reshape(-1)


def n_classes_of(adata_manager: "AnnDataManager") -> int:
    """Number of labels, the one that means "not labelled" apart: it has the last code."""
    state = adata_manager.get_state_registry(REGISTRY_KEYS.LABELS_KEY)
    return len(state["categorical_mapping"]) - (_UNLABELED in state)


def _labelled(rows_n: np.ndarray, adata_manager: "AnnDataManager") -> list[np.ndarray]:
    """Those of some rows that have a label, and the code of it; mapped where the rows are."""
    code_n, n_classes = label_codes(adata_manager), n_classes_of(adata_manager)

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for (some,) in stretches(rows_n):
            code_m = taken(code_n, some)
            yield some[code_m < n_classes], code_m[code_m < n_classes]

    if is_mapped(rows_n):
        return put_together(pieces, [rows_n.dtype, code_n.dtype])
    parts = [(rows_n[:0], code_n[:0]), *pieces()]
    return [np.concatenate(part) for part in zip(*parts)]


class SemiSupervisedDataLoader(ConcatDataLoader):
    """Pairs of minibatches: of all cells asked for, and of those among them that have a label.

    The second part starts over where it is the shorter one; it is None where no cell has a label.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up, with labels of which one may mean "not labelled".
    n_samples_per_label
        Labelled cells of each label an epoch, redrawn each epoch without replacement; all cells of a label that has
        no more. None: all.
    indices
        Cells to read: row numbers or a boolean mask. None: all.
    shuffle, batch_size, data_and_attributes
        See :class:`~celbo.dataloaders.ConcatDataLoader`.
    drop_last
        Leave out a last minibatch of all cells that is not full; labelled ones are never left out.
    **data_loader_kwargs
        Further arguments of :class:`~celbo.dataloaders.ConcatDataLoader`.

    Attributes
    ----------
    labelled_indices
        Rows of the cells that have a label.

    Raises
    ------
    ValueError
        ``n_samples_per_label`` below 1.
    """

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        n_samples_per_label: int | None = None,
        indices: object = None,
        shuffle: bool = False,
        batch_size: int | None = 128,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        drop_last: bool | int = False,
        **data_loader_kwargs: Any,
    ) -> None:
        if n_samples_per_label is not None and n_samples_per_label < 1:
            raise ValueError(f"n_samples_per_label is a number of cells, at least 1, got {n_samples_per_label!r}.")
        n = registered(adata_manager).n_obs
        rows_n = all_rows(n) if indices is None else row_numbers(indices, n)
        self.n_samples_per_label = None if n_samples_per_label is None else int(n_samples_per_label)
        self.labelled_indices, self._label_of_labelled = _labelled(rows_n, adata_manager)
        self._draws = 0
        shard = Shard.of_process_group(False) if data_loader_kwargs.get("distributed_sampler") else Shard()
        self._seed = settled_seed(data_loader_kwargs.get("seed"), shard)
        super().__init__(
            adata_manager,
            [rows_n, self.subsample_labels()],
            shuffle,
            batch_size,
            data_and_attributes,
            [bool(drop_last), False],
            **(data_loader_kwargs | {"seed": self._seed}),
        )

    def _begin_epoch(self, epoch: int) -> None:
        self._draws = epoch
        self.resample_labels()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As :meth:`ConcatDataLoader.load_state_dict <celbo.dataloaders.ConcatDataLoader.load_state_dict>`."""
        super().load_state_dict(state)
        self._seed = self.dataloaders[0].sampler.seed

    @property
    def labeled_locs(self) -> list[np.ndarray]:
        """Rows of the labelled cells of each label, under scvi-tools' name."""
        codes = np.unique(self._label_of_labelled)
        return [self.labelled_indices[self._label_of_labelled == code] for code in codes]

    def resample_labels(self) -> None:
        """Redraw the labelled cells. Each epoch begins with it, so nobody needs to call it."""
        self.dataloaders[1].indices = self.subsample_labels()
        self._draws += 1

    def subsample_labels(self) -> np.ndarray:
        """Labelled cells of the coming epoch, row numbers grouped by label."""
        if self.n_samples_per_label is None:
            return self.labelled_indices
        generator = np.random.default_rng([self._seed, self._draws])
        drawn = [generator.choice(r, min(len(r), self.n_samples_per_label), replace=False) for r in self.labeled_locs]
        return np.concatenate([self.labelled_indices[:0], *drawn])


class SemiSupervisedDataSplitter(DataSplitter):
    """:class:`~celbo.dataloaders.DataSplitter` that splits cells with and without label apart, and pairs them.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up, with labels of which one may mean "not labelled".
    datamodule
        Accepted for compatibility with scvi-tools; loaders of your own go to ``train(datamodule=...)``.
    train_size, validation_size, shuffle_set_split, pin_memory, external_indexing
        See :class:`~celbo.dataloaders.DataSplitter`. Sizes hold for labelled and for other cells alike.
    n_samples_per_label
        Labelled training cells of each label an epoch, see :class:`SemiSupervisedDataLoader`. Validation sees all.
    **kwargs
        Further arguments of :class:`~celbo.dataloaders.DataSplitter`: ``seed``, ``stratify_by``, ``batch_size``, ...

    Raises
    ------
    ValueError
        A ``datamodule``.
    """

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        datamodule: object = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        n_samples_per_label: int | None = None,
        pin_memory: bool = False,
        external_indexing: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if datamodule is not None:
            raise ValueError("A datamodule has loaders of its own: pass it to train(datamodule=...) instead.")
        self.n_samples_per_label = n_samples_per_label
        super().__init__(
            adata_manager,
            train_size,
            validation_size,
            shuffle_set_split,
            pin_memory=pin_memory,
            external_indexing=external_indexing,
            **kwargs,
        )

    def _split(self) -> Split:
        if self.external_indexing is not None or self.split_by is not None:
            return super()._split()
        code_n, n_classes = label_codes(self.adata_manager), n_classes_of(self.adata_manager)
        if len(code_n) >= MANY and self.shuffle_set_split and self.stratify_by is None:
            strata = Strata(lambda: ((some < n_classes).astype(np.int8) for (some,) in stretches(code_n)), 2)
            return Split(*drawn(strata, len(code_n), self._sizes, self.seed))
        is_labelled_n = code_n < n_classes
        groups = [np.flatnonzero(is_labelled_n), np.flatnonzero(~is_labelled_n)]
        splits = [self._split_group(rows) for rows in groups if len(rows)]
        return Split(*(np.concatenate([getattr(s, name) for s in splits]) for name in ("train", "validation", "test")))

    def _sizes(self, count_c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Training and validation cells of those with and without label, each split as if the others were not there."""
        sizes = [split_sizes(count, self.train_size, self.validation_size) if count else (0, 0) for count in count_c]
        return np.array([size[0] for size in sizes]), np.array([size[1] for size in sizes])

    def _split_group(self, rows: np.ndarray) -> Split:
        values = None if self.stratify_by is None else self._obs(self.stratify_by).to_numpy()[rows]
        part = split_indices(
            len(rows), self.train_size, self.validation_size, self.shuffle_set_split, self.seed, values
        )
        return Split(rows[part.train], rows[part.validation], rows[part.test])

    def train_dataloader(self) -> SemiSupervisedDataLoader | None:  # type: ignore[override]
        """Pairs of training cells, in another order each epoch.

        Raises
        ------
        ValueError
            A single labelled cell an epoch: batch normalisation cannot work with one.
        """
        loader = self._loader(
            self.train_idx,
            SemiSupervisedDataLoader,
            n_samples_per_label=self.n_samples_per_label,
            shuffle=True,
            drop_last=self.drop_last,
            merge_small_tail=True,
            seed=self.seed,
        )
        if loader is not None and len(loader.subsample_labels()) == 1:
            raise ValueError(
                "There is a single labelled cell to train on, and batch normalisation needs two at least: label more "
                "cells, or raise train_size or n_samples_per_label."
            )
        return loader

    def val_dataloader(self) -> SemiSupervisedDataLoader | None:  # type: ignore[override]
        """Pairs of validation cells, or None when there are none."""
        return self._loader(self.val_idx, SemiSupervisedDataLoader)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Minibatch or pair of them with its sparse tensors made dense, on the device they lie on."""
        if isinstance(batch, tuple | list):
            return tuple(self.on_after_batch_transfer(part) for part in batch)
        return None if batch is None else super().on_after_batch_transfer(batch)

    def test_dataloader(self) -> AnnDataLoader | None:
        """Loader of the test cells in the order of ``test_idx``, or None when there are none."""
        return self._loader(self.test_idx)
