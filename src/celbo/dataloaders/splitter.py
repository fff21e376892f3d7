"""The three loaders of a training run."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core import UnknownArgumentError, checked, settings, unknown_name
from ..core.kinds import Text, Whole
from .base import DataModule, Loader
from .concat import ConcatDataLoader
from .dataset import AnnTorchDataset, in_order, registered
from .loader import WORKER_OPTIONS, AnnDataLoader
from .split import Split, split_by_column, split_indices, split_with_indexing

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["DataSplitter"]


_OWN_OPTIONS = ("dataset", "merge_small_tail", "pool_bytes", "seed")
"""Options of celbo's loader that scvi-tools' does not have."""


class DataSplitter(DataModule):
    """Splits cells into training, validation and test sets and makes a loader of each.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    train_size
        Fraction of cells to train on, in (0, 1]; None is 0.9.
    validation_size
        Fraction to validate on; None is all others. What is left is the test set.
    shuffle_set_split
        Draw the sets at random; otherwise the first cells validate, the next train, the last test.
    load_sparse_tensor
        Keys stored sparse come out as sparse tensors of torch, of the same layout (CSR or CSC), to be made dense on the
        device by :meth:`on_after_batch_transfer`.
    pin_memory
        Give tensors in pinned memory where a CUDA device is there.
    external_indexing
        The sets themselves, ``[train, validation, test]``, as row numbers or boolean masks.
    seed
        Of the split and of the training order. None: ``celbo.settings.seed``, fresh randomness where that is None too.
    stratify_by
        Column of ``adata.obs`` of which each value keeps its share in every set.
    split_by
        Column of ``adata.obs`` that holds ``"train"``, ``"validation"`` or ``"test"`` for each cell.
    sparse_on_cpu
        Whether sparse tensors stay sparse where the device is the CPU, for modules that compute with them.
    **kwargs
        For the loaders: ``batch_size``, ``drop_last`` (training only) and all else of
        :class:`~celbo.dataloaders.AnnDataLoader`.

    Attributes
    ----------
    data_loader_cls
        Class of the loaders; a subclass may name its own.
    train_idx, val_idx, test_idx
        Row numbers of each set; see :class:`~celbo.dataloaders.split.Split`.
    n_train, n_val
        How many there are.
    split
        The three as a :class:`~celbo.dataloaders.Split`.

    Notes
    -----
    The sets are those of scvi-tools for the same seed and sizes, except that no cell is moved to another set, or
    dropped, because of what ``n_train`` leaves modulo the batch size: a last training batch of 1 or 2 cells joins the
    one before it.
    """

    data_loader_cls: ClassVar[type[Any]] = AnnDataLoader
    n_train: int
    n_val: int
    train_idx: np.ndarray
    val_idx: np.ndarray
    test_idx: np.ndarray

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        pin_memory: bool = False,
        external_indexing: list[Any] | None = None,
        *,
        seed: Annotated[int, Whole(0, 2**32 - 1)] | None = None,  # as numpy takes it
        stratify_by: Annotated[str, Text()] | None = None,
        split_by: str | None = None,
        sparse_on_cpu: bool = False,
        **kwargs: Any,
    ) -> None:
        self.adata_manager = adata_manager
        self.train_size, self.validation_size = train_size, validation_size
        self.shuffle_set_split, self.external_indexing = shuffle_set_split, external_indexing
        self.load_sparse_tensor, self.pin_memory = load_sparse_tensor, pin_memory
        self.sparse_on_cpu = sparse_on_cpu
        self.seed = settings.seed if seed is None else seed
        self.stratify_by, self.split_by = stratify_by, split_by
        if self.data_loader_cls is AnnDataLoader:
            _refuse_unknown(type(self), kwargs)
        self.drop_last = bool(kwargs.pop("drop_last", False))
        self.data_loader_kwargs = dict(kwargs)
        self.split = self._split()
        self.train_idx, self.val_idx, self.test_idx = self.split.train, self.split.validation, self.split.test
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self._tables: AnnTorchDataset | None = None

    def _split(self) -> Split:
        _check_one_way(external_indexing=self.external_indexing, split_by=self.split_by, stratify_by=self.stratify_by)
        n = registered(self.adata_manager).n_obs
        if self.external_indexing is not None:
            return split_with_indexing(n, self.external_indexing)
        if self.split_by is not None:
            return split_by_column(self._obs(self.split_by), self.split_by)
        values = None if self.stratify_by is None else self._obs(self.stratify_by)
        return split_indices(n, self.train_size, self.validation_size, self.shuffle_set_split, self.seed, values)

    def _obs(self, column: str) -> pd.Series:
        obs = registered(self.adata_manager).obs
        if column not in obs:
            raise KeyError(unknown_name("column of adata.obs", column, obs.columns))
        return obs[column]

    def setup(self, stage: str | None = None) -> None:
        """Nothing is left to do: the sets are made with the splitter and stay the same. Here for Lightning's sake."""

    def _loader(self, indices: np.ndarray, loader_cls: type[Any] | None = None, **kwargs: Any) -> Any:
        if not len(indices):
            return None
        loader_cls = loader_cls or self.data_loader_cls
        options = {"pin_memory": self.pin_memory} | kwargs | self.data_loader_kwargs
        asked = options.pop("data_and_attributes", None)
        if self._tables is None:  # once for the three loaders: a CSC matrix would be converted for each
            self._tables = AnnTorchDataset(self.adata_manager, asked, self.load_sparse_tensor)
        options["dataset"] = self._tables
        if self._tables.cost is not None and not kwargs.get("shuffle"):
            indices = in_order(indices)  # of files, so that validation reads them once from front to back
        return loader_cls(self.adata_manager, indices=indices, **_understood(loader_cls, options))

    def train_dataloader(self) -> Loader | None:
        """Loader of the training cells, in another order each epoch."""
        return self._loader(
            self.train_idx, shuffle=True, drop_last=self.drop_last, merge_small_tail=True, seed=self.seed
        )

    def val_dataloader(self) -> Loader | None:
        """Loader of the validation cells in the order of ``val_idx`` (ascending for data on disk), or None."""
        return self._loader(self.val_idx)

    def test_dataloader(self) -> Loader | None:
        """Loader of the test cells in the order of ``test_idx`` (ascending for data on disk), or None."""
        return self._loader(self.test_idx)

    @property
    def finisher(self) -> Callable[[Any, int], Any]:
        """What finishes a minibatch on the device: :meth:`on_after_batch_transfer`."""
        return self.on_after_batch_transfer

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Minibatch with its sparse tensors made dense, on the device they lie on, but where ``sparse_on_cpu``."""

        def finished(value: Tensor) -> Tensor:
            stays = value.layout == torch.strided or (self.sparse_on_cpu and value.device.type == "cpu")
            return value if stays else value.to_dense()

        return {key: finished(value) for key, value in batch.items()}


def _understood(loader_cls: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options without those of celbo's own that a loader class of somebody else does not know."""
    parameters = inspect.signature(loader_cls.__init__).parameters
    is_ours = issubclass(loader_cls, AnnDataLoader | ConcatDataLoader)
    takes_all = is_ours and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name: v for name, v in options.items() if takes_all or name in parameters or name not in _OWN_OPTIONS}


def _refuse_unknown(splitter_cls: type[Any], kwargs: dict[str, Any]) -> None:
    """Say at once, and with the splitter's own names too, what a loader would refuse later."""
    of_loader = [*inspect.signature(AnnDataLoader).parameters, *WORKER_OPTIONS]
    for name in kwargs:
        if name not in of_loader:
            known = {*inspect.signature(splitter_cls).parameters, *of_loader} - {"adata_manager", "kwargs"}
            raise UnknownArgumentError.among(name, "the data splitter (datasplitter_kwargs)", sorted(known))


def _check_one_way(**ways: Any) -> None:
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are different ways to split the cells: pass one of them.")
