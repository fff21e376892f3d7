"""NicheMixin: predicted niches of cells in tissue, and the genes that differ with them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, ArgumentError, checked_methods
from ...core.kinds import Number, Several, Whole
from ...data.spatial import coordinates_of
from ...model.base import RNASeqMixin
from ...posterior.comparisons import comparisons
from ...posterior.passes import Rows, decode, encode, evaluating, on_device
from ...utils import unsupported_if_adata_minified
from ...verbs.cells import Asked, Weights, asked, weighting_of
from ...verbs.keys import offers_key
from ...verbs.outputs import corrected_batches, differential, output_of
from .differential_expression import (
    PROBABILITY,
    DifferentialExpressionResults,
    niche_results,
    own_genes,
    surrounding_cells,
)
from .module import SCVIVA_REGISTRY_KEYS

__all__ = ["NicheMixin"]

Batches = Iterable[dict[str, Tensor]]
Cells = Sequence[int] | Sequence[bool] | str
_Each = Annotated[float | Sequence[float], Several(Number(0))]


@checked_methods
class NicheMixin(RNASeqMixin):
    """Predicted niches and how well they fit.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``dataloader``, ``seed``): see
    :class:`~celbo.model.base.VAEMixin`.
    """

    @offers_key()
    def predict_neighborhood(
        self,
        adata: AnnData | None = None,
        indices: np.ndarray | None = None,
        batch_size: int | None = 1024,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Expected shares of cell types around each cell, ``(n, c)``, in the order of the composition's columns.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See the class.

        Examples
        --------
        >>> model.predict_neighborhood(indices=range(50)).shape
        (50, 3)
        """
        return self._decoded(asked(self, adata, indices, batch_size), "niche_composition", seed)

    @offers_key()
    def predict_niche_activation(
        self,
        adata: AnnData | None = None,
        indices: np.ndarray | None = None,
        batch_size: int | None = 1024,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Expected state of the neighbours of each type, ``(n, c, e)``, in the embedding that setup named.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See the class.

        Examples
        --------
        >>> model.predict_niche_activation(indices=range(50)).shape
        (50, 3, 5)
        """
        return self._decoded(asked(self, adata, indices, batch_size), "niche_expression", seed)

    def _decoded(self, cells: Asked, name: str, seed: int | None) -> np.ndarray:
        self._check_if_trained(warn=False)
        rows = Rows(cells.n_cells)
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                rows.append(decode(self.module, tensors, encode(self.module, tensors))[name].mean)
        return rows.array()

    @unsupported_if_adata_minified
    @offers_key()
    def get_composition_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Batches | None = None,
        return_mean: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Negative log-likelihood of the shares of cell types around each cell in nats, smaller is better.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See the class.
        return_mean
            The mean over cells, or a value for each, ``(n,)``.
        **kwargs
            Further arguments of the module's ``forward``.

        Examples
        --------
        >>> model.get_composition_error(return_mean=False).shape
        torch.Size([400])
        """
        cells = asked(self, adata, indices, batch_size, dataloader)
        return self._error(cells, lambda loss: loss.composition_loss, return_mean, seed, kwargs)

    @unsupported_if_adata_minified
    @offers_key()
    def get_niche_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Batches | None = None,
        return_mean: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """That of the states of each cell's neighbours; see :meth:`get_composition_error`.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, return_mean, seed, **kwargs
            As in :meth:`get_composition_error`.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Examples
        --------
        >>> model.get_niche_error(return_mean=False).shape
        torch.Size([400])
        """
        cells = asked(self, adata, indices, batch_size, dataloader)
        return self._error(cells, lambda loss: loss.niche_loss, return_mean, seed, kwargs)

    def _error(
        self,
        cells: Asked,
        term: Callable[[Any], dict[str, Tensor]],
        mean: bool,
        seed: int | None,
        kwargs: dict[str, Any],
    ) -> Tensor:
        self._check_if_trained()
        rows = Rows(cells.n_cells)
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                (value_n,) = term(self.module(tensors, **kwargs)[2]).values()
                rows.append(value_n)
        values = torch.from_numpy(rows.array())
        return values.double().mean() if mean else values

    def differential_expression(  # type: ignore[override]  # scvi-tools' signature and answer
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: _Each = 0.15,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        importance_weighting_kwargs: dict[str, Any] | None = None,
        niche_mode: bool = True,
        radius: Annotated[float | None, Number(0, above=True)] = None,
        k_nn: Annotated[int | None, Whole(1)] = None,
        n_restarts_optimizer_gpc: Annotated[int, Whole(0)] = 10,
        path_to_save: str | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame | DifferentialExpressionResults:
        """Differential expression between groups, taking into account what their neighbours may leak into them.

        Parameters
        ----------
        adata, groupby, idx1, idx2, mode, batch_size, all_stats, batch_correction, batchid1, batchid2, silent, weights
            See :meth:`celbo.model.base.RNASeqMixin.differential_expression`.
        filter_outlier_cells, importance_weighting_kwargs, seed, **kwargs
            See there.
        group1, group2
            With ``niche_mode`` one group; see there.
        delta, fdr_target
            See there; with ``niche_mode`` a list has one for each comparison: group 1 with group 2, with its
            neighbours, these with group 2, and with the neighbours of group 2.
        niche_mode
            Compare the neighbours too: cells of other types around those of a group.
        radius
            Only neighbours within this distance, in the unit of the coordinates.
        k_nn
            Nearest cells to use; None: as many as the niches were made of.
        n_restarts_optimizer_gpc
            Further starts of the fit that finds a group's own genes, see ``proba_de_g1_n1``.
        path_to_save
            File for a figure of the genes, see :meth:`DifferentialExpressionResults.plot`.

        Returns
        -------
        :class:`DifferentialExpressionResults`, whose tables have a column ``proba_de_g1_n1``: how likely a gene that
        is up in group 1 is its own and not its neighbours'. Without ``niche_mode`` one table, as there.

        Raises
        ------
        ArgumentError
            ``niche_mode`` with several groups at once; no neighbours of other types.

        Examples
        --------
        >>> found = model.differential_expression(groupby="labels", group1="label_0", niche_mode=False)
        >>> len(found)
        100
        """
        self._check_if_trained()
        corrected = corrected_batches(self, batchid1, batchid2) if batch_correction else (None, None)
        weighting = weighting_of(weights, importance_weighting_kwargs or {})
        options = {"mode": mode, "weighting": weighting, "filter_outlier_cells": filter_outlier_cells, **kwargs}
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        cells = asked(self, adata, None, batch_size)

        def compared(who: dict[str, Any], delta: float, fdr: Any) -> pd.DataFrame:
            chosen = options | {"delta": delta}
            outputs = [output_of(self, None)]
            return differential(
                self, cells, outputs, who, corrected, chosen, all_stats=all_stats, fdr_target=fdr, seed=seed
            )

        if not niche_mode:
            return compared(who, _of_each(delta)[0], fdr_target)
        near = {"k_nn": k_nn or self.summary_stats[f"n_{SCVIVA_REGISTRY_KEYS.NICHE_INDEXES_KEY}"], "radius": radius}
        groups, rates = self._niche_groups(cells, who, near), _of_each(fdr_target)
        tables = _compared_niches(compared, groups, _of_each(delta), rates)
        gpc, probability = own_genes(tables, rates, n_restarts_optimizer_gpc, seed)
        results = niche_results(gpc, [table.assign(**{PROBABILITY: probability}) for table in tables], groups)
        if path_to_save is not None:
            results.plot(path_to_save=path_to_save, show_plot=False)
        return results

    def _niche_groups(
        self, cells: Asked, who: dict[str, Any], near: dict[str, Any]
    ) -> dict[str, tuple[str, np.ndarray]]:
        """Name and row numbers of both groups and of their neighbours."""
        adata = cells.adata
        assert adata is not None
        manager = self.get_anndata_manager(adata, required=True)
        found = comparisons(adata.obs, **who)
        if len(found) > 1:
            raise ArgumentError(
                f"niche_mode compares one group at a time, and group1 names {len(found)}: name one, or pass "
                "niche_mode=False."
            )
        (pair,) = found
        key = manager.data_registry[SCVIVA_REGISTRY_KEYS.CELL_COORDINATES_KEY]["attr_key"]
        xy_nd = coordinates_of(adata, key, "cell_coordinates_key")
        type_n = np.asarray(manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).reshape(-1)
        sections = np.asarray(manager.get_from_registry(SCVIVA_REGISTRY_KEYS.SAMPLE_KEY)).reshape(-1)

        def around(rows: np.ndarray) -> np.ndarray:
            return surrounding_cells(rows, type_n, xy_nd, pd.Series(sections, name="sample"), adata.obs_names, **near)

        name1, name2 = pair.group1 or "group1", pair.group2 or "group2"
        groups = {
            "g1": (name1, pair.cells1),
            "g2": (name2, pair.cells2),
            "n1": (f"{name1}_neighbors", around(pair.cells1)),
        }
        has_second = who["group2"] is not None or who["idx2"] is not None
        return groups | ({"n2": (f"{name2}_neighbors", around(pair.cells2))} if has_second else {})


def _of_each(given: float | Sequence[float]) -> list[Any]:
    """One value for each of the four comparisons; the last value given is repeated."""
    several = list(given) if isinstance(given, Sequence) else [given]
    return several + several[-1:] * (4 - len(several))


def _compared_niches(
    compared: Callable[[dict[str, Any], float, Any], pd.DataFrame],
    groups: Mapping[str, tuple[str, np.ndarray]],
    deltas: Sequence[float],
    rates: Sequence[float],
) -> list[pd.DataFrame]:
    """Tables of group 1 with group 2, of it with n1, of n1 with group 2, and, where it is there, of n1 with n2."""
    pairs = [("g1", "g2"), ("g1", "n1"), ("n1", "g2")] + ([("n1", "n2")] if "n2" in groups else [])
    tables = []
    for (one, other), delta, rate in zip(pairs, deltas, rates, strict=False):
        (name1, rows1), (name2, rows2) = groups[one], groups[other]
        table = compared({"idx1": rows1, "idx2": rows2}, delta, rate)
        tables.append(table.assign(comparison=f"{name1} vs {name2}", group1=name1, group2=name2))
    return tables
