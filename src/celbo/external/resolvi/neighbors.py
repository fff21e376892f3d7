"""Neighbours of cells and cells' names, written to an AnnData; what the counts say before training."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError, UnknownArgumentError
from ...data.access import require_key
from ...data.fields import CategoricalObsField
from ...data.library import total_counts
from ...data.spatial import check_neighbours, coordinates_of, nearest_cells, two_hop_cells
from ...store.matrices.blocks import DenseBlock, blocks
from ...store.matrices.matrix import columns_of
from .module import DISTANCE_KEY, INDEX_KEY

__all__ = ["FEWEST_GENES", "CellField", "Graph", "Prepared", "dataset_priors", "prepare"]

Graph = Literal["nearest", "two_hops"]

CELL_NAMES = "_indices"
FEWEST_GENES = 50
"""One of so many genes is taken for background, the least expressed."""

_SIXTH = 5

_OF_NO_BATCH = "cell_"
"""What celbo 0.2.0 put before the names of cells that have no batch; scvi-tools puts nothing."""


class CellField(CategoricalObsField):
    """The name of each cell as a category, for parameters of single cells."""

    def __init__(self) -> None:
        super().__init__(REGISTRY_KEYS.INDICES_KEY, CELL_NAMES)

    def _write(self, adata: AnnData, column: pd.Series, mapping: np.ndarray, *, is_new: bool = False) -> dict[str, Any]:
        return super()._write(adata, column, mapping)  # no warning: every category has one cell here

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Find the cells among those of the source, others are an ``ArgumentError``; those of a query are all new."""
        if kwargs.get("extend_categories"):
            return self.register_field(adata_target)
        known = set(np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY]).astype(str))
        names = adata_target.obs[CELL_NAMES].astype(str)
        if known.issuperset(before := _OF_NO_BATCH + names):
            adata_target.obs[CELL_NAMES] = before.astype("category")
            names = before
        new = [name for name in names if name not in known]
        if new:
            raise ArgumentError(
                f"This model was not trained on {len(new)} of the cells: {', '.join(map(repr, new[:5]))}. RESOLVI "
                "learns weights for the neighbours of each cell: make a model of these cells from this one by "
                "RESOLVI.load_query_data, or train one on them, too."
            )
        return super().transfer_field(state_registry, adata_target, **kwargs)


class Prepared(NamedTuple):
    """Entries of setup's ``prepare_data_kwargs``.

    Attributes
    ----------
    n_neighbors
        Neighbours of each cell.
    spatial_rep
        Entry of ``obsm`` with the coordinates.
    batch_key, slice_key
        Column of ``obs`` with the section of each cell, in which neighbours are looked for; None: the batch.
    """

    n_neighbors: int = 10
    spatial_rep: str = "X_spatial"
    batch_key: str | None = None
    slice_key: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Prepared":
        """Read the argument; an unknown word is an ``UnknownArgumentError`` that names the nearest."""
        for name in given or {}:
            if name not in cls._fields:
                raise UnknownArgumentError.among(name, "prepare_data_kwargs", cls._fields)
        return cls(**(given or {}))


