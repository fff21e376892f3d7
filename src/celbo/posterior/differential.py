r"""Differential expression from posterior draws of two groups: hypotheses, effect sizes, false discovery rate.

``"vanilla"``: :math:`p(\rho_1 > \rho_2)`. ``"change"``: with :math:`r = \log_2(\rho_1 + c) - \log_2(\rho_2 + c)`, a
gene is differentially expressed if :math:`r \ge \delta` (up) or :math:`r < -\delta` (down); the three-way test takes
the more probable of the two, :math:`p = \max(p_{up}, p_{down})`, so that a posterior that is merely wide is no
discovery.

Nothing here knows of models: draws in, figures out.

Dims: g genes, r pairs of draws.
References: Lopez et al., Nature Methods 2018 (vanilla); Boyeau et al., bioRxiv 2019, doi:10.1101/794289 (change).
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core import checked, optional, unknown_name

__all__ = [
    "Hypothesis",
    "Pairs",
    "bayes_factor",
    "describe_draws",
    "differential_effects",
    "estimate_delta",
    "estimate_pseudocount",
    "expected_fdr",
    "highest_density_interval",
    "log2_fold_change",
]

ChangeFn = Callable[..., np.ndarray]

_ENTRIES = 2**23
"""Entries of a block of genes: 64 MiB of float64."""

_MOST_IN_A_BYTE = 255
"""Pairs compared at a time: so many can be counted in a byte for each gene, which is several times as fast."""

_FLOOR_PSEUDOCOUNT = 1e-10
_STATISTICS_PSEUDOCOUNT = 1e-3  # share of the pseudocount under which fold changes are described


@checked
@dataclass(frozen=True)
class Hypothesis:
    """What is asked about each gene.

    Attributes
    ----------
    mode
        ``"vanilla"`` or ``"change"``.
    delta
        Smallest effect that counts; None: estimated by :func:`estimate_delta`.
    pseudocounts
        Added to expression before the logarithm; None: estimated by :func:`estimate_pseudocount`.
    test_mode
        ``"three"``: up and down apart; ``"two"``: any change, :math:`p_{up} + p_{down}`.
    change_fn
        Effect size of draws ``(r, g)`` of both groups, and of the pseudocount if it takes three arguments; None or
        ``"log-fold"``: :func:`log2_fold_change`.
    m1_domain_fn
        Which effects ``(r, g)`` count, as booleans; takes the place of ``delta`` and ``test_mode``. Or two such arrays,
        up and down, of which ``test_mode`` makes one probability.
    cred_interval_lvls
        Levels of credible intervals to report.
    threshold_counts
        Genes whose mean count in a group is below are taken as not expressed there, for the pseudocount.
    """

    mode: Literal["vanilla", "change"] = "vanilla"
    delta: float | None = 0.25
    pseudocounts: float | None = None
    test_mode: Literal["two", "three"] = "three"
    change_fn: str | ChangeFn | None = None
    m1_domain_fn: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]] | None = None
    cred_interval_lvls: Sequence[float] | None = None
    threshold_counts: float = 0.01

    def __post_init__(self) -> None:
        for name, choices in {"mode": ("vanilla", "change"), "test_mode": ("two", "three")}.items():
            if getattr(self, name) not in choices:
                raise ValueError(unknown_name(name, getattr(self, name), choices))
        if not (self.change_fn in (None, "log-fold") or callable(self.change_fn)):
            raise ValueError(f"change_fn is a function of two arrays or 'log-fold', got {self.change_fn!r}.")
        if any(not 0 < level < 1 for level in self.cred_interval_lvls or ()):
            raise ValueError(f"cred_interval_lvls are probabilities between 0 and 1, got {self.cred_interval_lvls}.")


@dataclass(frozen=True)
class Pairs:
    """Draws of two groups, row by row to be compared.

    Attributes
    ----------
    scale1_rg, scale2_rg
        Expression draws, ``(r, g)``.
    rows1, rows2
        Which rows make the pairs; None: the first with the first, and so on.
    """

    scale1_rg: np.ndarray
    scale2_rg: np.ndarray
    rows1: np.ndarray | None = None
    rows2: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.scale1_rg) if self.rows1 is None else len(self.rows1)

    def blocks(
        self, of_each: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """For some genes at a time: their columns, and all draws of group 1 and of group 2, ``(r, .)`` float64.

        A function ``of_each`` is taken of the draws before they are paired: a draw is in several pairs.
        """
        n_genes = self.scale1_rg.shape[1]
        step = max(1, _ENTRIES // max(1, len(self)))
        for start in range(0, n_genes, step):
            genes = slice(start, min(start + step, n_genes))
            one, two = (scale_rg[:, genes].astype(np.float64) for scale_rg in (self.scale1_rg, self.scale2_rg))
            one, two = (one, two) if of_each is None else (of_each(one), of_each(two))
            yield genes, one if self.rows1 is None else one[self.rows1], two if self.rows2 is None else two[self.rows2]

    def share_above(self) -> np.ndarray:
        """Share of the pairs whose first draw is the larger one, ``(g,)`` float64."""
        above_g = np.zeros(self.scale1_rg.shape[1], dtype=np.int64)
        for start in range(0, len(self), _MOST_IN_A_BYTE):
            some = slice(start, start + _MOST_IN_A_BYTE)
            one = self.scale1_rg[some if self.rows1 is None else self.rows1[some]]
            two = self.scale2_rg[some if self.rows2 is None else self.rows2[some]]
            above_g += (one > two).view(np.uint8).sum(0, dtype=np.uint8)
        return above_g / len(self)


def differential_effects(
    pairs: Pairs,
    hypothesis: Hypothesis,
    *,
    low1_g: np.ndarray | None = None,
    low2_g: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Evidence and effect size for every gene.

    Parameters
    ----------
    pairs
        Draws of both groups.
    hypothesis
        What is asked.
    low1_g, low2_g
        Genes not expressed in each group, ``(g,)`` booleans, for the pseudocount; None: none.
    seed
        Of the mixture model that estimates ``delta``.

    Returns
    -------
    Columns ``(g,)`` by name. Both modes: ``bayes_factor`` (natural log of the odds), ``scale1``, ``scale2`` (mean
    expression). Vanilla: ``proba_m1``, ``proba_m2``. Change: ``proba_de``, ``proba_not_de``, ``pseudocounts``,
    ``delta``, ``lfc_mean``, ``lfc_median``, ``lfc_std``, ``lfc_min``, ``lfc_max`` and the limits of credible intervals.
    """
    scales = {"scale1": pairs.scale1_rg.mean(0, dtype=np.float32), "scale2": pairs.scale2_rg.mean(0, dtype=np.float32)}
    if hypothesis.mode == "vanilla":
        proba_m1 = pairs.share_above()
        return {"proba_m1": proba_m1, "proba_m2": 1 - proba_m1, "bayes_factor": bayes_factor(proba_m1), **scales}
    pseudocount = _pseudocount(pairs, hypothesis, low1_g, low2_g)
    delta = _delta(pairs, hypothesis, pseudocount, seed)
    proba_de = _filled(
        (genes, _proba_de(r, hypothesis, delta)) for genes, r in _effects(pairs, hypothesis, pseudocount)
    )
    n_genes = len(proba_de)
    return {
        "proba_de": proba_de,
        "proba_not_de": 1 - proba_de,
        "bayes_factor": bayes_factor(proba_de),
        **scales,
        "pseudocounts": np.full(n_genes, pseudocount),
        "delta": np.full(n_genes, delta, dtype=np.float64),
        **_described(pairs, hypothesis, pseudocount),
    }


