"""Where the counts are, when they are not where a model was told: in ``X``, a layer or ``raw``.

Counts are whole and not negative; those of a whole cell, and not of a part of its molecules, are the most. Among
several such matrices, rounded or rescaled values give themselves away: all cells have the same total, the smallest
value is not 1, or hardly any is 0.

Dims: n cells, g genes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset

from ..store.dtypes import plain_values
from ..store.matrices.blocks import DenseBlock, blocks
from .counts import check_counts, is_count_matrix

__all__ = ["count_places", "part_of"]

_STRETCHES, _ROWS = 16, 32
"""Of a matrix on disk so many stretches of so many rows (or columns, where it is stored by those) are looked at."""

_PART = re.compile(r"spliced|ambiguous|spanning|exon|intron|mature|nascent", re.IGNORECASE)
"""Layers that hold the molecules of one kind; together they are the counts."""

_MAIN_PART = re.compile(r"(?<!un)spliced|exon|(?<!im)mature", re.IGNORECASE)
"""Those without which the others do not add up to anything like the counts."""

_DOUBTFUL = re.compile(r"norm|scale|log|cpm|tpm|rpkm|fpkm|imput|denois|smooth|magic|binar|correct", re.IGNORECASE)
_EXPECTED = re.compile(r"count|umi|raw", re.IGNORECASE)

_EQUAL = 1e-2
"""Totals of cells that differ by less than this, relatively, were made equal, and then rounded."""

_DENSE = 0.95
"""Share of entries above zero from which on there are hardly any zeros."""


@dataclass(frozen=True)
class _Place:
    """A matrix of whole numbers, and how much it looks like all counts."""

    attr_name: str
    attr_key: str | None
    n_genes: int
    typed: str
    depth: float
    has_ones: bool
    has_zeros: bool
    has_twos: bool
    varies: bool

    @property
    def is_part(self) -> bool:
        return self.attr_key is not None and bool(_PART.search(self.attr_key))

    @property
    def rank(self) -> tuple[Any, ...]:
        """The larger, the more it looks like the counts."""
        return *self.signs, round(np.log(self.depth), 2), *self._preferred(self.attr_key or "")

    @property
    def signs(self) -> tuple[bool, ...]:
        """What speaks for it, whatever the others are like."""
        return self.has_ones, self.varies, self.has_twos, self.has_zeros, not _DOUBTFUL.search(self.attr_key or "")

    def _preferred(self, name: str) -> tuple[Any, ...]:
        """Among equal ones: by the name, and those with the genes of ``X`` first."""
        return self.attr_name == "X", bool(_EXPECTED.search(name)), self.attr_name == "layers", -len(name)


def count_places(adata: AnnData, attr_name: str, attr_key: str | None) -> list[str]:
    """What to pass to ``setup_anndata`` for the matrices of an AnnData that look like counts, the best first.

    Parameters
    ----------
    adata
        The data; matrices on disk are looked at in some rows, others as a whole.
    attr_name, attr_key
        The matrix that was looked at already, and holds none.

    Returns
    -------
    For example ``['layer="umi"', 'use_raw=True (its 30 genes)']``. Layers that hold a part of the counts only, as
    velocyto's do, are named together as the sum that they are, and only if there is nothing else.
    """
    found = [
        place
        for name, key, x in _matrices(adata)
        if (name, key) != (attr_name, attr_key) and (place := _looked_at(adata, name, key, x, attr_name)) is not None
    ]
    found.sort(key=lambda place: place.rank, reverse=True)
    whole = [place for place in found if not place.is_part]
    if not whole:
        return _of_parts(found)
    return [place.typed for place in whole if place.signs == whole[0].signs]


def _of_parts(parts: list[_Place]) -> list[str]:
    """The sum of the parts that there are; nothing where only the lesser ones are there."""
    names = [place.attr_key or "" for place in parts]
    if not any(_MAIN_PART.search(name) for name in names):
        return []
    if len(parts) == 1:
        return [f"{parts[0].typed} (a part of the counts only)"]
    terms = " + ".join(f"adata.layers[{json.dumps(name, ensure_ascii=False)}]" for name in names)
    return [f"the sum of the layers {', '.join(map(repr, names))}, which are parts of them: adata.X = {terms}"]


def _matrices(adata: AnnData) -> Iterator[tuple[str, str | None, Any]]:
    yield "X", None, adata.X
    for key, x in adata.layers.items():
        yield "layers", key, x
    if adata.raw is not None:
        yield "raw", None, adata.raw.X


def _looked_at(adata: AnnData, name: str, key: str | None, x: Any, chosen: str) -> _Place | None:
    """The matrix as a place of counts; None for one that holds none."""
    try:
        part = part_of(x) if isinstance(x, h5py.Dataset | CSRDataset | CSCDataset) or not _in_memory(x) else x
        if x is None or not is_count_matrix(part):
            return None
    except (TypeError, ValueError, OSError):  # no numbers, or damaged: no counts to point at
        return None
    n_genes = int(x.shape[1])
    columns_g = np.ones(n_genes, bool)
    if name == "raw" and part.shape[1] == n_genes:
        columns_g = np.isin(np.asarray(adata.raw.var_names, str), np.asarray(adata.var_names, str))
        columns_g = columns_g if columns_g.any() else np.ones(n_genes, bool)
    report = check_counts(part)
    if not report.nnz and part.shape[0] == x.shape[0]:
        return None  # nothing but zeros; of a matrix that was looked at in part the rest may hold counts
    smallest, sum_g = _smallest_and_sums(part)
    is_whole = part.shape[1] == n_genes  # else columns were looked at, which say nothing of a cell's total
    totals_n = report.total_per_cell if is_whole else np.zeros(1)
    if _were_made_equal(totals_n):
        return None
    used_g = columns_g if is_whole else np.ones(len(sum_g), bool)
    return _Place(
        name,
        key,
        n_genes,
        _typed(name, key, n_genes, chosen),
        depth=float(sum_g[used_g].mean() / max(part.shape[0], 1)) or 1e-9,
        has_zeros=report.density <= _DENSE,
        has_ones=smallest == 1,
        has_twos=report.max > 1,
        varies=len(totals_n) < 2 or bool(np.ptp(totals_n) > 0),
    )


def _were_made_equal(totals_n: np.ndarray) -> bool:
    """Whether totals differ by nothing but rounding; those of counts that were drawn to one depth are the same."""
    return len(totals_n) > 1 and 0 < np.ptp(totals_n) <= _EQUAL * totals_n.mean()


def _typed(name: str, key: str | None, n_genes: int, chosen: str) -> str:
    if name == "layers":
        return f"layer={json.dumps(key, ensure_ascii=False)}"
    if name == "raw":
        return f"use_raw=True (adata.raw, {n_genes} genes)"
    return "use_raw=False" if chosen == "raw" else "layer=None"


def _in_memory(x: object) -> bool:
    return x is None or isinstance(x, np.ndarray) or sp.issparse(x)


def part_of(x: Any) -> Any:
    """Stretches of rows from all over the matrix, in memory; of columns, where it is stored by those."""
    by_column = isinstance(x, CSCDataset)
    length = int(x.shape[1 if by_column else 0])
    if length <= _STRETCHES * _ROWS:
        slices = [slice(0, length)]
    else:
        slices = [slice(s, s + _ROWS) for s in np.linspace(0, length - _ROWS, _STRETCHES).astype(int).tolist()]
    pieces = [x[:, some] if by_column else x[some] for some in slices]
    pieces = [piece.compute() if hasattr(piece, "compute") else piece for piece in pieces]
    if sp.issparse(pieces[0]):
        return (sp.hstack if by_column else sp.vstack)(pieces, format="csc" if by_column else "csr")
    return np.concatenate([np.asarray(piece) for piece in pieces])


def _smallest_and_sums(x: Any) -> tuple[float, np.ndarray]:
    """Smallest value above zero, and the sum of each column."""
    smallest, sum_g = np.inf, np.zeros(int(x.shape[1]))
    for block in blocks(x):
        values = plain_values(block.values if isinstance(block, DenseBlock) else block.data)
        smallest = min(smallest, float(values.min(where=values > 0, initial=np.inf if values.dtype.kind == "f" else 2)))
        if isinstance(block, DenseBlock):
            sum_g += values.sum(axis=0, dtype=np.float64)
        else:
            sum_g += np.bincount(block.column_of_entry(), weights=values, minlength=len(sum_g))
    return smallest, sum_g
