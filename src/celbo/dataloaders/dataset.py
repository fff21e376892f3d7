"""The registered tables of an AnnData, read together row by row, and the numbers of their rows.

Row numbers lie in memory, or are mapped from a temporary file where the cells are many.

Dims: n cells, k of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from ..core import NEIGHBOR_COUNTS_KEY, NEIGHBORS_KEY, PRESENCE_KEY, REGISTRY_KEYS, checked, unknown_name
from ..data import AnnDataManager
from ..data.presence import presence
from ..store.mapped import is_mapped, put, stretches
from .row_sources.cells import rows_of_cells
from .row_sources.neighbors import NeighborRows
from .row_sources.open import rows
from .row_sources.source import MappedRows, RowCost, RowSource, Streamed, as_indices
from .row_sources.sparse import SparseRows

__all__ = [
    "MANY",
    "AnnTorchDataset",
    "all_rows",
    "from_bits",
    "in_order",
    "kept",
    "keys_of_rows",
    "registered",
    "row_numbers",
    "to_bits",
    "torch_dataset",
]

MANY = 2**22
"""Cells from which on sets of row numbers lie in a file: 4,194,304, of which one in memory takes 32 MiB."""

PIECE = 2**20


def kept(pieces: Callable[[], Iterable[np.ndarray]], n: int) -> np.ndarray:
    """Row numbers of up to ``n`` cells that come in pieces, mapped; they cannot be changed."""
    rows_k = put(pieces, np.int32 if n < 2**31 else np.int64)
    rows_k.flags.writeable = False
    return rows_k


def all_rows(n: int) -> np.ndarray:
    """``0 .. n - 1``."""
    if n < MANY:
        return np.arange(n, dtype=np.int64)
    return kept(lambda: (np.arange(start, min(start + PIECE, n)) for start in range(0, n, PIECE)), n)


def row_numbers(indices: object, n: int) -> np.ndarray:
    """As :func:`~celbo.dataloaders.row_sources.source.as_indices` for cells; mapped numbers are read in place.

    Returns
    -------
    ``(k,)`` int64, or as they were given where they are mapped.
    """
    if not (isinstance(indices, np.ndarray) and is_mapped(indices)) or indices.dtype.kind not in "iu":
        return as_indices(indices, n, what="cell")
    for (some,) in stretches(indices):
        as_indices(some, n, what="cell")
    return indices


def in_order(rows_k: np.ndarray) -> np.ndarray:
    """Row numbers in ascending order; themselves where they are mapped and have it."""
    if is_mapped(rows_k) and _ascends(rows_k):
        return rows_k
    return np.sort(rows_k)


def to_bits(rows_k: np.ndarray) -> np.ndarray:
    """Ascending row numbers as one bit for each row up to the last of them, uint8."""
    last = int(rows_k[-1]) if len(rows_k) else -1
    bits = np.zeros(last // 8 + 1, np.uint8)
    for (some,) in stretches(rows_k):
        first, end = int(some[0]) // 8, int(some[-1]) // 8 + 1
        is_in = np.zeros(8 * (end - first), bool)
        is_in[some - 8 * first] = True
        bits[first:end] |= np.packbits(is_in)
    return bits


def from_bits(bits: np.ndarray) -> np.ndarray:
    """The row numbers of :func:`to_bits`, mapped."""
    steps = range(0, len(bits), PIECE)
    return kept(lambda: (8 * i + np.flatnonzero(np.unpackbits(bits[i : i + PIECE])) for i in steps), 8 * len(bits))


def _ascends(rows_k: np.ndarray) -> bool:
    last = -1
    for (some,) in stretches(rows_k):
        if some[0] < last or (np.diff(some) < 0).any():
            return False
        last = int(some[-1])
    return True


INTEGER_KEYS = frozenset(
    {REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.INDICES_KEY}
)
"""Registry keys that come out as int64; all others are float32 (so is ``sample``, as in scvi-tools)."""

PER_CELL = frozenset({"X", "layers", "raw", "obs", "obsm"})
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
        Keys stored sparse come out as sparse tensors of torch, of the same layout (CSR or CSC) instead of dense arrays.

    Raises
    ------
    KeyError
        For a key that is not registered.
    """

    @checked
    def __init__(
        self,
        adata_manager: AnnDataManager,
        getitem_tensors: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,
    ) -> None:
        self.adata_manager = adata_manager
        self.load_sparse_tensor = load_sparse_tensor
        self.keys_and_dtypes = getitem_tensors

    @property
    def registered_keys(self) -> list[str]:
        """Registry keys with one row a cell."""
        return keys_of_rows(self.adata_manager)

    @property
    def keys_and_dtypes(self) -> dict[str, Any]:
        """Registry keys that are read, and the dtype of each; set to None, a list or a dict to read others."""
        return self._keys_and_dtypes

    @keys_and_dtypes.setter
    def keys_and_dtypes(self, getitem_tensors: list[str] | dict[str, Any] | None) -> None:
        self._keys_and_dtypes = _keys_and_dtypes(getitem_tensors, self.registered_keys)
        self._data = {key: self.get_data(key) for key in self._keys_and_dtypes}
        self.sources = {
            key: _open(key, self._data[key], dtype, self.adata_manager) for key, dtype in self._keys_and_dtypes.items()
        }

    @property
    def data(self) -> dict[str, Any]:
        """Whole tables by registry key, as they lie in the AnnData."""
        return self._data

    def get_data(self, key: str) -> Any:
        """Whole table behind a registry key as it lies in the AnnData, its genes in the AnnData's own order."""
        if key == PRESENCE_KEY:
            return presence(self.adata_manager)
        key = REGISTRY_KEYS.X_KEY if key == NEIGHBOR_COUNTS_KEY else key
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
        return {key: self._rows_of(source, rows_n) for key, source in self.sources.items()}

    def _rows_of(self, source: RowSource, rows_n: np.ndarray) -> Tensor:
        if self.load_sparse_tensor and isinstance(source, SparseRows):
            return source.gather_sparse(rows_n)
        return source.gather(rows_n)

    @property
    def streamed(self) -> dict[str, Streamed]:
        """Tables that are not in memory, by registry key."""
        return {key: source for key, source in self.sources.items() if isinstance(source, Streamed)}

    @property
    def cost(self) -> RowCost | None:
        """What a row of the tables that are not in memory costs; None where all are."""
        costs = [source.cost for source in self.streamed.values()]
        if not costs:
            return None
        return RowCost(sum(cost.bytes_per_row for cost in costs), max(cost.chunk_rows for cost in costs))

    def check_unchanged(self, thorough: bool = False) -> None:
        """Raise an ``OSError`` when a file that is streamed is no longer what was opened."""
        for source in self.streamed.values():
            source.check_unchanged(thorough)

    def window(self, ascending_u: np.ndarray) -> "Window":
        """Some rows (ascending, no repeats) of all tables, in memory; safe to call from another thread."""
        return Window(self, ascending_u)

    def _row_numbers(self, indices: object) -> np.ndarray:
        if isinstance(indices, slice):
            return np.arange(len(self), dtype=np.int64)[indices]
        if isinstance(indices, int | np.integer):
            one = int(indices)
            return as_indices([one + len(self) if one < 0 else one], len(self))
        return as_indices(indices, len(self))