def bayes_factor(proba: np.ndarray, eps: float = 1e-8) -> np.ndarray:
    r""":math:`\log(p + \epsilon) - \log(1 - p + \epsilon)`."""
    return np.log(proba + eps) - np.log(1 - proba + eps)


def log2_fold_change(scale1_rg: np.ndarray, scale2_rg: np.ndarray, pseudocount: float) -> np.ndarray:
    r""":math:`\log_2(\rho_1 + c) - \log_2(\rho_2 + c)`."""
    return np.log2(scale1_rg + pseudocount) - np.log2(scale2_rg + pseudocount)


def _effects(pairs: Pairs, hypothesis: Hypothesis, pseudocount: float) -> Iterator[tuple[slice, np.ndarray]]:
    """Effect sizes of all pairs for some genes at a time."""
    change_fn = hypothesis.change_fn if callable(hypothesis.change_fn) else log2_fold_change
    if change_fn is log2_fold_change:
        for genes, log_one, log_two in pairs.blocks(lambda scale_rg: np.log2(scale_rg + pseudocount)):
            yield genes, log_one - log_two
        return
    more = (pseudocount,) if _takes_pseudocount(change_fn) else ()
    for genes, one, two in pairs.blocks():
        yield genes, change_fn(one, two, *more)


def _takes_pseudocount(change_fn: Callable[..., np.ndarray]) -> bool:
    """scvi-tools' effect functions take it as a third argument."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(change_fn).parameters.values()
    return sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters) > 2


def _filled(blocks: Iterator[tuple[slice, np.ndarray]]) -> np.ndarray:
    """Blocks of genes, which come in order, side by side."""
    return np.concatenate([block for _, block in blocks])


def _proba_de(effect_rg: np.ndarray, hypothesis: Hypothesis, delta: float | None) -> np.ndarray:
    if hypothesis.m1_domain_fn is not None:
        changes = hypothesis.m1_domain_fn(effect_rg)
        if not isinstance(changes, tuple):
            return changes.mean(0)
        up_g, down_g = (part.mean(0) for part in changes)
    else:
        assert delta is not None
        up_g, down_g = (effect_rg >= delta).mean(0), (effect_rg < -delta).mean(0)
    return np.maximum(up_g, down_g) if hypothesis.test_mode == "three" else up_g + down_g


def _delta(pairs: Pairs, hypothesis: Hypothesis, pseudocount: float, seed: int) -> float | None:
    if hypothesis.delta is not None or hypothesis.m1_domain_fn is not None:
        return hypothesis.delta
    return estimate_delta(
        _filled((genes, r.mean(0)) for genes, r in _effects(pairs, hypothesis, pseudocount)), seed=seed
    )


def estimate_delta(lfc_mean_g: np.ndarray, seed: int = 0, share: float = 0.6, floor: float = 0.1) -> float:
    """Threshold from the spread of effects over genes: most genes do not change, some go up, some down.

    A mixture of three normals is fitted to the genes' mean effects; the threshold is ``share`` of the mean distance of
    the two outer means from 0, at least ``floor``.

    Parameters
    ----------
    lfc_mean_g
        Mean effect of each gene, ``(g,)``.
    seed
        Of the fit.
    share, floor
        Of the threshold.

    Raises
    ------
    ModuleNotFoundError
        When scikit-learn is not installed.
    """
    mixture = optional("sklearn.mixture", extra="sklearn", purpose="delta=None")
    model = mixture.GaussianMixture(n_components=3, random_state=seed).fit(lfc_mean_g[:, None])
    means = np.sort(model.means_.ravel())
    return max(floor, float(share * np.abs(means[[0, -1]]).mean()))


def _pseudocount(pairs: Pairs, hypothesis: Hypothesis, low1_g: np.ndarray | None, low2_g: np.ndarray | None) -> float:
    if hypothesis.pseudocounts is not None:
        return float(hypothesis.pseudocounts)
    groups = ((pairs.scale1_rg, low1_g), (pairs.scale2_rg, low2_g))
    return max(estimate_pseudocount(scale_rg, low_g) for scale_rg, low_g in groups)


def estimate_pseudocount(scale_rg: np.ndarray, low_g: np.ndarray | None, quantile: float = 0.9) -> float:
    """Expression that the decoder gives to genes that are not expressed: what is below cannot be told from nothing.

    The ``quantile`` over genes that are not expressed of their largest draw, divided by the number of genes; at
    least 1e-10, which it is where all genes are expressed.

    Parameters
    ----------
    scale_rg
        Draws of one group, ``(r, g)``.
    low_g
        Genes not expressed in it, ``(g,)`` booleans; None: none.
    quantile
        Of genes.
    """
    if low_g is None or not low_g.any():
        return _FLOOR_PSEUDOCOUNT
    largest = scale_rg[:, low_g].max(0)
    return max(_FLOOR_PSEUDOCOUNT, float(np.quantile(largest, quantile)) / scale_rg.shape[1])


def _described(pairs: Pairs, hypothesis: Hypothesis, pseudocount: float) -> dict[str, np.ndarray]:
    """``lfc_`` columns, under a thousandth of the pseudocount, as scvi-tools has them."""
    effects = _effects(pairs, hypothesis, _STATISTICS_PSEUDOCOUNT * pseudocount)
    blocks = [describe_draws(r, hypothesis.cred_interval_lvls) for _, r in effects]
    return {f"lfc_{name}": np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def describe_draws(draws_rg: np.ndarray, levels: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """Mean, median, standard deviation, extremes and credible intervals of each column, ``(g,)`` by name."""
    described = {
        "mean": draws_rg.mean(0),
        "median": np.median(draws_rg, 0),
        "std": draws_rg.std(0),
        "min": draws_rg.min(0),
        "max": draws_rg.max(0),
    }
    for level in levels or ():
        low, high = highest_density_interval(draws_rg, level)
        described |= {f"confidence_interval_{level}_min": low, f"confidence_interval_{level}_max": high}
    return described


def highest_density_interval(draws_rg: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the shortest interval that holds a share ``level`` of the draws of each column, ``(g,)`` each."""
    ordered = np.sort(draws_rg, 0)
    inside = int(np.floor(level * len(ordered)))
    first = (ordered[inside:] - ordered[: len(ordered) - inside]).argmin(0)
    columns = np.arange(ordered.shape[1])
    return ordered[first, columns], ordered[first + inside, columns]


def expected_fdr(proba_g: np.ndarray, target: float) -> np.ndarray:
    r"""Which genes to call, so that the expected share of false ones among them is at most ``target``.

    Genes are taken in order of their probability as long as the mean of :math:`1 - p` over those taken stays within.

    Parameters
    ----------
    proba_g
        Probability of each gene being a true discovery, ``(g,)``.
    target
        Expected false discovery rate.

    Returns
    -------
    ``(g,)`` booleans.
    """
    order = np.argsort(-proba_g, kind="stable")
    mean_error = np.cumsum(1 - proba_g[order]) / np.arange(1, len(order) + 1)
    called = np.zeros(len(order), dtype=bool)
    called[order[mean_error <= target]] = True
    return called
