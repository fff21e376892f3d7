"""Data go where the module is: as a whole where they fit, minibatch by minibatch otherwise."""

import logging
from collections.abc import Iterable, Sequence

import torch

from . import AnnDataLoader, AnnTorchDataset, ConcatDataLoader
from .base import Loader
from .resident import ResidentTables, resident_tables

__all__ = ["keep_on_device"]

logger = logging.getLogger("celbo")


def keep_on_device(loaders: Iterable[Loader], device: torch.device, most_bytes: int) -> None:
    """Move the tables of celbo's own loaders to the device where they fit; loaders of one dataset share them."""
    moved: dict[int, ResidentTables | None] = {}
    parts = [part for loader in loaders for part in _parts_of(loader)]
    for loader in parts:
        if not isinstance(loader, AnnDataLoader) or not isinstance(loader.tables, AnnTorchDataset):
            continue
        if loader.iter_ndarray:
            continue
        dataset = loader.tables
        if id(dataset) not in moved:
            moved[id(dataset)] = resident_tables(dataset, device, most_bytes)
        tables = moved[id(dataset)]
        if tables is not None:
            loader.use_tables(tables)
            logger.debug("The data lie on %s as a whole.", device)


def _parts_of(loader: Loader) -> Sequence[Loader]:
    return loader.dataloaders if isinstance(loader, ConcatDataLoader) else [loader]
