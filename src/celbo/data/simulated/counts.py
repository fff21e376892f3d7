"""Counts of made-up cells whose types, batches and parameters are known."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ...core import checked, settings

__all__ = ["simulate_counts"]

_ROWS = 512
"""Cells drawn together: 512 x 2,000 genes are 4 MB of float32."""


@dataclass(frozen=True)
class _Truth:
    """Everything a count's distribution depends on."""

    type_n: np.ndarray
    batch_n: np.ndarray
    library_n: np.ndarray
    profile_cg: np.ndarray
    batch_bg: np.ndarray
    marker_cg: np.ndarray
    frequency_c: np.ndarray
    theta_g: np.ndarray
    dropout_g: np.ndarray

    def share_cbg(self) -> np.ndarray:
        """Expected share of each gene in a cell's counts, ``(c, b, g)``, summing to 1 over genes."""
        share = self.profile_cg[:, None, :] * self.batch_bg[None, :, :]
        return share / share.sum(-1, keepdims=True)


@checked
def simulate_counts(
    n_cells: int = 2000,
    n_genes: int = 1000,
    n_cell_types: int = 6,
    n_batches: int = 2,
    *,
    likelihood: Literal["nb", "zinb"] = "nb",
    median_library: float | None = None,
    marker_fraction: float = 0.1,
    marker_strength: float = 1.5,
    batch_strength: float = 0.3,
    sort_by_type: bool = False,
    keep_rates: bool = False,
    seed: int | None = 0,
) -> anndata.AnnData:
    r"""Draw counts of cells in types and batches, and keep the truth beside them.

    .. math::
        x_{ng} \sim \mathrm{Poisson}(\lambda_{ng}), \quad
        \lambda_{ng} \sim \mathrm{Gamma}(\theta_g, \theta_g / \mu_{ng}), \quad
        \mu_{ng} = \ell_n \frac{p_{c(n) g}\, e_{b(n) g}}{\sum_h p_{c(n) h}\, e_{b(n) h}}

    with cell types of unequal frequency, profiles :math:`p_{cg}` that share a log-normal baseline and differ in each
    type's own marker genes, log-normal batch effects :math:`e_{bg}`, log-normal libraries :math:`\ell_n` whose median
    differs from batch to batch, and log-normal inverse dispersions :math:`\theta_g`. With ``"zinb"`` a count is then
    zero with probability :math:`\pi_g`, larger for genes of small mean.

    Parameters
    ----------
    n_cells, n_genes, n_cell_types, n_batches
        Sizes. Every type and every batch has a cell if there are enough cells.
    likelihood
        ``"nb"``, or ``"zinb"`` with zero inflation.
    median_library
        Median total count of a cell. Default: 0.25 a gene, which gives about one nonzero entry in ten.
    marker_fraction
        Share of the genes that are markers of each type.
    marker_strength
        Mean log fold change of a marker (natural log).
    batch_strength
        Standard deviation of the log batch effect of a gene; 0 for none.
    sort_by_type
        Put the cells of one type together, as many real files have them.
    keep_rates
        Also keep :math:`\mu_{ng}` in ``layers["rate"]``: dense float32, 4 bytes for each cell and gene.
    seed
        None: ``settings.seed``, else fresh randomness. The global generators are not touched, and the number of
        processors does not matter.

    Returns
    -------
    AnnData with float32 CSR counts in ``X`` and the truth in ``obs["cell_type"]``, ``obs["batch"]``,
    ``obs["library_size"]`` (:math:`\ell_n`), ``var["dispersion"]`` (:math:`\theta_g`), ``var["zero_inflation"]``
    (:math:`\pi_g`), ``varm["cell_type_profile"]`` ``(g, c)``, ``varm["is_marker"]`` ``(g, c)``,
    ``varm["batch_effect"]`` ``(g, b)`` and ``uns["simulation"]`` (settings, type frequencies).

    Raises
    ------
    ValueError
        For an unknown likelihood, or sizes below 1.
    """
    root = np.random.SeedSequence(settings.seed if seed is None else seed)
    truth_seed, count_seed = root.spawn(2)
    rng = np.random.default_rng(truth_seed)
    median = 0.25 * n_genes if median_library is None else median_library
    profile_cg, marker_cg = _profiles(rng, n_cell_types, n_genes, marker_fraction, marker_strength)
    frequency_c = _frequencies(rng, n_cell_types)
    type_n = _assign(rng, frequency_c, n_cells)
    batch_n = _assign(rng, np.full(n_batches, 1 / n_batches), n_cells)
    if sort_by_type:
        type_n = np.sort(type_n)
    truth = _Truth(
        type_n=type_n,
        batch_n=batch_n,
        library_n=_libraries(rng, batch_n, n_batches, median),
        profile_cg=profile_cg,
        batch_bg=np.exp(rng.normal(0.0, batch_strength, (n_batches, n_genes))),
        marker_cg=marker_cg,
        frequency_c=frequency_c,
        theta_g=np.exp(rng.normal(np.log(2.0), 0.7, n_genes)),
        dropout_g=_dropout(profile_cg, frequency_c, median) if likelihood == "zinb" else np.zeros(n_genes),
    )
    chosen: dict[str, Any] = {
        "likelihood": likelihood,
        "median_library": median,
        "marker_fraction": marker_fraction,
        "marker_strength": marker_strength,
        "batch_strength": batch_strength,
    }
    return _as_anndata(truth, _draw_counts(truth, count_seed), chosen, keep_rates)


