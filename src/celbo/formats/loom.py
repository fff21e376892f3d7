"""Loom: HDF5 with dense genes x cells in chunks, and tables of both; layouts before and since version 3.

Dims: n cells, g genes.
"""

import html
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from ..store.allowance import Allowance
from ..store.damage import naming_damage
from ..store.matrices.rows import Rows
from ..store.part import StoredPart
from .naming import numbered, unique
from .opened import Opened, Reading, wanted_layers

__all__ = ["LoomRows", "open_loom"]

_CELLS = ("CellID", "obs_names", "cell_names", "CellName", "Cell", "cell_id", "barcode", "barcodes", "index")
_GENES = ("Gene", "var_names", "gene_names", "GeneName", "Symbol", "gene", "Accession", "index")
"""Columns that may name cells and genes, the most usual first; velocyto, SCopeLoomR, loompy, anndata and the HCA."""

_IDS = ("Accession", "EnsemblID", "ensembl_ids", "GeneID", "ID")
"""Columns that may hold identifiers of genes."""

_PIECE = 2**24
"""Entries that are dense at a time."""

logger = logging.getLogger("celbo")


class LoomRows(StoredPart):
    """Rows of a dense matrix of genes x cells: its columns, some at a time."""

    def _open(self, element: Any) -> None:
        super()._open(element)
        self.shape = (self.shape[1], self.shape[0])
        self.chunk_rows = int(element.chunks[1]) if element.chunks else 1

    def _estimate(self) -> int:
        g, n = self.shape  # as stored
        step = int(self._element.chunks[1]) if self._element.chunks else 32
        pieces = [np.asarray(self._element[:, start : start + step]) for start in {0, n // 2 // step * step}]
        share = np.mean([np.count_nonzero(block) / max(block.size, 1) for block in pieces])
        return int(np.ceil(share * n * g))

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Rows ``start`` to ``stop`` (exclusive) in CSR form, stored dtype.

        Raises
        ------
        DamagedDataError
            When they cannot be read.
        """
        step = max(1, _PIECE // max(self.shape[1], 1) // self.chunk_rows) * self.chunk_rows
        with self._blame(f"Cells {start} to {stop - 1}"):
            blocks = [
                sparse.csr_array(np.asarray(self._element[:, first : min(first + step, stop)]).T)
                for first in range(start, stop, step)
            ]
        if not blocks:
            return sparse.csr_array((0, self.shape[1]), dtype=self.dtype)
        return blocks[0] if len(blocks) == 1 else sparse.csr_array(sparse.vstack(blocks, format="csr"))


def open_loom(path: Path, file: h5py.File, reading: Reading) -> Opened:
    """Open a ``.loom``.

    Parameters
    ----------
    path
        For messages.
    file
        Open for reading.
    reading
        ``layers``.

    Raises
    ------
    KeyError
        For a layer that is not there.
    DamagedDataError
        When its parts do not fit each other.
    """
    with naming_damage(path):
        stored = {name: file["layers"][name] for name in file["layers"]} if "layers" in file else {}
    wanted = wanted_layers(path, sorted(stored), reading.layers)
    x = LoomRows(file["matrix"], path)
    matrices: dict[str | None, Rows] = {None: x}
    matrices.update({name: LoomRows(stored[name], path) for name in wanted})
    n, g = x.shape
    with naming_damage(path):
        allowance = Allowance(path)
        allowance.require(file["col_attrs"])
        allowance.require(file["row_attrs"])
        of_cells, arrays = _table(file["col_attrs"], n)
        of_genes, _ = _table(file["row_attrs"], g)
    obs = _named(path, "cell", of_cells, _CELLS)
    var = _named(path, "gene", of_genes, _GENES)
    identifiers = next((name for name in _IDS if name in var), None)
    if identifiers is not None:
        var["gene_ids"] = var[identifiers]
    return Opened(path, obs, var, matrices, arrays)


def _table(group: h5py.Group, n: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Columns of a table, and arrays of numbers that have more than one."""
    found = {name: group[name] for name in group if isinstance(group[name], h5py.Dataset)}
    of_each = {name: item for name, item in found.items() if item.shape and item.shape[0] == n}
    columns = {name: _values(item) for name, item in of_each.items() if len(item.shape) == 1}
    arrays = {name: item[:] for name, item in of_each.items() if len(item.shape) > 1 and item.dtype.kind in "biuf"}
    return pd.DataFrame(columns, index=range(n)), arrays


def _values(dataset: h5py.Dataset) -> np.ndarray:
    if dataset.dtype.kind in "biuf":
        return dataset[:]
    return np.array([_text(value) for value in dataset[:]], dtype=object)


def _text(value: Any) -> str:
    """A string; old files have what is not ASCII as entities of HTML."""
    return html.unescape(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def _named(path: Path, what: str, table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with one of its columns as its index: the first of these that is there."""
    lowered = {name.lower(): name for name in reversed([*table.columns])}
    column = next((lowered[name.lower()] for name in columns if name.lower() in lowered), None)
    if column is None:
        return table.set_axis(numbered(path, what, len(table)))
    names = unique(path, what, table[column].to_numpy())
    return table.drop(columns=column).set_axis(names)
