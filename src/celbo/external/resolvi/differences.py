"""DifferencesMixin: which genes and which labels around them set groups of cells apart."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pandas as pd
from anndata import AnnData

from ...core import checked_methods
from ...core.kinds import Number
from ...verbs.base import answering_with
from ...verbs.cells import Weights, asked
from ...verbs.outputs import corrected_batches, differential, output_of
from .niches import abundance_table
from .verbs import ResolvedMixin
from .weighed import BestOf

__all__ = ["DifferencesMixin"]

Cells = Sequence[int] | Sequence[bool] | str


@checked_methods
class DifferencesMixin(ResolvedMixin):
    """Differential expression and differential abundance of labels in niches."""

    def differential_niche_abundance(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        neighbor_key: str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        subset_idx: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float = 0.25,
        batch_size: int | None = None,
        fdr_target: Annotated[float, Number(0, 1)] = 0.05,
        silent: bool = False,
        filter_outlier_cells: bool = False,
        pseudocounts: float = 1e-3,
        *,
        n_samples: int = 5,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Which labels are more frequent around one group of cells than around another.

        Parameters
        ----------
        adata, batch_size, seed
            See the class.
        groupby, group1, group2, idx1, idx2, subset_idx
            The groups to compare, see :func:`~celbo.posterior.comparisons`.
        neighbor_key
            Entry of ``obsm`` with the row numbers of the neighbours; None: those of setup.
        mode
            ``"vanilla"``: is a label more frequent around one group; ``"change"``: by more than ``delta``.
        delta
            Least log2 fold change of abundance that counts.
        fdr_target
            Expected false discovery rate of the column ``is_de_fdr_{fdr_target}``.
        pseudocounts
            Added to abundances.
        n_samples
            Draws of the latents.
        silent, filter_outlier_cells, **kwargs
            Accepted for compatibility with scvi-tools.

        Returns
        -------
        A row for each label and comparison: ``proba_de``, ``bayes_factor``, ``lfc_mean``, ``lfc_median``, ``lfc_std``,
        ``abundance1``, ``abundance2``, ``is_de_fdr_...``.

        Examples
        --------
        >>> found = model.differential_niche_abundance(groupby="labels", group1="label_0")
        >>> len(found)  # a row for each label of a neighbour
        3
        """
        data = self._validate_anndata(adata)
        abundance = self.get_neighbor_abundance(data, None, neighbor_key, n_samples, None, batch_size, seed=seed)
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        options: dict[str, Any] = {"mode": mode, "delta": delta, "pseudocounts": pseudocounts, "fdr": fdr_target}
        assert isinstance(abundance, pd.DataFrame)
        return abundance_table(data.obs, abundance, who | {"subset_idx": subset_idx}, seed=seed, **options)

    def differential_expression(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        subset_idx: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float | None = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        n_samples: int = 5,
        size_scaling: bool = False,
        library_scaling: bool = False,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression of the cells' own counts.

        Parameters
        ----------
        adata, groupby, group1, group2, idx1, idx2, subset_idx, mode, delta, batch_size, all_stats, batch_correction
            See :meth:`celbo.model.base.RNASeqMixin.differential_expression`.
        batchid1, batchid2, fdr_target, silent, filter_outlier_cells, seed, **kwargs
            See there.
        weights
            ``"importance"``: of ``n_samples`` draws of a cell's latents one is taken, in proportion to how well they
            explain its counts. ``"uniform"``: one is drawn.
        n_samples
            Those draws.
        size_scaling, library_scaling
            Accepted for compatibility with scvi-tools.

        Examples
        --------
        >>> found = model.differential_expression(groupby="labels", group1="label_0")
        >>> len(found)
        100
        """
        weighed = weights == "importance"
        answering = answering_with(self, BestOf(self.module, n_samples)) if weighed else self
        corrected = corrected_batches(self, batchid1, batchid2) if batch_correction else (None, None)
        options = {"mode": mode, "delta": delta}
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        return differential(
            answering,
            asked(self, adata, None, batch_size, None, {} if weighed else self._alone(adata)),
            [output_of(self, None)],
            who | {"subset_idx": subset_idx},
            corrected,
            options | {"filter_outlier_cells": filter_outlier_cells} | kwargs,
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
        )
