"""Tables that lie on the device as a whole, so that a minibatch is a vector of row numbers.

A CSR matrix stays CSR there. Its rows are made dense by a gather of fixed width, the longest row's, and one scatter:
shapes depend on nothing but the minibatch's size, nothing waits for the host, no two entries meet.
"""

from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .dataset import AnnTorchDataset
from .row_sources.source import DenseRows, RowSource
from .row_sources.sparse import CSRRows

__all__ = ["ResidentCSR", "ResidentTables", "resident_bytes", "resident_tables"]

_BLOCK = 65536
"""Rows converted at a time."""


class _Resident(Protocol):
    def gather(self, rows_n: Tensor) -> Tensor: ...


class ResidentCSR:
    """Rows of a CSR matrix on a device.

    Parameters
    ----------
    matrix
        In the columns and the dtype wanted; entries stored twice are added.
    device
        Where to keep it.
    """

    def __init__(self, matrix: sp.csr_matrix | sp.csr_array, device: torch.device) -> None:
        matrix.sum_duplicates()
        self.n_columns = int(matrix.shape[1])
        longest = int(np.diff(matrix.indptr).max(initial=0))
        borders = torch.from_numpy(matrix.indptr.astype(np.int64)).to(device)
        self._starts, self._stops = borders[:-1], borders[1:]
        # a row's neighbours are read where it is short; behind the last row are some more entries for that
        self._columns = torch.from_numpy(np.pad(matrix.indices.astype(np.int32), (0, longest))).to(device)
        self._values = torch.from_numpy(np.pad(matrix.data, (0, longest))).to(device)
        self._offsets = torch.arange(longest, device=device)

    def gather(self, rows_n: Tensor) -> Tensor:
        """Dense rows ``(n, g)`` in the order asked."""
        start_n, stop_n = self._starts.index_select(0, rows_n), self._stops.index_select(0, rows_n)
        place_nk = start_n[:, None] + self._offsets
        value_nk = self._values.take(place_nk).masked_fill_(place_nk >= stop_n[:, None], 0)
        out_ng = self._values.new_zeros(len(rows_n), self.n_columns)
        # what only fills up adds 0 to some column
        return out_ng.scatter_add_(1, self._columns.take(place_nk).long(), value_nk)


class _ResidentDense:
    def __init__(self, table: Tensor) -> None:
        self._table = table

    def gather(self, rows_n: Tensor) -> Tensor:
        return self._table.index_select(0, rows_n)


class ResidentTables:
    """The tables of a dataset on a device; gives minibatches as the dataset does.

    Parameters
    ----------
    dataset
        Tables in memory, dense or CSR.
    device
        Where to keep them.
    """

    def __init__(self, dataset: AnnTorchDataset, device: torch.device) -> None:
        self.device, self._n = device, len(dataset)
        self._tables: dict[str, _Resident] = {key: _moved(source, device) for key, source in dataset.sources.items()}

    def __len__(self) -> int:
        """Number of cells."""
        return self._n

    def fetch(self, rows_n: np.ndarray) -> dict[str, Tensor]:
        """Minibatch of the cells ``rows_n`` (int64, in range), ``(n, ...)`` by registry key, on the device."""
        rows = torch.from_numpy(np.ascontiguousarray(rows_n))
        # From pinned memory the copy does not wait for what the device still computes.
        rows = rows.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else rows
        return {key: table.gather(rows) for key, table in self._tables.items()}


def _moved(source: RowSource, device: torch.device) -> _Resident:
    blocks = [np.arange(start, min(start + _BLOCK, len(source))) for start in range(0, len(source), _BLOCK)]
    if isinstance(source, CSRRows):
        return ResidentCSR(sp.vstack([source.csr(block) for block in blocks], format="csr"), device)
    return _ResidentDense(torch.cat([source.gather(block).to(device) for block in blocks]))


def resident_tables(dataset: AnnTorchDataset, device: torch.device, most_bytes: int) -> ResidentTables | None:
    """A dataset's tables on a device, where they are in memory and take at most so many bytes there; else None."""
    needed = resident_bytes(dataset)
    if dataset.load_sparse_tensor or needed is None or needed > most_bytes:
        return None
    return ResidentTables(dataset, device)


def resident_bytes(dataset: AnnTorchDataset) -> int | None:
    """Memory that a dataset's tables take on a device; None where they are not in memory, or of an unknown kind."""
    total = 0
    for source in dataset.sources.values():
        if isinstance(source, CSRRows):
            total += 8 * (source.n_rows + 1) + len(source.values) * (4 + source.dtype.itemsize)
        elif isinstance(source, DenseRows):
            total += source.n_rows * source.n_columns * source.dtype.itemsize
        else:
            return None
    return total
