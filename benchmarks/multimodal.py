"""MULTIVI on cells of known types that lack a modality: are types found, modalities mixed, expression imputed.

``python -m benchmarks.multimodal [--recipe NAME] [--lr LR] [--epochs N] [--cells N] [--hidden N]
[--scvi-figures]``, or
``python -m benchmarks.multimodal --real FILE.h5mu`` for cells of modalities ``rna`` and ``atac``, a third of which lose
their genes.
"""

import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.core import optional
from celbo.model import MULTIVI

from . import common
from .accessibility import simulate_peaks
from .small_data import label_accuracy

KINDS = ("paired", "rna", "peaks")
SHARES = (0.5, 0.25, 0.25)


def simulate_multiome(
    n_cells: int = 600,
    n_genes: int = 150,
    n_peaks: int = 300,
    n_types: int = 4,
    seed: int = 0,
    shares: tuple[float, ...] = SHARES,
    density: float | None = None,
) -> Any:
    r"""Genes and peaks of the same cells, half of which have both, a quarter the one and a quarter the other.

    Counts of genes are :math:`x_{ng} \sim \mathrm{NB}(\ell_n \rho_{t_n g} s_{b_n g}, 5)`, with the library
    :math:`\ell_n` log-normal around 1,000; peaks are those of :func:`benchmarks.accessibility.simulate_peaks`.

    Parameters
    ----------
    n_cells, n_genes, n_peaks, n_types
        How many.
    seed
        Of everything.
    shares
        Of cells with both, with genes, with peaks.
    density
        Share of the peaks that a cell is seen to have open.

    Returns
    -------
    MuData of ``rna`` and ``peaks``; ``obs``: ``type``, ``batch``, ``kind`` (which modalities); ``uns["rho"]``: each
    cell's shares of expression, ``(n, g)``, in the order of its cells.
    """
    mudata = optional("mudata", extra="mudata", purpose="benchmarks.multimodal")
    peaks = simulate_peaks(n_cells, n_peaks, n_types, seed=seed, density=density)
    rng = np.random.default_rng(seed + 1000)
    kind, batch = peaks.obs["type"].cat.codes.to_numpy(), peaks.obs["batch"].cat.codes.to_numpy()
    log_tg = rng.normal(0, 1, n_genes) + np.where(rng.random(n_genes) < 0.3, rng.normal(0, 1, (n_types, n_genes)), 0)
    shift_bg = rng.normal(0, 0.2, (int(batch.max()) + 1, n_genes))
    rate_ng = np.exp(log_tg[kind] + shift_bg[batch])
    rho_ng = rate_ng / rate_ng.sum(1, keepdims=True)
    mu_ng = rng.lognormal(np.log(1000), 0.3, (n_cells, 1)) * rho_ng
    x_ng = rng.poisson(rng.gamma(5.0, mu_ng / 5.0)).astype(np.float32)
    has = rng.choice(len(KINDS), size=n_cells, p=shares)
    names = np.array([f"cell_{i}" for i in range(n_cells)])
    rna = anndata.AnnData(sp.csr_matrix(x_ng), obs=pd.DataFrame(index=names))
    rna.var_names = [f"gene_{g}" for g in range(n_genes)]
    atac = anndata.AnnData(peaks.X, obs=pd.DataFrame(index=names))
    atac.var_names = [f"peak_{g}" for g in range(n_peaks)]
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"rna": rna[has != 2].copy(), "peaks": atac[has != 1].copy()})
    order = pd.Index(names).get_indexer(mdata.obs_names)
    mdata.obs["type"], mdata.obs["batch"] = kind[order].astype(str), batch[order].astype(str)
    mdata.obs["kind"] = np.array(KINDS)[has[order]]
    mdata.uns["rho"] = rho_ng[order]
    return mdata


def simulated(seed: int, options: dict[str, Any], init: dict[str, Any], n_cells: int) -> dict[str, float]:
    """Figures of one run."""
    mdata = simulate_multiome(n_cells, seed=seed)
    MULTIVI.setup_mudata(mdata, batch_key="batch", modalities={"rna_layer": "rna", "atac_layer": "peaks"})
    model = MULTIVI(mdata, **init)
    start = time.perf_counter()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    seconds = time.perf_counter() - start
    z_nk, kinds = model.get_latent_representation(), mdata.obs["kind"].to_numpy()
    single = kinds != "paired"
    lacking = kinds == "peaks"
    value_ng = model.get_normalized_expression(return_numpy=True)
    logs = (np.log(one[lacking] + 1e-6).ravel() for one in (value_ng, mdata.uns["rho"]))
    return {
        "training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "ARI of k-means": common.types_by_k_means(z_nk, mdata.obs["type"].to_numpy()),
        "modality by 15 neighbours": common.neighbours_of_their_own(z_nk[single], kinds[single]),
        "accuracy of guessing which modalities": label_accuracy(z_nk, kinds),
        "batch by 15 neighbours": common.neighbours_of_their_own(z_nk, mdata.obs["batch"].to_numpy()),
        "correlation of imputed log RNA": float(np.corrcoef(*logs)[0, 1]),
        "best ELBO on held-out cells": float(model.history["elbo_validation"].min().iloc[0]),
    }


