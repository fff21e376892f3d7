"""Minibatches of cells: rows in the order asked from any storage, splits that lose no cell."""

from ..core.planned import planned_names
from .dataset import AnnTorchDataset
from .loader import AnnDataLoader
from .row_source import RowSource
from .rows import rows
from .rows_sparse import CSRRows
from .split import Split, split_indices
from .splitter import DataSplitter

__all__ = [
    "AnnDataLoader",
    "AnnTorchDataset",
    "CSRRows",
    "DataSplitter",
    "RowSource",
    "Split",
    "rows",
    "split_indices",
]

__getattr__ = planned_names(__name__)
