r"""The profile of the ambient RNA: as given, from droplets without a cell, or from the cells themselves.

A droplet counts as empty if its counts are likely under the profile,
:math:`\log \mathrm{Multinomial}(x_d;\, a) \ge G \log p`; the profile is then that of the empty ones, and so on.

Dims: d droplets, n cells, g genes. Counts stay as they are stored: nothing here makes a sparse table dense, and of one
on disk the droplets that are used come into memory.
Reference: Sheng et al., bioRxiv 2022 (scAR).
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.special import gammaln
from torch import Tensor

from ...core import unknown_name
from ...data import align_genes
from ...data.library import total_counts
from ...posterior import group_means

__all__ = [
    "FEWEST_DROPLETS",
    "FewDropletsError",
    "ambient_profile_of",
    "batches_of",
    "empty_droplet_profile",
]

logger = logging.getLogger("celbo")

FEWEST_DROPLETS = 50
_ROUNDING = 1e-3
_SMALLEST = np.finfo(np.float32).eps


class FewDropletsError(ValueError):
    """Too few droplets hold no cell; ``n_droplets`` says how many, ``least`` the counts that they must have."""

    def __init__(self, n_droplets: int, least: int) -> None:
        self.n_droplets, self.least = n_droplets, least
        super().__init__(
            f"raw_adata has {n_droplets} droplets without a cell and with at least min_raw_counts={least} counts, and "
            f"{FEWEST_DROPLETS} are needed: give all droplets, unfiltered, or lower prob."
        )

    def __reduce__(self) -> "tuple[type[FewDropletsError], tuple[int, int]]":
        return type(self), (self.n_droplets, self.least)


def ambient_profile_of(
    adata: AnnData, genes: np.ndarray, counts: object, given: object, batches: Sequence[str] = ()
) -> Tensor:
    """Ambient profile from what the user gave.

    Parameters
    ----------
    adata
        The cells; asked for ``varm`` where ``given`` is a key.
    genes
        Names of the model's genes, ``(g,)``.
    counts
        ``(n, g)`` counts on any storage, for the profile of all cells.
    given
        Key of ``adata.varm``; a DataFrame, by the names of its rows; an array or tensor of g numbers; None: the
        profile of all cells, with a warning. A DataFrame of several columns has a profile for each batch.
    batches
        Names of the model's batches.

    Returns
    -------
    ``(1, g)`` float32, shares that sum to 1 (counts are divided by their sum); ``(b, g)`` where each batch has its own.

    Raises
    ------
    KeyError
        No such key in ``adata.varm``.
    ValueError
        Another number of genes, other genes, negative or missing numbers, or none above 0; batches without a profile.
    """
    if given is None:
        logger.warning(
            "ambient_profile is not given: the mean profile of the cells stands for it, which takes what all cells "
            "express for ambient. Better: SCAR.get_ambient_profile(adata, raw_adata) with the unfiltered droplets."
        )
        given = group_means(counts, [np.arange(adata.n_obs)]).mean[0]
    elif isinstance(given, str):
        if given not in adata.varm:
            raise KeyError(unknown_name("ambient_profile, key of adata.varm", given, adata.varm.keys()))
        given = adata.varm[given]
    if several := _of_batches(given, batches):
        return torch.cat([ambient_profile_of(adata, genes, counts, one) for one in several])
    if isinstance(given, pd.DataFrame | pd.Series):
        given = _by_name(given, genes)
    values_g = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=np.float64).reshape(-1)
    return torch.as_tensor(_shares(values_g, len(genes)), dtype=torch.float32).reshape(1, -1)


def _of_batches(given: object, batches: Sequence[str]) -> list[object]:
    """A profile for each batch, by the names of columns or as rows of an archive's table; empty: one for all."""
    if isinstance(given, Tensor):
        return list(given) if given.dim() == 2 and len(given) == len(batches) > 1 else []
    if not isinstance(given, pd.DataFrame) or given.shape[1] == 1:
        return []
    columns = {str(name): given[name] for name in given}
    if missing := [batch for batch in batches if batch not in columns]:
        raise ValueError(
            f"ambient_profile has the columns {', '.join(columns)}, and none for batch {missing[0]!r}: give a column "
            "for each batch of batch_key, by its name, or a single column for all of them."
        )
    return [columns[batch] for batch in batches]