@checked
def torch_dataset(
    adata_manager: AnnDataManager,
    indices: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
    data_and_attributes: list[str] | dict[str, Any] | None = None,
    load_sparse_tensor: bool = False,
) -> AnnTorchDataset | torch.utils.data.Subset:
    """As :meth:`celbo.data.AnnDataManager.create_torch_dataset`."""
    dataset = AnnTorchDataset(adata_manager, data_and_attributes, load_sparse_tensor)
    return dataset if indices is None else torch.utils.data.Subset(dataset, as_indices(indices, len(dataset)))  # type: ignore[arg-type]


AnnDataManager.make_torch_dataset = staticmethod(torch_dataset)


class Window:
    """Some rows of a dataset's tables: those on disk are read into memory, once, the others stay where they are.

    Parameters
    ----------
    tables
        The dataset.
    ascending_u
        Row numbers, ascending, no repeats.
    """

    def __init__(self, tables: AnnTorchDataset, ascending_u: np.ndarray) -> None:
        self._tables, self._rows_u = tables, ascending_u
        self._loaded = {
            key: source.load(ascending_u)
            for key, source in tables.sources.items()
            if isinstance(source, Streamed | MappedRows)
        }

    def fetch(self, rows_n: np.ndarray) -> dict[str, Tensor]:
        """As :meth:`AnnTorchDataset.fetch`, for rows among those of the window."""
        place_n = np.searchsorted(self._rows_u, rows_n)
        return {
            key: self._tables._rows_of(self._loaded[key], place_n)
            if key in self._loaded
            else self._tables._rows_of(source, rows_n)
            for key, source in self._tables.sources.items()
        }


def registered(adata_manager: AnnDataManager) -> AnnData:
    """AnnData of a manager.

    Raises
    ------
    ValueError
        When it has none yet.
    """
    if adata_manager.adata is None:
        raise ValueError("This manager has no AnnData yet: call setup_anndata, or its register_fields, first.")
    return adata_manager.adata


def keys_of_rows(adata_manager: AnnDataManager) -> list[str]:
    """Registry keys whose data have one row a cell (so not what lies in ``uns`` or ``varm``), presence among them."""
    keys = [key for key, entry in adata_manager.data_registry.items() if entry["attr_name"] in PER_CELL]
    derived = {PRESENCE_KEY: adata_manager.may_lack_modalities, NEIGHBOR_COUNTS_KEY: NEIGHBORS_KEY in keys}
    return [*keys, *[key for key, is_there in derived.items() if is_there]]


def _keys_and_dtypes(asked: list[str] | dict[str, Any] | None, registered: list[str]) -> dict[str, Any]:
    if not (asked is None or isinstance(asked, list | tuple | dict)):
        raise ValueError(f"`getitem_tensors` must be a `list`, `dict`, or `None`, got {type(asked).__name__}.")
    wanted = registered if asked is None else list(asked)
    for key in wanted:
        if key not in registered:
            raise KeyError(unknown_name("registry key with one row a cell", key, registered))
    if isinstance(asked, dict):
        return dict(asked)
    return {key: np.int64 if key in INTEGER_KEYS else np.float32 for key in wanted}


def _open(key: str, array: object, dtype: object, manager: AnnDataManager) -> RowSource:
    if key == NEIGHBOR_COUNTS_KEY:
        index_nm = np.asarray(manager.get_from_registry(NEIGHBORS_KEY))
        return NeighborRows(_open(REGISTRY_KEYS.X_KEY, array, dtype, manager), index_nm)
    try:
        source = rows(array, dtype, None if key == PRESENCE_KEY else manager.get_column_indexer(key))
    except (TypeError, ValueError) as error:
        raise type(error)(f"Registry key {key!r}: {error}") from error
    row_of_cell = None if key == PRESENCE_KEY else manager.get_row_indexer(key)
    return source if row_of_cell is None else rows_of_cells(source, row_of_cell)