def _profiles(
    rng: np.random.Generator, c: int, g: int, marker_fraction: float, marker_strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Expression share of each gene in each type, and which genes are a type's markers; both ``(c, g)``."""
    baseline_g = rng.normal(0.0, 1.6, g)
    marker_cg = rng.random((c, g)) < marker_fraction
    change_cg = rng.normal(marker_strength, 0.5, (c, g)) * marker_cg
    profile_cg = np.exp(baseline_g + change_cg)
    return profile_cg / profile_cg.sum(1, keepdims=True), marker_cg


def _frequencies(rng: np.random.Generator, c: int) -> np.ndarray:
    """Shares of the types, falling by about a third from one to the next, ``(c,)``."""
    weight_c = 0.65 ** np.arange(c) * rng.uniform(0.8, 1.2, c)
    return weight_c / weight_c.sum()


def _assign(rng: np.random.Generator, frequency_c: np.ndarray, n: int) -> np.ndarray:
    """A category for each cell, each category at least once where there are cells enough, ``(n,)``."""
    code_n = rng.choice(len(frequency_c), size=n, p=frequency_c)
    first = min(n, len(frequency_c))
    code_n[:first] = np.arange(first)
    return rng.permutation(code_n)


def _libraries(rng: np.random.Generator, batch_n: np.ndarray, b: int, median: float) -> np.ndarray:
    """Expected total count of each cell, ``(n,)``."""
    shift_b = rng.normal(0.0, 0.2, b)
    shift_b -= shift_b.mean()
    return median * np.exp(shift_b[batch_n] + rng.normal(0.0, 0.4, len(batch_n)))


def _dropout(profile_cg: np.ndarray, frequency_c: np.ndarray, median: float) -> np.ndarray:
    """Probability of an extra zero: 0.27 for a gene of mean 1, more below and less above, ``(g,)``."""
    mean_g = median * frequency_c @ profile_cg
    return 1.0 / (1.0 + np.exp(1.0 + 0.5 * np.log(mean_g)))


def _draw_counts(truth: _Truth, seed: np.random.SeedSequence) -> sp.csr_matrix:
    """Counts of all cells, drawn block by block, each from its own generator so that threads change nothing."""
    starts = range(0, len(truth.type_n), _ROWS)
    draw = _block_drawer(truth)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        drawn = list(pool.map(draw, starts, seed.spawn(len(starts))))
    return sp.vstack(drawn, format="csr")


def _block_drawer(truth: _Truth) -> Callable[[int, np.random.SeedSequence], sp.csr_matrix]:
    share_cbg = truth.share_cbg().astype(np.float32)
    theta_g = truth.theta_g.astype(np.float32)

    def draw(start: int, seed: np.random.SeedSequence) -> sp.csr_matrix:
        rng = np.random.default_rng(seed)
        mean_ng = _means(truth, share_cbg, slice(start, start + _ROWS))
        mean_ng *= rng.standard_gamma(theta_g, mean_ng.shape, dtype=np.float32) / theta_g
        x_ng = rng.poisson(mean_ng)
        if truth.dropout_g.any():
            x_ng[rng.random(x_ng.shape, dtype=np.float32) < truth.dropout_g] = 0
        return sp.csr_matrix(x_ng, dtype=np.float32)

    return draw


def _means(truth: _Truth, share_cbg: np.ndarray, rows: slice) -> np.ndarray:
    share_ng = share_cbg[truth.type_n[rows], truth.batch_n[rows]]
    share_ng *= truth.library_n[rows, None].astype(np.float32)
    return share_ng


def _as_anndata(truth: _Truth, x_ng: sp.csr_matrix, chosen: dict[str, Any], keep_rates: bool) -> anndata.AnnData:
    n, g = x_ng.shape
    obs = pd.DataFrame(
        {
            "cell_type": _categorical("type", truth.type_n, len(truth.frequency_c)),
            "batch": _categorical("batch", truth.batch_n, len(truth.batch_bg)),
            "library_size": truth.library_n,
        },
        index=[f"cell_{i}" for i in range(n)],
    )
    var = pd.DataFrame(
        {"dispersion": truth.theta_g, "zero_inflation": truth.dropout_g}, index=[f"gene_{j}" for j in range(g)]
    )
    adata = anndata.AnnData(x_ng, obs=obs, var=var)
    adata.varm["cell_type_profile"] = truth.profile_cg.T.copy()
    adata.varm["is_marker"] = truth.marker_cg.T.copy()
    adata.varm["batch_effect"] = truth.batch_bg.T.copy()
    adata.uns["simulation"] = {**chosen, "cell_type_frequency": truth.frequency_c}
    if keep_rates:
        adata.layers["rate"] = _means(truth, truth.share_cbg().astype(np.float32), slice(None))
    return adata


def _categorical(name: str, code_n: np.ndarray, n_categories: int) -> "pd.Categorical[str]":
    names = pd.Index([f"{name}_{i}" for i in range(n_categories)])
    return pd.Categorical.from_codes(code_n.astype(np.intp), names)
