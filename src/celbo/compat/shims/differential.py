"""``scvi.model.base._de_core`` and ``_differential``: pieces of differential expression."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...core import settings
from ...data import AnnDataManager
from ...model.base import DifferentialComputation
from ...posterior import comparisons
from ...posterior.comparisons import Comparison, cells_of
from ...posterior.differential import describe_draws, estimate_pseudocount, expected_fdr, highest_density_interval
from ...posterior.differential import estimate_delta as posterior_delta

__all__ = [
    "_de_core",
    "_fdr_de_prediction",
    "_prepare_obs",
    "credible_intervals",
    "describe_continuous_distrib",
    "estimate_delta",
    "estimate_pseudocounts_offset",
    "pairs_sampler",
]


def _de_core(
    adata_manager: AnnDataManager,
    model_fn: Callable[..., Any],
    representation_fn: Callable[..., np.ndarray] | None,
    groupby: str | None,
    group1: Any,
    group2: str | None,
    idx1: Any,
    idx2: Any,
    all_stats: bool,
    all_stats_fn: Callable[..., dict[str, np.ndarray]],
    col_names: Sequence[str],
    mode: str,
    batchid1: Any,
    batchid2: Any,
    delta: float | None,
    batch_correction: bool,
    fdr: float | Sequence[float],
    silent: bool,
    subset_idx: Any = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Differential expression of every comparison, for models that draw expression by a function of their own."""
    adata = adata_manager.adata
    assert adata is not None
    wanted = comparisons(
        adata.obs, groupby=groupby, group1=group1, group2=group2, idx1=idx1, idx2=idx2, subset_idx=subset_idx
    )
    computation = DifferentialComputation(model_fn, representation_fn, adata_manager)
    tables = []
    for one in wanted:
        columns = computation.get_bayes_factors(
            one.cells1,
            one.cells2,
            mode=mode,  # type: ignore[arg-type]
            batchid1=batchid1,
            batchid2=batchid2,
            use_observed_batches=not batch_correction,
            delta=delta,
            **kwargs,
        )
        if all_stats:
            columns |= all_stats_fn(adata_manager, one.cells1, one.cells2)
        tables.append(_table(columns, one, col_names, fdr))
    return pd.concat(tables)


def _table(
    columns: dict[str, Any], one: Comparison, names: Sequence[str], fdr: float | Sequence[float]
) -> pd.DataFrame:
    by = "proba_de" if "proba_de" in columns else "bayes_factor"
    table = pd.DataFrame(columns, index=pd.Index(np.asarray(names, dtype=object)))
    table = table.sort_values(by, ascending=False, kind="stable")
    if by == "proba_de":
        for target in fdr if isinstance(fdr, Sequence) else [fdr]:
            table[f"is_de_fdr_{target}"] = expected_fdr(table["proba_de"].to_numpy(), target)
    if one.group1 is None:
        return table
    return table.assign(comparison=f"{one.group1} vs {one.group2}", group1=one.group1, group2=one.group2)


def _prepare_obs(idx1: Any, idx2: Any, adata: Any) -> tuple[np.ndarray, list[str], str | None]:
    """A column that says ``"one"`` and ``"two"`` of the cells of each group, and the groups' names."""
    named = np.full(adata.n_obs, "None")
    if idx2 is not None:
        named[cells_of(adata.obs, idx2)] = "two"
    named[cells_of(adata.obs, idx1)] = "one"
    return named, ["one"], None if idx2 is None else "two"


def estimate_delta(lfc_means: np.ndarray, coef: float = 0.6, min_thres: float = 0.1) -> float:
    """Threshold of effects from their spread over genes, see :func:`celbo.posterior.estimate_delta`."""
    return posterior_delta(np.asarray(lfc_means), share=coef, floor=min_thres)


def estimate_pseudocounts_offset(
    scales_a: np.ndarray,
    scales_b: np.ndarray,
    where_zero_a: np.ndarray,
    where_zero_b: np.ndarray,
    quantile: float | None = 0.9,
) -> float:
    """Pseudocount from what the model gives genes that are not expressed in a group, the larger of both groups'."""
    pairs = ((scales_a, where_zero_a), (scales_b, where_zero_b))
    return max(estimate_pseudocount(np.asarray(scales), np.asarray(low), quantile or 0.9) for scales, low in pairs)


def pairs_sampler(
    arr1: object,
    arr2: object,
    use_permutation: bool = True,
    m_permutation: int | None = None,
    sanity_check_perm: bool = False,
    weights1: object = None,
    weights2: object = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of rows of two tables, or the tables as they are."""
    tables = [np.asarray(table) for table in (arr1, arr2)]
    if not use_permutation:
        return tables[0], tables[1]
    m = 10_000 if m_permutation is None else m_permutation
    rng = np.random.default_rng(settings.seed)
    weights = [None if given is None else np.asarray(given, dtype=np.float64) for given in (weights1, weights2)]
    if sanity_check_perm:  # both sides from the first table: nothing may come out as different
        tables, weights = [tables[0], tables[0]], [weights[0], weights[0]]
    drawn = [
        table[rng.choice(len(table), m, p=None if weight is None else weight / weight.sum())]
        for table, weight in zip(tables, weights)
    ]
    return drawn[0], drawn[1]


def credible_intervals(ary: np.ndarray, confidence_level: float = 0.94) -> np.ndarray:
    """Shortest interval that holds a share of the draws of each column, ``(g, 2)``, or ``(2,)`` for one column."""
    table = np.asarray(ary)
    limits = highest_density_interval(table.reshape(len(table), -1), confidence_level)
    return np.stack(limits, -1).reshape(*table.shape[1:], 2)


def _fdr_de_prediction(posterior_probas: pd.Series, fdr: float = 0.05) -> pd.Series:
    """Which features to call so that the expected share of false discoveries is at most ``fdr``."""
    called_g = expected_fdr(np.asarray(posterior_probas, dtype=np.float64), fdr)
    return pd.Series(called_g, index=posterior_probas.index)


def describe_continuous_distrib(
    samples: np.ndarray, credible_intervals_levels: list[float] | None = None
) -> dict[str, np.ndarray]:
    """Mean, median, spread and range of draws ``(r, g)``, each ``(g,)``."""
    return describe_draws(np.asarray(samples), credible_intervals_levels)
