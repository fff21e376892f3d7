"""Splits whose cells lie on the device as a whole, for data that are small enough."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import checked
from ..data import AnnDataManager
from .base import Loader
from .dataset import AnnTorchDataset
from .splitter import DataSplitter

__all__ = ["DeviceBackedDataSplitter", "DeviceBackedLoader"]


class DeviceBackedLoader(Loader):
    """Minibatches of tensors that are on the device already; iterating again gives the next epoch.

    Parameters
    ----------
    tensors
        ``(n, ...)`` by registry key, all on one device.
    batch_size
        Cells a minibatch.
    shuffle
        Give every epoch its own order.
    drop_last
        Leave out a last minibatch that is not full.
    seed
        Of the shuffling; None: fresh randomness. The global generators are untouched.
    """

    batch_size: int

    def __init__(
        self,
        tensors: dict[str, Tensor],
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        self.dataset, self.batch_size = tensors, batch_size
        self.shuffle, self.drop_last = shuffle, drop_last
        self.n = len(next(iter(tensors.values())))
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return self.n // self.batch_size if self.drop_last else math.ceil(self.n / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """One epoch of minibatches; without shuffling they are views."""
        device = next(iter(self.dataset.values())).device
        order = torch.from_numpy(self._rng.permutation(self.n)).to(device) if self.shuffle else None
        for batch in range(len(self)):
            part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            rows = part if order is None else order[part]
            yield {key: tensor[rows] for key, tensor in self.dataset.items()}


class DeviceBackedDataSplitter(DataSplitter):
    """Splits cells like :class:`~celbo.dataloaders.DataSplitter`, and puts them on the device once.

    Parameters
    ----------
    adata_manager, train_size, validation_size, external_indexing
        As in :class:`~celbo.dataloaders.DataSplitter`.
    accelerator, device
        Where the tensors go: ``"auto"`` (CUDA where there is any), ``"cpu"``, ``"gpu"`` or ``"mps"``; index.
    pin_memory
        Accepted for compatibility with scvi-tools: nothing is left to copy.
    shuffle, shuffle_test_val
        Give the training cells, or the others, another order each epoch.
    batch_size
        Cells a minibatch; None: all cells of a set at once.
    **kwargs
        For :class:`~celbo.dataloaders.DataSplitter`.
    """

    @checked
    def __init__(
        self,
        adata_manager: AnnDataManager,
        train_size: float | None = None,
        validation_size: float | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        pin_memory: bool = False,
        shuffle: bool = False,
        shuffle_test_val: bool = False,
        batch_size: int | None = None,
        external_indexing: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(adata_manager, train_size, validation_size, external_indexing=external_indexing, **kwargs)
        self.pin_memory = pin_memory
        self.shuffle, self.shuffle_test_val, self.batch_size = shuffle, shuffle_test_val, batch_size
        self.device = _device(accelerator, device)
        self._on_device: dict[str, dict[str, Tensor]] = {}

    def _resident(self, name: str, indices: np.ndarray, shuffle: bool, drop_last: bool = False) -> Any:
        """Loader of a set, whose tensors are moved at the first call; None for an empty set."""
        if not len(indices):
            return None
        if name not in self._on_device:
            batch = AnnTorchDataset(self.adata_manager, self.data_loader_kwargs.get("data_and_attributes")).fetch(
                indices
            )
            self._on_device[name] = {key: tensor.to(self.device) for key, tensor in batch.items()}
        return DeviceBackedLoader(
            self._on_device[name], self.batch_size or len(indices), shuffle, drop_last, seed=self.seed
        )

    def train_dataloader(self) -> Any:
        """Loader of the training cells."""
        return self._resident("train", self.train_idx, self.shuffle, self.drop_last)

    def val_dataloader(self) -> Any:
        """Loader of the validation cells, or None when there are none."""
        return self._resident("validation", self.val_idx, self.shuffle_test_val)

    def test_dataloader(self) -> Any:
        """Loader of the test cells, or None when there are none."""
        return self._resident("test", self.test_idx, self.shuffle_test_val)


def _device(accelerator: str, device: int | str) -> torch.device:
    kind = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda"}.get(accelerator, accelerator)
    return torch.device(kind) if kind == "cpu" or device == "auto" else torch.device(kind, int(device))
