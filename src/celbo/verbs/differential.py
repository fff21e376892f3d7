"""DifferentialMixin: the verb that compares groups of cells; part of :class:`~celbo.model.base.RNASeqMixin`."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from anndata import AnnData

from ..core import checked_methods
from .base import Model
from .cells import Weights, asked, weighting_of
from .outputs import corrected_batches, differential, output_of

__all__ = ["DifferentialMixin"]


@checked_methods
class DifferentialMixin(Model):
    """Differential expression."""

    def differential_expression(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: Literal["vanilla", "change"] = "vanilla",
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
        importance_weighting_kwargs: dict[str, Any] | None = None,
        *,
        subset_idx: Sequence[int] | Sequence[bool] | str | None = None,
        output: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression between groups of cells.

        Parameters
        ----------
        adata, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`. Nothing is written to the data.
        groupby, group1, group2, idx1, idx2, subset_idx
            The groups to compare, see :func:`~celbo.posterior.comparisons`.
        mode
            ``"vanilla"``: is a gene more expressed in one group; ``"change"``: by more than ``delta`` (log2 fold).
            Every gene differs a little, so prefer ``"change"``.
        delta
            None: estimated from the data (needs scikit-learn).
        all_stats
            Add statistics of the counts themselves; minified data without counts have none.
        batch_correction
            Decode both groups as the same batches, so that batches do not count as differences.
        batchid1, batchid2
            With ``batch_correction``: the batches that each group is decoded as; None: all.
        fdr_target
            Expected false discovery rate of the column ``is_de_fdr_{fdr_target}``; several: a column for each.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.
        weights, importance_weighting_kwargs
            See ``get_normalized_expression``.
        filter_outlier_cells
            Leave out outliers in the latent space (needs scikit-learn).
        output
            Name of what is compared; None: the first thing that the model explains.
        **kwargs
            Further fields of :class:`~celbo.posterior.Hypothesis` and
            :class:`~celbo.posterior.differential_table.Sampling`: ``n_samples_overall``, ``use_permutation``,
            ``m_permutation``, ``pseudocounts``, ``test_mode``, ``change_fn``, ``m1_domain_fn``, ``cred_interval_lvls``,
            ``threshold_counts``.

        Returns
        -------
        A row for each gene and comparison, see :func:`~celbo.posterior.differential_expression`.

        Examples
        --------
        >>> found = model.differential_expression(groupby="labels", group1="label_0", mode="change")
        >>> len(found)
        100
        >>> up = found[(found["proba_de"] > 0.9) & (found["lfc_mean"] > 0)]
        """
        corrected = corrected_batches(self, batchid1, batchid2)
        options = {
            "mode": mode,
            "delta": delta,
            "weighting": weighting_of(weights, importance_weighting_kwargs or {}),
            "filter_outlier_cells": filter_outlier_cells,
        }
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        return differential(
            self,
            asked(self, adata, None, batch_size),
            [output_of(self, output)],
            who | {"subset_idx": subset_idx},
            corrected if batch_correction else (None, None),
            options | kwargs,
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
        )