def prepare(adata: AnnData, batch_key: str | None, options: Prepared, graph: Graph, *, find: bool) -> None:
    """Find neighbours, or check those that are there, and name each cell.

    Parameters
    ----------
    adata
        The cells.
    batch_key
        Column of ``obs`` with their batch.
    options
        See :class:`Prepared`.
    graph
        Which neighbours.
    find
        Whether to find them.

    Raises
    ------
    ArgumentError
        No coordinates, NaN coordinates, a section of too few cells; stored neighbours that are not of these cells.
    """
    if not adata.n_obs:
        return  # an archive's setup is checked without cells
    section_key = options.slice_key or options.batch_key or batch_key
    if section_key is not None:
        require_key(adata, "obs", section_key)
    sections = None if section_key is None else adata.obs[section_key]
    names = pd.Series(adata.obs_names.astype(str), index=adata.obs_names)
    of_batch = "" if batch_key is None else adata.obs[batch_key].astype(str) + "_"
    adata.obs[CELL_NAMES] = (of_batch + names).astype("category")
    if find:
        xy_nd = coordinates_of(adata, options.spatial_rep, "prepare_data_kwargs['spatial_rep']")
        if graph == "two_hops":
            found = two_hop_cells(xy_nd, options.n_neighbors, sections, adata.obs_names)
            adata.obsm[INDEX_KEY], adata.obsm[DISTANCE_KEY] = found
        else:
            near = nearest_cells(xy_nd, options.n_neighbors, sections, adata.obs_names, "n_neighbors")
            adata.obsm[INDEX_KEY], adata.obsm[DISTANCE_KEY] = near.index_nm, near.distance_nm**2
        return
    missing = [key for key in (INDEX_KEY, DISTANCE_KEY) if key not in adata.obsm]
    if missing:
        raise ArgumentError(
            f"prepare_data=False takes the neighbours that are there, and adata.obsm has no "
            f"{' and no '.join(map(repr, missing))}: pass prepare_data=True, which finds them."
        )
    if graph == "nearest" and options.spatial_rep in adata.obsm:
        xy_nd = coordinates_of(adata, options.spatial_rep, "prepare_data_kwargs['spatial_rep']")
        stored = np.asarray(adata.obsm[INDEX_KEY]), np.asarray(adata.obsm[DISTANCE_KEY])
        check_neighbours(*stored, xy_nd, adata.obs_names, "Pass prepare_data=True, which finds them.", squared=True)


def dataset_priors(x: Any, distance_nm: np.ndarray, n_small_genes: int | None) -> dict[str, Any]:
    """Priors estimated from counts and distances before training.

    Parameters
    ----------
    x
        Counts, ``(n, g)``, on any storage.
    distance_nm
        Squared distances of neighbours.
    n_small_genes
        Number of least expressed genes to estimate the background from; None: one in fifty.

    Returns
    -------
    ``background_ratio``: mean count of these genes over that of all, in the mean over cells; ``median_distance``:
    median of the squared distance of the sixth nearest; ``mean_log_counts`` and ``std_log_counts``: median and standard
    deviation of the log totals.

    Raises
    ------
    ArgumentError
        Fewer genes than the background needs.
    """
    n_genes = x.shape[1]
    n_small = n_genes // FEWEST_GENES if n_small_genes is None else n_small_genes
    if not 0 < n_small <= n_genes:
        raise ArgumentError(
            f"RESOLVI tells the background from one gene in {FEWEST_GENES}, the least expressed ones, and these "
            f"are {n_genes} genes: give background_ratio= (0.1, say), or n_small_genes= to compute_dataset_dependent_"
            "priors."
        )
    smallest = np.argsort(_sums_of_genes(x).astype(np.float32))[:n_small]
    total_n = total_counts(x)
    few = columns_of(x, smallest)
    mean_n, small_n = total_n / n_genes, total_counts(few) / n_small
    log_totals = np.log1p(total_n)
    is_full = mean_n > 0
    if not is_full.any():
        raise ArgumentError("All cells are empty: the background has no counts to be told by. Look at the data.")
    nearest_nm = np.sort(np.asarray(distance_nm), axis=1)
    return {
        "background_ratio": np.float32((small_n[is_full] / mean_n[is_full]).mean()),
        "median_distance": np.float64(np.median(nearest_nm[:, min(_SIXTH, nearest_nm.shape[1] - 1)])),
        "mean_log_counts": np.float32(np.median(log_totals)),
        "std_log_counts": np.float32(log_totals.std()),
    }


def _sums_of_genes(x: Any) -> np.ndarray:
    """Counts of each gene in one pass, ``(g,)``."""
    sum_g = np.zeros(x.shape[1])
    for block in blocks(x):
        if isinstance(block, DenseBlock):
            sum_g += block.values.sum(0, dtype=np.float64)
        else:
            np.add.at(sum_g, block.column_of_entry(), block.data.astype(np.float64))
    return sum_g
