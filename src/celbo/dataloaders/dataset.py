"""The registered tables of an AnnData, read together row by row."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from ..core import REGISTRY_KEYS, unknown_name
from .row_source import RowSource, as_indices
from .rows import rows
from .rows_sparse import SparseRows

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["AnnTorchDataset", "keys_of_rows", "registered"]

INTEGER_KEYS = frozenset(
    {REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.INDICES_KEY}
)
"""Registry keys that come out as int64; all others are float32 (so is ``sample``, as in scvi-tools)."""

PER_CELL = frozenset({"X", "layers", "obs", "obsm"})
"""Attributes of an AnnData with one row a cell."""


class AnnTorchDataset(torch.utils.data.Dataset):
    """Registered data of some cells, as numpy arrays by registry key, genes in the model's order.

    Parameters
    ----------
    adata_manager
        Manager of an AnnData that was set up.
    getitem_tensors
        Registry keys to read, as a list or as a dict of key to dtype. None: every key with one row a cell.
    load_sparse_tensor
        Keys stored sparse come out as torch CSR tensors instead of dense arrays.

    Raises
    ------
    KeyError
        For a key that is not registered.
    """

    def __init__(
        self,
        adata_manager: "AnnDataManager",
        getitem_tensors: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,
    ) -> None:
        self.adata_manager = adata_manager
        self.load_sparse_tensor = load_sparse_tensor
        self.keys_and_dtypes = _keys_and_dtypes(getitem_tensors, keys_of_rows(adata_manager))
        self.data = {key: self.get_data(key) for key in self.keys_and_dtypes}
        self.sources = {
            key: _open(key, self.data[key], dtype, adata_manager.get_column_indexer(key))
            for key, dtype in self.keys_and_dtypes.items()
        }

    @property
    def registered_keys(self) -> list[str]:
        """Registry keys with one row a cell."""
        return keys_of_rows(self.adata_manager)

    def get_data(self, key: str) -> Any:
        """Whole table behind a registry key as it lies in the AnnData, its genes in the AnnData's own order."""
        return self.adata_manager.get_from_registry(key)

    def __len__(self) -> int:
        """Number of cells."""
        return registered(self.adata_manager).n_obs

    def __getitem__(self, indices: int | slice | list[int] | np.ndarray) -> dict[str, np.ndarray | Tensor]:
        """Rows in the order asked, two-dimensional even for a single one.

        Parameters
        ----------
        indices
            One row number (a negative one counts from the end), a slice, a list or array of row numbers, or a mask.
        """
        batch = self.fetch(self._row_numbers(indices))
        return {key: value if value.layout != torch.strided else value.numpy() for key, value in batch.items()}

    def fetch(self, rows_n: np.ndarray) -> dict[str, Tensor]:
        """Minibatch of the cells ``rows_n`` (int64, in range), fresh tensors ``(n, ...)`` by registry key."""
        if self.load_sparse_tensor:
            return {key: _sparse_if_stored_so(source, rows_n) for key, source in self.sources.items()}
        return {key: source.gather(rows_n) for key, source in self.sources.items()}

    def _row_numbers(self, indices: Any) -> np.ndarray:
        if isinstance(indices, slice):
            return np.arange(len(self), dtype=np.int64)[indices]
        if isinstance(indices, int | np.integer):
            one = int(indices)
            return as_indices([one + len(self) if one < 0 else one], len(self))
        return as_indices(indices, len(self))


def registered(adata_manager: "AnnDataManager") -> AnnData:
    """AnnData of a manager.

    Raises
    ------
    ValueError
        When it has none yet.
    """
    if adata_manager.adata is None:
        raise ValueError("This manager has no AnnData yet: call setup_anndata, or its register_fields, first.")
    return adata_manager.adata


def keys_of_rows(adata_manager: "AnnDataManager") -> list[str]:
    """Registry keys whose data have one row a cell (so not what lies in ``uns`` or ``varm``)."""
    return [key for key, entry in adata_manager.data_registry.items() if entry["attr_name"] in PER_CELL]


def _keys_and_dtypes(asked: list[str] | dict[str, Any] | None, registered: list[str]) -> dict[str, Any]:
    wanted = registered if asked is None else list(asked)
    for key in wanted:
        if key not in registered:
            raise KeyError(unknown_name("registry key with one row a cell", key, registered))
    if isinstance(asked, dict):
        return dict(asked)
    return {key: np.int64 if key in INTEGER_KEYS else np.float32 for key in wanted}


def _open(key: str, array: Any, dtype: Any, columns: np.ndarray | None) -> RowSource:
    try:
        return rows(array, dtype, columns)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Registry key {key!r}: {error}") from error


def _sparse_if_stored_so(source: RowSource, rows_n: np.ndarray) -> Tensor:
    return source.gather_sparse(rows_n) if isinstance(source, SparseRows) else source.gather(rows_n)
