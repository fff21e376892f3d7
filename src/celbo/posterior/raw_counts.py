r"""What the counts themselves say of groups of cells, read from the data as they lie, in one pass for all groups.

Dims: n cells, g genes, m groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..store.matrices.blocks import CompressedBlock, DenseBlock, blocks, shape_of

__all__ = ["GroupMeans", "beside", "group_means"]

TARGET = 1e4
"""Counts that a cell is scaled to for the normalized mean."""


@dataclass(frozen=True)
class GroupMeans:
    """Figures of each group, ``(m, g)`` float64.

    Attributes
    ----------
    mean
        Mean count.
    nonzero
        Share of cells with a count other than zero.
    normalized
        Mean of the counts after each cell is scaled to 10,000; an empty cell counts as zeros.
    """

    mean: np.ndarray
    nonzero: np.ndarray
    normalized: np.ndarray


def beside(parts: Sequence[GroupMeans]) -> GroupMeans:
    """Figures of several outputs' features beside each other, as the outputs stand."""
    names = ("mean", "nonzero", "normalized")
    return GroupMeans(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names))


def group_means(x: object, groups: Sequence[np.ndarray], columns: np.ndarray | None = None) -> GroupMeans:
    """Mean count, share of nonzeros and depth-normalized mean of every gene in every group.

    Parameters
    ----------
    x
        Counts of all cells, ``(n, .)``: dense, CSR or CSC, in memory, in a file or as a dask array.
    groups
        Row numbers of each group's cells. Groups may overlap.
    columns
        Column of ``x`` for each gene, ``(g,)``; -1 for a gene that is not there and counts as zeros. None: all as they
        lie.

    Notes
    -----
    One pass over rows; for a matrix stored by columns one more before, for the cells' totals.
    """
    n, width = shape_of(x)
    used = np.ones(width, dtype=bool) if columns is None else np.isin(np.arange(width), columns)
    member_mn = _members(groups, n)
    sums = [np.zeros((len(groups), width)) for _ in range(3)]
    totals_n = _totals_if_by_column(x, used)
    for block in blocks(x):
        if isinstance(block, CompressedBlock) and block.by_column:
            _add_columns(sums, member_mn, block, totals_n)
        else:
            _add_rows(sums, member_mn, block, used)
    sizes_m1 = np.array([[max(1, len(cells))] for cells in groups])
    return GroupMeans(*(_select(total / sizes_m1, columns) for total in sums))


def _members(groups: Sequence[np.ndarray], n: int) -> sp.csr_array:
    rows = np.repeat(np.arange(len(groups)), [len(cells) for cells in groups])
    cells = np.concatenate(groups) if len(groups) else np.empty(0, np.int64)
    # A cell named twice in a group counts twice, here and in the group's size.
    return sp.csr_array((np.ones(len(cells)), (rows, cells)), shape=(len(groups), n))


def _add_rows(
    sums: list[np.ndarray], member_mn: sp.csr_array, block: DenseBlock | CompressedBlock, used: np.ndarray
) -> None:
    member = member_mn[:, block.start : block.stop]
    if not member.nnz:
        return
    if isinstance(block, DenseBlock):
        values = block.values.astype(np.float64)
        _accumulate(sums, slice(None), member, values, values @ used.astype(np.float64))
    else:
        _add_sparse_rows(sums, member.toarray().T, _csr(block, len(used)), used)


def _add_sparse_rows(sums: list[np.ndarray], weight_nm: np.ndarray, values: sp.csr_array, used: np.ndarray) -> None:
    """Add each stored value to the sums of all groups at once: half the time of a sparse product for each figure."""
    scale_n = _to_target(values @ used.astype(np.float64))
    across = values.T
    product_gm = across @ np.concatenate([weight_nm, weight_nm * scale_n[:, None]], axis=1)
    across.data = (across.data != 0).astype(np.float64)
    m = weight_nm.shape[1]
    for total, part_gm in zip(sums, (product_gm[:, :m], across @ weight_nm, product_gm[:, m:])):
        total += part_gm.T


def _add_columns(sums: list[np.ndarray], member_mn: sp.csr_array, block: CompressedBlock, totals_n: np.ndarray) -> None:
    shape = (len(totals_n), len(block.indptr) - 1)
    values = sp.csc_array((block.data.astype(np.float64), block.indices, block.indptr), shape=shape)
    _accumulate(sums, slice(block.start, block.stop), member_mn, values, totals_n)


def _accumulate(
    sums: list[np.ndarray], columns: slice, member: sp.csr_array, values: Any, totals_n: np.ndarray
) -> None:
    scaled = member @ sp.diags_array(_to_target(totals_n))
    for total, product in zip(sums, (member @ values, member @ (values != 0).astype(np.float64), scaled @ values)):
        total[:, columns] += product.toarray() if sp.issparse(product) else product


def _to_target(totals_n: np.ndarray) -> np.ndarray:
    """What scales each cell to 10,000 counts; 0 for an empty one."""
    return np.divide(TARGET, totals_n, out=np.zeros(len(totals_n)), where=totals_n > 0)


def _csr(block: CompressedBlock, width: int) -> sp.csr_array:
    shape = (len(block.indptr) - 1, width)
    values = sp.csr_array((block.data.astype(np.float64), block.indices, block.indptr), shape=shape)
    if not values.has_canonical_format:  # an entry in two parts is one that is not zero
        values = values.copy()  # the indices are the user's
        values.sum_duplicates()
    return values


def _totals_if_by_column(x: object, used: np.ndarray) -> np.ndarray:
    """Total count of each cell where a block has not whole rows; zeros where it has."""
    totals_n = np.zeros(shape_of(x)[0])
    for block in blocks(x):
        if not (isinstance(block, CompressedBlock) and block.by_column):
            break
        counted = used[block.column_of_entry()]
        totals_n += np.bincount(block.row_of_entry()[counted], block.data[counted], minlength=len(totals_n))
    return totals_n


def _select(values_mh: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    if columns is None:
        return values_mh
    return np.where(columns >= 0, values_mh[:, columns], 0.0)
