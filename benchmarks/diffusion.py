"""RESOLVI on simulated tissue in which counts leak: are a cell's own counts told from those of its neighbours?

``python -m benchmarks.diffusion [--seeds 3] [--epochs N]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from celbo.external import RESOLVI

from . import common

OWN, DIFFUSED, AMBIENT = 0.75, 0.2, 0.05
K_NN = 10


def simulate_diffusion(
    n_cells: int = 600,
    n_genes: int = 150,
    n_types: int = 4,
    n_batches: int = 2,
    mean_total: float = 200,
    seed: int = 0,
    shares: tuple[float, float, float] = (OWN, DIFFUSED, AMBIENT),
) -> anndata.AnnData:
    r"""Counts :math:`x_{ng} \sim \mathrm{Poisson}(\ell_n\,(.75\,\rho_{ng} + .2\,\bar\rho_{ng} + .05\,a_g))`.

    Types lie in smooth regions with others between; :math:`\bar\rho` is the mean profile of the ten nearest cells of
    the batch, weighted by :math:`e^{-d^2 / d_0^2}`, and a the mean profile of all.

    Parameters
    ----------
    n_cells, n_genes, n_types, n_batches, mean_total
        How many; mean total of a cell.
    shares
        Of own, diffused and ambient counts.
    seed
        Of everything.

    Returns
    -------
    ``layers["own"]``: the true profiles; ``obs``: ``type``, ``batch``; ``obsm["X_spatial"]``.
    """
    rng = np.random.default_rng(seed)
    xy, batch = rng.uniform(0, 1, (n_cells, 2)), rng.integers(n_batches, size=n_cells)
    waves = np.sin(xy @ rng.normal(0, 4, (2, n_types)) + rng.uniform(0, 6, n_types)) * 2
    of_types = np.exp(waves) / np.exp(waves).sum(1, keepdims=True)
    kind = (of_types.cumsum(1) < rng.uniform(size=(n_cells, 1))).sum(1).clip(max=n_types - 1)
    profile_tg = rng.gamma(1.0, size=n_genes).clip(0.05) * np.exp(rng.normal(0, 1, (n_types, n_genes)))
    own = profile_tg[kind] * np.exp(rng.normal(0, 0.15, (n_cells, n_genes)))
    own /= own.sum(1, keepdims=True)
    near = np.zeros_like(own)
    for b in range(n_batches):
        rows = np.flatnonzero(batch == b)
        distance, index = (found[:, 1:] for found in cKDTree(xy[rows]).query(xy[rows], K_NN + 1))
        weight = np.exp(-((distance / np.median(distance)) ** 2))
        weight /= weight.sum(1, keepdims=True)
        near[rows] = np.einsum("nm,nmg->ng", weight, own[rows[index]])
    library = np.exp(rng.normal(np.log(mean_total), 0.3, n_cells))[:, None]
    x = rng.poisson(library * (shares[0] * own + shares[1] * near + shares[2] * own.mean(0))).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(x), layers={"own": own.astype(np.float32)})
    adata.obs["type"] = pd.Categorical([f"type_{t}" for t in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{b}" for b in batch])
    adata.obsm["X_spatial"] = xy
    return adata


def log_correlation(found: np.ndarray, truth: np.ndarray) -> float:
    """Of logarithms of shares, all cells and genes."""
    return float(np.corrcoef(np.log(found + 1e-4).ravel(), np.log(truth + 1e-4).ravel())[0, 1])


def fit(adata: anndata.AnnData, model: Any, shares: np.ndarray) -> dict[str, float]:
    """Figures of a trained model."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    x = np.asarray(adata.X.todense())
    found = np.asarray(model.get_normalized_expression(n_samples=5, return_numpy=True))
    groups = KMeans(adata.obs["type"].nunique(), n_init=10, random_state=0).fit_predict(
        model.get_latent_representation()
    )
    return {
        "own expression, correlation": log_correlation(found, adata.layers["own"]),
        "own expression, correlation of raw counts": log_correlation(x / x.sum(1, keepdims=True), adata.layers["own"]),
        "own, %": 100 * shares[0],
        "diffused, %": 100 * shares[1],
        "background, %": 100 * shares[2],
        "ARI of k-means": float(adjusted_rand_score(adata.obs["type"], groups)),
    }


def figures(seed: int, options: dict[str, Any], of_data: dict[str, Any], **made_with: Any) -> dict[str, float]:
    """Figures of one training."""
    adata = simulate_diffusion(seed=seed, **of_data)
    RESOLVI.setup_anndata(adata, batch_key="batch", prepare_data_kwargs={"n_neighbors": K_NN})
    model = RESOLVI(adata, **made_with)
    start = time.perf_counter()
    model.train(**{"seed": seed, "verbose": 0} | options)
    seconds = time.perf_counter() - start
    return {"training, s": seconds, **fit(adata, model, model.get_mixture_proportions().mean().to_numpy())}


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    options = {} if given.epochs is None else {"max_epochs": given.epochs}
    runs = [figures(seed, options, {}) for seed in range(given.seeds)]
    report = common.Report("diffusion", given.dry)
    for figure in runs[0]:
        unit = "s" if figure.endswith(", s") else ""
        report.add("RESOLVI, 600 x 150", figure, unit, {"celbo": [run[figure] for run in runs]})
    report.write()


if __name__ == "__main__":
    main()
