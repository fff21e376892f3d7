"""Minibatches of cells: rows in the order asked from any storage, splits that lose no cell."""

from ..core.planned import planned_names, public_names
from .concat import ConcatDataLoader
from .dataset import AnnTorchDataset
from .device_backed import DeviceBackedDataSplitter
from .distributed import BatchDistributedSampler
from .loader import AnnDataLoader
from .row_sources.open import rows
from .row_sources.source import RowSource
from .row_sources.sparse import CSRRows
from .semisupervised import SemiSupervisedDataLoader, SemiSupervisedDataSplitter
from .split import Split, split_indices
from .splitter import DataSplitter

__all__ = [
    "AnnDataLoader",
    "AnnTorchDataset",
    "BatchDistributedSampler",
    "CSRRows",
    "ConcatDataLoader",
    "DataSplitter",
    "DeviceBackedDataSplitter",
    "RowSource",
    "SemiSupervisedDataLoader",
    "SemiSupervisedDataSplitter",
    "Split",
    "rows",
    "split_indices",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
