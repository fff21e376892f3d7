r"""Differential expression of a trained module: draw cells, decode them once, compare, put in a table.

Dims: n cells, g genes, r draws.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from ..core import UnknownArgumentError, checked, listed, optional
from ..module.base import BaseModuleClass
from ..store.progress import tracking
from .comparisons import Comparison
from .differential import Hypothesis, Pairs, differential_effects, expected_fdr
from .embedding import latent_representation
from .normalized import Weighting, sampled_rows
from .output import EXPRESSION, Output
from .passes import LoaderOf, evaluating
from .raw_counts import GroupMeans, beside, group_means

__all__ = [
    "Counts",
    "Sampling",
    "batch_of_row",
    "check_batches",
    "differential_expression",
    "permuted_rows",
    "split_options",
    "without_outliers",
]


@checked
@dataclass(frozen=True)
class Sampling:
    """How both groups are drawn and paired.

    Attributes
    ----------
    n_samples_overall
        Draws of each group, with replacement.
    batches1, batches2
        Codes of the batches that the draws of each group are decoded as, in equal shares; None: each cell's own batch.
        Where both are the same, pairs stay within a batch; otherwise they must have none in common.
    use_permutation, m_permutation
        Compare ``m_permutation`` random pairs of draws, instead of the first with the first and so on.
    weighting
        Draw in proportion to importance weights; None: uniformly.
    filter_outlier_cells
        Leave out cells that lie apart in the latent space, see :func:`without_outliers`.
    """

    n_samples_overall: int = 5000
    batches1: Sequence[int] | None = None
    batches2: Sequence[int] | None = None
    use_permutation: bool = False
    m_permutation: int = 10_000
    weighting: Weighting | None = None
    filter_outlier_cells: bool = False

    def __post_init__(self) -> None:
        if self.n_samples_overall < 1 or self.m_permutation < 1:
            raise ValueError(f"At least one draw is needed, got {self.n_samples_overall=}, {self.m_permutation=}.")
        check_batches(self.batches1, self.batches2)


@dataclass(frozen=True)
class Counts:
    """The data as they lie.

    Attributes
    ----------
    x
        ``(n, .)`` counts of any storage.
    columns
        Column of each gene, see :func:`~celbo.posterior.group_means`.
    rows
        Row of each cell, ``(n,)``, -1 for one that has none and is left out; None: cells are rows.
    """

    x: Any = field(repr=False)
    columns: np.ndarray | None = None
    rows: np.ndarray | None = field(default=None, repr=False)

    def means(self, groups: Sequence[np.ndarray]) -> GroupMeans:
        """What they say of groups of cells, see :func:`~celbo.posterior.group_means`."""
        if self.rows is not None:
            rows = [self.rows[cells] for cells in groups]
            groups = [of_group[of_group >= 0] for of_group in rows]
        return group_means(self.x, groups, self.columns)


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of :class:`~celbo.posterior.Hypothesis` and of :class:`Sampling` apart.

    Raises an ``UnknownArgumentError`` for any other; the nearest is named.
    """
    names = [[spec.name for spec in fields(kind)] for kind in (Hypothesis, Sampling)]
    for name in options:
        if name not in names[0] + names[1]:
            raise UnknownArgumentError.among(name, "differential_expression", names[0] + names[1])
    first, second = ({name: options[name] for name in known if name in options} for known in names)
    return first, second


def check_batches(batches1: Sequence[int] | None, batches2: Sequence[int] | None) -> None:
    """Raise a ``ValueError`` unless both are the same batches, or have none in common."""
    first, second = set(batches1 or ()), set(batches2 or ())
    if (batches1 is None) != (batches2 is None) or (first != second and first & second):
        raise ValueError(
            "batchid1 and batchid2 must be the same batches (pairs are compared within a batch) or have none in "
            f"common; got codes {sorted(first)} and {sorted(second)}."
        )


