"""Tangram on simulated spots of known mixture: shares of types, and genes that were not mapped by.

``python -m benchmarks.mapping [--seeds 3] [--recipe NAME] [--epochs N] [--rounds N]``
"""

import time
import warnings
from typing import Any

import anndata
import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from celbo.core import optional
from celbo.data import simulate_counts, simulate_spots
from celbo.external import Tangram

from . import common

MODALITIES = {"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"}


def _normalized(adata: anndata.AnnData) -> np.ndarray:
    x = adata.X.toarray()
    return (1e4 * x / np.maximum(x.sum(1, keepdims=True), 1)).astype(np.float32)


def shares_by_least_squares(cells: np.ndarray, types: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """Non-negative shares of the mean profiles of types, in the order of their names, ``(s, c)``."""
    means_cg = np.stack([cells[types == name].mean(0) for name in np.unique(types)])
    found = np.stack([nnls(means_cg.T, spot)[0] for spot in spots])
    return found / found.sum(1, keepdims=True)


def figures(seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one mapping by half of the genes."""
    mudata = optional("mudata", extra="mudata", purpose="benchmarks.mapping")
    cells = simulate_counts(n_cells=500, n_genes=300, n_cell_types=5, seed=seed)
    spots = simulate_spots(cells, "cell_type", 300, seed=seed)
    spots.obs_names = [f"spot_{name}" for name in spots.obs_names]
    x, y = _normalized(cells), _normalized(spots)
    known = np.random.default_rng(seed).permutation(cells.n_vars)[: cells.n_vars // 2]
    by = {
        "sc": anndata.AnnData(x[:, known], cells.obs[["cell_type"]].copy(), cells.var.iloc[known].copy()),
        "sp": anndata.AnnData(y[:, known], spots.obs.copy(), spots.var.iloc[known].copy()),
    }
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings(action="ignore"):
        mdata = mudata.MuData(by)
    Tangram.setup_mudata(mdata, "uniform", modalities=MODALITIES)
    model = Tangram(mdata)
    start = time.perf_counter()
    model.train(**options)
    seconds = time.perf_counter() - start
    mapper, types = model.get_mapper_matrix(), cells.obs["cell_type"].astype(str).to_numpy()
    counted = model.project_cell_annotations(by["sc"], by["sp"], mapper, cells.obs["cell_type"].astype(str))
    shares, true = counted.div(counted.sum(1), axis=0), spots.obsm["proportions"]
    shares, true = shares.to_numpy(), true[sorted(true.columns)].to_numpy()
    baseline = shares_by_least_squares(x[:, known], types, y[:, known])
    hidden = np.setdiff1d(np.arange(cells.n_vars), known)
    means_cg = np.stack([x[types == name].mean(0) for name in np.unique(types)])

    def genes(expression_sg: np.ndarray) -> float:
        with warnings.catch_warnings(action="ignore"):  # of genes that nothing has
            return float(np.nanmedian([spearmanr(expression_sg[:, g], y[:, g])[0] for g in hidden]))

    return {
        "training, s": seconds,
        "RMSE of shares": float(np.sqrt(((shares - true) ** 2).mean())),
        "RMSE of shares, least squares": float(np.sqrt(((baseline - true) ** 2).mean())),
        "Spearman of hidden genes": genes(mapper.T @ x),
        "Spearman of hidden genes, least squares": genes(baseline @ means_cg),
    }


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    options = common.training_options(given, warm_start=given.rounds)
    runs = [figures(seed, options | {"seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report = common.Report("mapping", given.dry)
    report.add_runs(f"Tangram, 500 cells, 300 spots, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