def real(path: Path, seed: int, options: dict[str, Any], init: dict[str, Any]) -> dict[str, float]:
    """Genes of a random third of the cells are hidden, and predicted from peaks; beside it the mean of neighbours."""
    mudata = optional("mudata", extra="mudata", purpose="benchmarks.multimodal")
    whole = mudata.read_h5mu(path)
    rna, atac = whole["rna"], whole["atac"]
    hidden = np.zeros(rna.n_obs, bool)
    hidden[np.random.default_rng(seed).choice(rna.n_obs, rna.n_obs // 3, replace=False)] = True
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"atac": atac.copy(), "rna": rna[~hidden].copy()})
    MULTIVI.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = MULTIVI(mdata, **init)
    start = time.process_time()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    seconds = time.process_time() - start
    order = pd.Index(mdata.obs_names).get_indexer(rna.obs_names)
    imputed = model.get_normalized_expression(return_numpy=True)[order]
    truth, z_nk = _shares(rna.X), model.get_latent_representation()[order]
    empty = np.asarray(atac.X.sum(1)).ravel() == 0
    asked = hidden & ~empty  # a cell without genes or peaks says nothing to anybody
    near = _mean_of_neighbours(_latent_semantics(atac.X), truth, hidden)
    return {
        "processor time of training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "cells without a peak": int(empty.sum()),
        "hidden genes, correlation": _by_gene(imputed[asked], truth[asked]),
        "the same by neighbours in peaks": _by_gene(near[asked[hidden]], truth[asked]),
        "kept genes of cells without a peak": _by_cell(imputed[empty & ~hidden], truth[empty & ~hidden]),
        "the same by the mean profile": _by_cell(truth[~hidden].mean(0), truth[empty & ~hidden]),
        "share of latents that are finite": float(np.isfinite(z_nk).mean()),
    }


def _shares(x_ng: Any) -> np.ndarray:
    x_ng = x_ng.toarray()
    return x_ng / np.maximum(x_ng.sum(1, keepdims=True), 1)


def _latent_semantics(x_nr: Any, n_components: int = 20) -> np.ndarray:
    """Singular vectors of peaks weighted by how rare they are."""
    from sklearn.decomposition import TruncatedSVD

    seen = (x_nr.toarray() > 0).astype(np.float64)
    weighted = seen / np.maximum(seen.sum(1, keepdims=True), 1) * np.log1p(len(seen) / (1 + seen.sum(0)))
    return TruncatedSVD(n_components, random_state=0).fit_transform(np.log1p(1e4 * weighted))


def _mean_of_neighbours(z_nk: np.ndarray, values_ng: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(15).fit(z_nk[~hidden], values_ng[~hidden]).predict(z_nk[hidden])


def _by_gene(found_ng: np.ndarray, truth_ng: np.ndarray) -> float:
    """Median over genes of the correlation over cells, on the log scale."""
    pairs = zip(np.log(found_ng + 1e-3).T, np.log(truth_ng + 1e-3).T, strict=True)
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs if b.std() > 0]))


def _by_cell(found: np.ndarray, truth_ng: np.ndarray) -> float:
    """Median over cells of the correlation over genes, on the log scale."""
    return _by_gene(np.broadcast_to(found, truth_ng.shape).T, truth_ng.T)


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--hidden", type=int, help="hidden units; latents are its root")
    parser.add_argument("--no-adversary", action="store_true")
    parser.add_argument("--scvi-figures", action="store_true", help="the posterior and penalty of scvi-tools")
    parser.add_argument("--real", type=Path, help="an .h5mu of cells with both")
    given = parser.parse_args()
    options = common.training_options(given, lr=given.lr)
    if given.no_adversary:
        options["adversarial_mixing"] = False
    init: dict[str, Any] = {"scvi_tools_figures": True} if given.scvi_figures else {}
    if given.hidden is not None:
        init["n_hidden"] = given.hidden
    report = common.Report("multimodal", given.dry)
    if given.real is not None:
        runs = [real(given.real, seed, options, init) for seed in range(given.seeds)]
        report.add_runs(f"MULTIVI, {given.real.stem}, {common.shown(options | init)}", runs)
        return report.write()
    runs = [simulated(seed, options, init, given.cells) for seed in range(given.seeds)]
    report.add_runs(f"MULTIVI, {given.cells} x (150 + 300), {common.shown(options | init)}", runs)
    report.write()


if __name__ == "__main__":
    main()
