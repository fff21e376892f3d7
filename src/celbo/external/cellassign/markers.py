"""The table that says which gene marks which type: what it must be, and its rows in the order of the data."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ...data import align_genes

__all__ = ["SIZES_OF_MARKERS", "RepeatedMarkersError", "check_size_factors", "markers_of"]

SIZES_OF_MARKERS = (
    "The size factors adata.obs[%r] are the totals of the marker genes alone. A type without markers has low totals, "
    "so its cells are taken for others: compute size factors from all genes, before you take the markers' columns."
)


class RepeatedMarkersError(ValueError, AssertionError):
    """A gene stands in the table of markers twice. scvi-tools raises an ``AssertionError``: hence the second base."""


def _check_markers(cell_type_markers: pd.DataFrame) -> None:
    """Refuse a table with a type twice, or with anything but 0 and 1."""
    types = cell_type_markers.columns
    if not types.is_unique:
        twice = types[types.duplicated()].unique()
        raise ValueError(f"cell_type_markers has the type {twice[0]!r} in more than one column: give each a name.")
    number_gc = cell_type_markers.apply(pd.to_numeric, errors="coerce")
    is_wrong_gc = ~number_gc.isin([0, 1]).to_numpy()
    if is_wrong_gc.any():
        row, column = np.argwhere(is_wrong_gc)[0]
        more = int(is_wrong_gc.sum()) - 1
        raise ValueError(
            f"cell_type_markers has {cell_type_markers.iloc[row, column]!s} for gene {cell_type_markers.index[row]!r} "
            f"and type {types[column]!r}{f' (and {more} more such entries)' if more else ''}: wanted 1 where the gene "
            "marks the type, else 0."
        )


def markers_of(genes: Iterable[str], cell_type_markers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table for these genes, in their order.

    Parameters
    ----------
    genes
        Names, ``(g,)``.
    cell_type_markers
        Genes by types, of 0 and 1.

    Raises
    ------
    KeyError
        The table has other genes.
    RepeatedMarkersError
        A gene stands in it twice.
    ValueError
        A type stands in it twice, or anything but 0 and 1.
    """
    if not cell_type_markers.index.is_unique:
        twice = cell_type_markers.index[cell_type_markers.index.duplicated()].unique()
        raise RepeatedMarkersError(
            f"cell_type_markers has {len(twice)} genes in more than one row ({', '.join(map(repr, twice[:5]))}): "
            "keep one of the rows, or add them up."
        )
    _check_markers(cell_type_markers)
    match = align_genes(cell_type_markers.index, np.asarray(genes), where="cell_type_markers.index")
    if len(match.missing) or len(match.extra):
        unmarked, absent = (", ".join(map(repr, names[:5])) or "none" for names in (match.missing, match.extra))
        raise KeyError(
            "Anndata and cell type markers do not contain the same genes. "
            f"Only in adata: {len(match.missing)} ({unmarked}); only in cell_type_markers: {len(match.extra)} "
            f"({absent}). Make the model on adata[:, cell_type_markers.index].copy()."
        )
    return cell_type_markers.iloc[match.indexer]


def check_size_factors(size_n: np.ndarray, column: str) -> None:
    """Raise ``ValueError`` for size factors of ``adata.obs[column]`` that are not positive."""
    n_bad = int((~(np.asarray(size_n, dtype=np.float64) > 0)).sum())
    if n_bad:
        raise ValueError(
            f"adata.obs[{column!r}] is zero, negative or missing for {n_bad} cells: size factors are positive. "
            "Leave cells without counts out."
        )
