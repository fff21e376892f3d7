"""Turn what users name (data, cells, batches) into what :mod:`celbo.posterior` takes (minibatches, codes)."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from torch import Tensor

from ..core import REGISTRY_KEYS, UnknownArgumentError, settings, unknown_name
from ..data import AnnDataManager
from ..dataloaders import AnnDataLoader
from ..dataloaders.row_sources.source import as_indices
from ..module.base import BaseModuleClass
from ..posterior import Weighting, batch_codes
from ..posterior.normalized import draw_rows
from .base import Model

__all__ = [
    "Asked",
    "Weights",
    "asked",
    "cells_at_once",
    "codes_of_batches",
    "encodes_faster_sparse",
    "has_few_counts",
    "weighting_of",
]

Weights = Literal["uniform", "importance"]

_TABLE = 2**20
"""Numbers in a minibatch's table of counts."""

_SPARSE_CELLS = 2048
"""Cells per minibatch of sparse counts: no dense table bounds them, and each minibatch transposes the weights once."""

_MOST_NONZERO = 0.4
"""Share of nonzero counts up to which the sparse product was measured to be the faster one."""


@dataclass(frozen=True)
class Asked:
    """The cells that a question is about.

    Attributes
    ----------
    model
        The model that is asked.
    adata
        The data; None where a dataloader was given.
    cells
        Row numbers in the order asked, ``(n,)``; None where a dataloader was given.
    batches
        Minibatches of them.
    loader_kwargs
        How minibatches are read.
    """

    model: Model
    adata: AnnData | None
    cells: np.ndarray | None
    batches: Iterable[dict[str, Tensor]]
    loader_kwargs: dict[str, Any]

    @property
    def n_cells(self) -> int | None:
        """Number of cells, where it is known beforehand."""
        return None if self.cells is None else len(self.cells)

    @property
    def names(self) -> pd.Index | None:
        """Names of the cells, where they are known."""
        return None if self.adata is None else self.adata.obs_names[self.cells]

    def loader_of(self, cells: np.ndarray) -> Iterable[dict[str, Tensor]]:
        """Minibatches of some cells by row number."""
        assert self.adata is not None
        return self.model._make_data_loader(adata=self.adata, indices=cells, **self.loader_kwargs)

    def drawn(self, n_cells: int, seed: int | None) -> "Asked":
        """``n_cells`` of the cells, drawn with replacement; a ``ValueError`` where a dataloader was given."""
        rng = np.random.default_rng(settings.seed if seed is None else seed)
        rows = draw_rows(self.require_cells("n_samples_overall"), n_cells, rng)
        return replace(self, cells=rows, batches=self.loader_of(rows))

    def require_cells(self, purpose: str) -> np.ndarray:
        """Row numbers; a ``ValueError`` where a dataloader was given, which cannot be asked for cells by number."""
        if self.cells is None:
            raise ValueError(f"{purpose} draws cells by number: pass adata= and indices= instead of dataloader=.")
        return self.cells


def asked(
    model: Model,
    adata: AnnData | None = None,
    indices: object = None,
    batch_size: int | None = None,
    dataloader: Iterable[dict[str, Tensor]] | None = None,
    loader_kwargs: dict[str, Any] | None = None,
    *,
    only_encodes: bool = False,
) -> Asked:
    """Find the cells and make their minibatches.

    Parameters
    ----------
    model
        The model.
    adata
        Data; None: the training data. Set up like the training data if they were not.
    indices
        Row numbers in any order, with repeats if you like, or a boolean mask; None: all cells.
    batch_size
        Cells per minibatch; None: see :func:`cells_at_once`.
    dataloader
        Minibatches to take instead of ``adata`` and ``indices``.
    loader_kwargs
        Further arguments of the data loader.
    only_encodes
        The counts go to the encoder and nowhere else: they may come as CSR tensors, see :func:`encodes_faster_sparse`.

    Raises
    ------
    IndexError
        A row that does not exist, or a mask of another length.
    ValueError
        ``dataloader`` together with ``adata`` or ``indices``; no cells.

    Notes
    -----
    Of an untrained model it is said that its answers mean nothing. Verbs that refuse to answer then say so before.
    """
    model._check_if_trained()
    size = cells_at_once(model) if batch_size is None else batch_size
    options: dict[str, Any] = {"batch_size": size, **(loader_kwargs or {})}
    if dataloader is not None:
        if adata is not None or indices is not None:
            raise ValueError("dataloader= says which cells: leave out adata= and indices=, or the dataloader.")
        return Asked(model, None, None, dataloader, options)
    adata = model._validate_anndata(adata)
    if only_encodes and encodes_faster_sparse(model, adata):
        larger = {"batch_size": max(size, _SPARSE_CELLS)} if batch_size is None else {}
        options = {"load_sparse_tensor": True} | options | larger
    cells = np.arange(adata.n_obs) if indices is None else as_indices(indices, adata.n_obs, what="cell")
    if not len(cells):
        raise ValueError("There are no cells to answer about: `indices` is empty.")
    return Asked(model, adata, cells, model._make_data_loader(adata=adata, indices=cells, **options), options)


def cells_at_once(model: Model) -> int:
    """Default cells per minibatch: a table of counts of 4 MiB, but at least ``celbo.settings.batch_size``.

    Answers do not depend on it. Smaller tables cost a third more time per cell, larger ones only memory.
    """
    return max(settings.batch_size, _TABLE // max(1, model.summary_stats.get("n_vars", _TABLE)))


def encodes_faster_sparse(model: Model, adata: AnnData) -> bool:
    """Whether encoding is faster on the CSR matrix itself: few nonzero counts, and an encoder that takes CSR."""
    module, reader = model.module, model._data_loader_cls
    if not (isinstance(module, BaseModuleClass) and module.encodes_sparse_counts):
        return False
    few = has_few_counts(model.get_anndata_manager(adata, required=True), _MOST_NONZERO)
    return few and module.device.type == "cpu" and reader is AnnDataLoader


def has_few_counts(manager: AnnDataManager, most: float) -> bool:
    """Whether the counts lie in memory as CSR, and less than a share ``most`` of them is not zero."""
    x = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    return isinstance(x, sp.csr_matrix | sp.csr_array) and x.nnz < most * x.shape[0] * x.shape[1]


def codes_of_batches(model: Model, names: object, argument: str = "transform_batch") -> list[int | None]:
    """Codes of batches by category; ``[None]``, each cell's own, for None. ``ValueError`` for an unknown category."""
    if names is None:
        return [None]
    return batch_codes(names, model.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"], argument)


def weighting_of(weights: Weights | None, kwargs: dict[str, Any]) -> Weighting | None:
    """How draws are weighted; None: uniformly. Arguments are the fields of :class:`~celbo.posterior.Weighting`.

    Raises a ``ValueError`` for an unknown choice, an ``UnknownArgumentError`` for an argument that nobody knows, a
    ``TypeError`` for those that only importance weights have.
    """
    known = [field.name for field in fields(Weighting)]
    if unknown := [name for name in kwargs if name not in known]:
        raise UnknownArgumentError.among(unknown[0], "weights='importance'", known)
    if weights not in (None, "uniform", "importance"):
        raise ValueError(unknown_name("choice of weights", weights, ("uniform", "importance")))
    if weights == "importance":
        return Weighting(**kwargs)
    if kwargs:
        raise TypeError(f"{', '.join(kwargs)}: no such argument, unless weights='importance' is asked for.")
    return None