def batches_of(obs: pd.DataFrame, key: str, whose: str) -> np.ndarray:
    """Names of the batches in a column of ``obs``.

    Raises
    ------
    KeyError
        No such column.
    """
    if key not in obs:
        raise KeyError(unknown_name(f"column of {whose}.obs (batch_key)", key, map(str, obs)))
    return obs[key].astype(str).to_numpy()


def _by_name(table: pd.DataFrame | pd.Series, genes: np.ndarray) -> np.ndarray:
    """Values in the order of the genes; in that of the rows where they have numbers instead of names."""
    if isinstance(table.index, pd.RangeIndex):
        return table.to_numpy()
    match = align_genes(table.index, genes, where="ambient_profile")
    match.raise_if_missing()
    return table.to_numpy()[match.indexer]


def _shares(values_g: np.ndarray, n_genes: int) -> np.ndarray:
    if len(values_g) != n_genes:
        raise ValueError(
            f"ambient_profile has {len(values_g)} numbers, and adata {n_genes} genes: give one for each gene of adata, "
            "in its order, or a DataFrame with the names of the genes as its index."
        )
    total = values_g.sum()
    if not np.isfinite(total) or (values_g < 0).any() or total <= 0:
        raise ValueError(
            "ambient_profile must be shares of genes, or counts: finite, not negative, not all 0. "
            "SCAR.get_ambient_profile(adata, raw_adata) estimates it from unfiltered droplets."
        )
    return values_g if abs(total - 1) < _ROUNDING else values_g / total


def empty_droplet_profile(
    x: Any,
    prob: float,
    min_raw_counts: int,
    iterations: int,
    sample: int,
    rng: np.random.Generator,
    among_d: np.ndarray | None = None,
) -> np.ndarray:
    """Profile of the droplets that hold no cell.

    Parameters
    ----------
    x
        Counts of all droplets, ``(d, g)``, sparse or dense, in memory or on disk.
    prob
        Probability p per gene: the closer to 1, the fewer droplets count as empty.
    min_raw_counts
        Droplets with fewer counts are left out.
    iterations
        Rounds of choosing droplets and of taking their profile.
    sample
        Most droplets to use; more are sampled at random.
    rng
        Of that draw.
    among_d
        Which droplets may be used, ``(d,)`` booleans; None: all.

    Returns
    -------
    ``(g,)`` shares, float64.

    Raises
    ------
    FewDropletsError
        Fewer than 50 droplets are left.
    """
    rows_s = np.flatnonzero((total_counts(x) >= min_raw_counts) & (True if among_d is None else among_d))
    if len(rows_s) > sample:
        rows_s = np.sort(rng.choice(rows_s, sample, replace=False))
    seen_dg = sp.csr_array(x[rows_s])
    ways_d = _log_ways(seen_dg)
    empty_dg = seen_dg
    profile_g = _profile(seen_dg, min_raw_counts)
    for _ in range(iterations):
        log_prob_d = ways_d + seen_dg @ np.log(np.clip(profile_g, _SMALLEST, 1 - _SMALLEST))
        least = np.log(prob) * seen_dg.shape[1] if prob else -np.inf
        empty_dg = seen_dg[log_prob_d >= least]
        profile_g = _profile(empty_dg, min_raw_counts)
    return profile_g


def _log_ways(x_dg: sp.csr_array) -> np.ndarray:
    """Log of the multinomial coefficient of each row; zeros add nothing."""
    each = sp.csr_array((gammaln(x_dg.data.astype(np.float64) + 1), x_dg.indices, x_dg.indptr), shape=x_dg.shape)
    return gammaln(x_dg.sum(1) + 1.0) - each.sum(1)


def _profile(x_dg: sp.csr_array, min_raw_counts: int) -> np.ndarray:
    if x_dg.shape[0] < FEWEST_DROPLETS:
        raise FewDropletsError(x_dg.shape[0], min_raw_counts)
    sum_g = np.asarray(x_dg.sum(0), dtype=np.float64)
    return sum_g / sum_g.sum()
