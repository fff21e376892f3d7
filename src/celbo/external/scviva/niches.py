"""Niches of cells: found, described and written to an AnnData, or missed in it."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError
from ...data.access import require_key
from ...data.spatial import coordinates_of, nearest_cells, niche_composition, niche_state

__all__ = ["require_niches", "require_own_niches", "write_niches"]


def write_niches(
    adata: AnnData,
    k_nn: int,
    labels_key: str,
    sample_key: str | None,
    cell_coordinates_key: str,
    expression_embedding_key: str,
    log1p: bool,
    keys: tuple[str, str, str, str],
    types: np.ndarray | None = None,
) -> None:
    """Find the nearest cells of each cell, and who and in what state they are.

    Parameters
    ----------
    adata, k_nn, labels_key, sample_key, cell_coordinates_key, expression_embedding_key, log1p
        See :meth:`celbo.external.SCVIVA.preprocessing_anndata`.
    keys
        Entries of ``obsm`` for row numbers, distances, shares and states.
    types
        The cell types to describe niches by, in their order; None: those of the cells, in theirs.

    Raises
    ------
    ArgumentError
        No coordinates, a section of too few cells, no embedding, or types that are not among ``types``.
    """
    labels = _column(adata, labels_key).astype(str)
    known = pd.Index(pd.unique(labels) if types is None else types)
    codes = known.get_indexer(pd.Index(labels))
    if (codes < 0).any():
        raise ArgumentError(
            f"adata.obs[{labels_key!r}] has cell types that the reference does not know: "
            f"{', '.join(map(repr, sorted(set(labels[codes < 0]))[:5]))}. Its types are "
            f"{', '.join(map(repr, known[:10]))}: call these cells as there, or leave them out."
        )
    sections = None if sample_key is None else _column(adata, sample_key)
    places = coordinates_of(adata, cell_coordinates_key, "cell_coordinates_key")
    embedding = _embedding(adata, expression_embedding_key, log1p)
    found = nearest_cells(places, k_nn, sections, adata.obs_names, "k_nn")
    shares = niche_composition(found.index_nm, codes, len(known))
    of_indexes, of_distances, of_shares, of_states = keys
    adata.obsm[of_indexes], adata.obsm[of_distances] = found
    adata.obsm[of_shares] = pd.DataFrame(shares, index=adata.obs_names, columns=known)
    adata.obsm[of_states] = niche_state(found.index_nm, codes, len(known), embedding)


def _column(adata: AnnData, key: str) -> pd.Series:
    require_key(adata, "obs", key)
    return adata.obs[key]


def _embedding(adata: AnnData, key: str, log1p: bool) -> np.ndarray:
    if key not in adata.obsm:
        raise ArgumentError(
            f"adata.obsm has no embedding {key!r} (expression_embedding_key); there are: "
            f"{', '.join(map(repr, adata.obsm)) or 'none'}. Put the latents of a first model there, such as those of "
            "celbo.model.SCVI: adata.obsm['X_scVI'] = first.get_latent_representation()."
        )
    embedding_ne = np.asarray(adata.obsm[key], dtype=np.float64)
    return np.log1p(embedding_ne) if log1p else embedding_ne


def require_niches(adata: AnnData, keys: list[str]) -> None:
    """Raise an ``ArgumentError`` unless the entries of ``obsm`` are there that niches are learned from."""
    missing = [key for key in keys if key not in adata.obsm]
    if missing and adata.n_obs:  # an archive's setup is checked without cells
        raise ArgumentError(
            f"adata.obsm has no {', '.join(map(repr, missing))}, which SCVIVA learns niches from. Call "
            "SCVIVA.preprocessing_anndata(adata, labels_key=..., sample_key=...) first, with the same names. "
            "Coordinates (cell_coordinates_key) and an embedding of expression (expression_embedding_key) are yours "
            "to give."
        )


def require_own_niches(types: Iterable[object], described: Iterable[object], n_cells: int, last: int) -> None:
    """Raise an ``ArgumentError`` where cells were left out, or types renamed, after their niches were found.

    Parameters
    ----------
    types, described
        Cell types of the labels, and those whose shares the niches give.
    n_cells, last
        Number of cells, and the largest row number of a neighbour.
    """
    of_labels, of_niches = set(map(str, types)), set(map(str, described))
    if of_labels != of_niches:
        stale = f"The niches are of the cell types {_some(of_niches)}, and the labels are {_some(of_labels)}"
    elif last >= n_cells:
        stale = f"The niches name cell {last} as a neighbour, and there are {n_cells} cells"
    else:
        return
    raise ArgumentError(
        f"{stale}: they were found for other cells or labels than these. Call SCVIVA.preprocessing_anndata again, then "
        "setup_anndata, after leaving cells out or changing labels."
    )


def _some(names: Iterable[str]) -> str:
    shown = list(map(repr, sorted(names)))
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