def batch_of_row(batches: Sequence[int] | None, n_rows: int) -> np.ndarray | None:
    """``(n_rows,)`` codes, each batch in one run, runs as equal as can be; None for None."""
    return None if batches is None else np.asarray(sorted(batches))[np.arange(n_rows) * len(batches) // n_rows]


def permuted_rows(
    codes1_r: np.ndarray | None, codes2_r: np.ndarray | None, n_rows: int, m: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``m`` random pairs of rows; within a batch where both groups are decoded as the same batches."""
    rows1 = rng.integers(n_rows, size=m)
    if codes1_r is None or codes2_r is None or not np.array_equal(codes1_r, codes2_r):
        return rows1, rng.integers(n_rows, size=m)
    first, last = (np.searchsorted(codes2_r, codes1_r[rows1], side) for side in ("left", "right"))
    return rows1, rng.integers(first, last)


def differential_expression(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    comparisons: Sequence[Comparison],
    gene_names: Sequence[str] | np.ndarray,
    *,
    hypothesis: Hypothesis,
    sampling: Sampling,
    outputs: Sequence[Output] = (EXPRESSION,),
    counts: Sequence[Counts] | None = None,
    all_stats: bool = True,
    fdr_target: float | Sequence[float] = 0.05,
    seed: int | None = None,
) -> pd.DataFrame:
    """Differential expression of each comparison, genes in order of their evidence.

    Parameters
    ----------
    module
        The trained module.
    loader_of
        Gives the minibatches of cells by row number.
    comparisons
        Groups of cells.
    gene_names
        ``(g,)``.
    hypothesis, sampling
        What is asked, and of which draws.
    outputs
        What is compared; the features of several stand beside each other, as ``gene_names`` has them.
    counts
        The data of each output, for the pseudocount and for ``all_stats``; None: neither.
    all_stats
        Add ``raw_mean``, ``non_zeros_proportion`` and ``raw_normalized_mean`` (of 10,000 counts a cell) of both groups.
    fdr_target
        Expected false discovery rate of ``is_de_fdr_{fdr_target}``; several: a column for each. With ``"vanilla"``,
        whose hypotheses are the two signs, a false discovery is a wrong sign.
    seed
        See :func:`~celbo.posterior.passes.evaluating`.

    Returns
    -------
    One row for each gene and comparison; columns as :func:`~celbo.posterior.differential_effects` gives them, the
    counts' figures, ``is_de_fdr_``, and ``comparison``, ``group1``, ``group2`` for named groups.

    Notes
    -----
    Cells are drawn first and decoded once. Memory: two arrays ``(r, g)`` of float32 for the draws, r =
    ``n_samples_overall``, and blocks of 64 MiB while comparing.
    """
    groups = [cells for comparison in comparisons for cells in (comparison.cells1, comparison.cells2)]
    means = None if counts is None else beside([one.means(groups) for one in counts])
    tables = []
    several = tracking("Comparing", "comparisons") if len(comparisons) > 1 else nullcontext()
    with evaluating(module, seed) as rng, several as tell:
        for i, comparison in enumerate(comparisons):
            if tell is not None:
                tell(i, len(comparisons))
            low = [None if means is None else means.mean[j] < hypothesis.threshold_counts for j in (2 * i, 2 * i + 1)]
            pairs = _draw(module, loader_of, comparison, sampling, outputs, rng)
            columns = differential_effects(
                pairs, hypothesis, low1_g=low[0], low2_g=low[1], seed=int(rng.integers(2**31))
            )
            if means is not None and all_stats:
                columns |= _count_columns(means, 2 * i)
            proba_g = _proba(columns)
            columns |= {f"is_de_fdr_{target}": expected_fdr(proba_g, target) for target in listed(fdr_target)}
            tables.append(_table(columns, comparison, gene_names, hypothesis))
    return pd.concat(tables)


def _draw(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    comparison: Comparison,
    sampling: Sampling,
    outputs: Sequence[Output],
    rng: np.random.Generator,
) -> Pairs:
    n_rows = sampling.n_samples_overall
    codes1_r, codes2_r = batch_of_row(sampling.batches1, n_rows), batch_of_row(sampling.batches2, n_rows)
    scales = []
    for cells, codes_r in ((comparison.cells1, codes1_r), (comparison.cells2, codes2_r)):
        if sampling.filter_outlier_cells:
            cells = without_outliers(module, loader_of, cells, seed=int(rng.integers(2**31)))
        drawn = sampled_rows(module, loader_of, cells, n_rows, rng, [codes_r], outputs, weighting=sampling.weighting)
        scales.append(drawn)
    if not sampling.use_permutation:
        return Pairs(scales[0], scales[1])
    rows1, rows2 = permuted_rows(codes1_r, codes2_r, n_rows, sampling.m_permutation, rng)
    return Pairs(scales[0], scales[1], rows1, rows2)


def _proba(columns: dict[str, np.ndarray]) -> np.ndarray:
    if "proba_de" in columns:
        return columns["proba_de"]
    return np.maximum(columns["proba_m1"], columns["proba_m2"])


def _count_columns(means: GroupMeans, first: int) -> dict[str, np.ndarray]:
    figures = {"raw_mean": means.mean, "non_zeros_proportion": means.nonzero, "raw_normalized_mean": means.normalized}
    return {f"{name}{k + 1}": figure[first + k] for name, figure in figures.items() for k in (0, 1)}


def _table(
    columns: dict[str, np.ndarray],
    comparison: Comparison,
    gene_names: Sequence[str] | np.ndarray,
    hypothesis: Hypothesis,
) -> pd.DataFrame:
    table = pd.DataFrame(columns, index=pd.Index(np.asarray(gene_names, dtype=object)))
    by = "bayes_factor" if hypothesis.mode == "vanilla" else "proba_de"
    table = table.sort_values(by, ascending=False, kind="stable")
    if comparison.group1 is None:
        return table
    named = {"group1": comparison.group1, "group2": comparison.group2}
    return table.assign(comparison=f"{comparison.group1} vs {comparison.group2}", **named)


def without_outliers(module: BaseModuleClass, loader_of: LoaderOf, cells_n: np.ndarray, seed: int) -> np.ndarray:
    """Cells of a group without the tenth that lies farthest out in the latent space (robust covariance ellipse).

    A group of fewer cells than twice the latent dimensions is left as it is: it has no ellipse.

    Raises
    ------
    ModuleNotFoundError
        When scikit-learn is not installed.
    """
    covariance = optional("sklearn.covariance", extra="sklearn", purpose="filter_outlier_cells=True")
    mean_nk = latent_representation(module, loader_of(cells_n), n_cells=len(cells_n), seed=seed)
    assert isinstance(mean_nk, np.ndarray)
    if len(cells_n) < 2 * mean_nk.shape[1]:
        return cells_n
    envelope = covariance.EllipticEnvelope(contamination=0.1, random_state=seed)
    return cells_n[envelope.fit_predict(mean_nk.astype(np.float64)) == 1]
