"""CytometryMixin: markers, and what differs between groups of cells. No logic here: functions answer.

Dims: n cells, g markers, k latents, s samples.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ... import posterior
from ...core import REGISTRY_KEYS, checked_methods
from ...model.base import RNASeqMixin
from ...posterior.differential import log2_fold_change
from ...posterior.output import EXPRESSION
from ...verbs.cells import Weights, asked, weighting_of
from ...verbs.keys import offers_key
from ...verbs.outputs import corrected_batches, differential, names_of, normalized
from .abundance import AbundanceMixin
from .imputing import ImputingMixin
from .panel import BACKBONE, PANEL_KEY

__all__ = ["CytometryMixin"]

_ALL = "all"
_INSIDE = 1e-6


def _fold_change(low: float, high: float) -> Callable[[np.ndarray, np.ndarray, float], np.ndarray]:
    """Log2 fold change of markers, clipped into a range first because there are no logarithms below 0."""
    low, high = low + _INSIDE, high - _INSIDE

    def fold_change(scale1_rg: np.ndarray, scale2_rg: np.ndarray, pseudocount: float) -> np.ndarray:
        return log2_fold_change(scale1_rg.clip(low, high), scale2_rg.clip(low, high), pseudocount)

    return fold_change


@checked_methods
class CytometryMixin(AbundanceMixin, ImputingMixin, RNASeqMixin):
    """Markers, differences between groups of cells, and abundance in samples.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`.
    ``protein_list`` names markers, or is a mask of them; None: all, those that a cell's panel lacks included.
    """

    @offers_key("features")
    def get_normalized_expression(  # type: ignore[override]  # arguments as in scvi-tools, here and below
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = _ALL,
        protein_list: Sequence[str] | None = None,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        weights: Weights | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        nan_warning: bool | None = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **importance_weighting_kwargs: Any,
    ) -> np.ndarray | pd.DataFrame:
        """Markers as the decoder expects them at drawn latents: denoised, and imputed where a panel lacks them.

        Parameters
        ----------
        adata, indices, batch_size, seed, protein_list, key_added
            See the class.
        transform_batch
            Batches to decode as, of which the mean is given: ``"all"``, names of some, or None for each cell's own. A
            batch whose panel lacks a marker predicts it poorly: name batches that measured it.
        n_samples
            Draws of the latents for each cell.
        n_samples_overall
            Give this many draws from all cells together instead.
        weights
            Draw them uniformly (the default) or in proportion to importance weights.
        return_mean
            Average over the draws.
        return_numpy
            An array instead of a DataFrame.
        nan_warning
            Accepted for compatibility with scvi-tools, which says each time that missing markers are imputed.
        **importance_weighting_kwargs
            Fields of :class:`~celbo.posterior.Weighting`.

        Returns
        -------
        Cells by markers; draws by markers with ``n_samples_overall``; ``(s, n, g)`` array for draws that are not
        averaged.

        Examples
        --------
        >>> model.get_normalized_expression(transform_batch="batch_0").shape
        (400, 12)
        """
        batches = self.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        as_all = isinstance(transform_batch, str) and transform_batch == _ALL and _ALL not in batches
        return normalized(
            self,
            asked(self, adata, indices, batch_size),
            [EXPRESSION],
            transform_batch=list(batches) if as_all else transform_batch,
            columns=posterior.gene_columns(protein_list, names_of(self, EXPRESSION), "protein_list"),
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            weighting=weighting_of(weights, importance_weighting_kwargs),
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    @offers_key("samples")
    def posterior_predictive_sample(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 1,
        protein_list: Sequence[str] | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Markers like those measured, drawn from the model.

        Parameters
        ----------
        adata, indices, batch_size, seed, protein_list, key_added
            See the class.
        n_samples
            Draws for each cell.

        Returns
        -------
        ``(n, g)``, or ``(n, g, s)`` for more than one draw.

        Examples
        --------
        >>> model.posterior_predictive_sample(n_samples=2, indices=range(50)).shape
        (50, 12, 2)
        """
        cells = asked(self, adata, indices, batch_size)
        drawn = posterior.joint_predictive_sample(
            self.module, cells.batches, [EXPRESSION], n_samples=n_samples, seed=seed
        )[0]
        columns = posterior.gene_columns(protein_list, names_of(self, EXPRESSION), "protein_list")
        return drawn if columns is None else drawn[:, columns]

    def differential_expression(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: Literal["vanilla", "change"] = "change",
        test_mode: Literal["two", "three"] = "two",
        delta: float | None = 0.25,
        batch_size: int | None = None,
        all_stats: bool = False,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        lfc_clipping: bool = True,
        clipping_range: tuple[float, float] = (0, 1),
        balance_samples: bool | None = None,
        importance_weighting_kwargs: dict[str, Any] | None = None,
        *,
        subset_idx: Sequence[int] | Sequence[bool] | str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Markers that differ between groups of cells.

        Parameters
        ----------
        adata, batch_size, seed
            See the class. Nothing is written to the data.
        groupby, group1, group2, idx1, idx2, subset_idx
            The groups to compare, see :func:`~celbo.posterior.comparisons`.
        mode, delta, weights, filter_outlier_cells, importance_weighting_kwargs, silent
            As in :meth:`~celbo.model.base.RNASeqMixin.differential_expression`.
        test_mode
            ``"two"``: any change of more than ``delta``; ``"three"``: the more probable of up and down.
        all_stats
            Add figures of the data themselves; markers that a panel lacks stand in them as the layer has them.
        batch_correction, batchid1, batchid2
            Decode both groups as the same batches (None: all), so that batches do not count as differences.
        fdr_target
            Expected false discovery rate of the column ``is_de_fdr_{fdr_target}``; several: a column for each.
        lfc_clipping, clipping_range
            Put markers into this range before the logarithm. Without, only numbers below 0 are set to (next to) 0.
        balance_samples
            Let each sample in a group count alike, however many cells it has; None: where ``sample_key`` named samples.
        **kwargs
            Further fields of :class:`~celbo.posterior.Hypothesis` and
            :class:`~celbo.posterior.differential_table.Sampling`. Fold changes next to 0 depend on ``pseudocounts``:
            0.05 or so leaves out what is within the noise of scaled markers.

        Returns
        -------
        A row for each marker and comparison, see :func:`~celbo.posterior.differential_expression`.

        Examples
        --------
        >>> found = model.differential_expression(groupby="labels", group1="label_0")
        >>> len(found)
        12
        """
        self._check_if_trained()
        cells = asked(self, adata, None, batch_size)
        options = {
            "mode": mode,
            "test_mode": test_mode,
            "delta": delta,
            "weighting": weighting_of(weights, importance_weighting_kwargs or {}),
            "filter_outlier_cells": filter_outlier_cells,
            "change_fn": _fold_change(*(clipping_range if lfc_clipping else (0, np.inf))),
        }
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        balances = self._names_samples() if balance_samples is None else balance_samples
        return differential(
            self,
            cells,
            [EXPRESSION],
            who | {"subset_idx": subset_idx},
            corrected_batches(self, batchid1, batchid2) if batch_correction else (None, None),
            options | kwargs,
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
            alike=self._samples_of(cells.adata)[0] if balances else None,
        )

    @property
    def measures_all(self) -> bool:
        """Whether every panel has every marker."""
        state = self.registry_["field_registries"].get(PANEL_KEY, {}).get("state_registry", {})
        return len(state.get(BACKBONE, ())) == self.summary_stats["n_vars"] if state else True
