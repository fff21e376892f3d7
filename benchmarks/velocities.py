"""VELOVI on cells of one trajectory simulated by its equations: velocities and times against the true ones.

``python -m benchmarks.velocities --data FOLDER [--seeds N] [--epochs N] [--recipe NAME]``

``--package scvi``, in an environment with scvi-tools, trains its model on the files that celbo left in the folder.
Set ``OMP_NUM_THREADS=1``.
"""

import importlib
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from . import common

_T_MAX = 20.0
_NEIGHBOURS = 30


def _rna(alpha: np.ndarray, beta: np.ndarray, gamma: np.ndarray, t: np.ndarray, u: Any, s: Any) -> list[np.ndarray]:
    """Unspliced and spliced RNA a time after it was ``u`` and ``s``."""
    fast, slow = np.exp(-beta * t), np.exp(-gamma * t)
    mixed = (alpha - u * beta) / (gamma - beta) * (slow - fast)
    return [u * fast + alpha / beta * (1 - fast), s * slow + alpha / gamma * (1 - slow) + mixed]


def simulate_velocity(n_cells: int = 500, n_genes: int = 60, seed: int = 0) -> anndata.AnnData:
    """Cells at uniform times of 20, with noise of a tenth of a gene's spread, smoothed over 30 neighbours, scaled to 1.

    Parameters
    ----------
    n_cells, n_genes
        How many.
    seed
        Of everything.

    Returns
    -------
    Layers ``Ms`` and ``Mu``, ``velocity`` with the true slope of ``Ms``; ``obs["time"]``.
    """
    rng = np.random.default_rng(seed)
    alpha, beta, gamma = (rng.uniform(low, high, n_genes) for low, high in ((1, 3), (0.4, 0.8), (0.15, 0.39)))
    switch, t = rng.uniform(4, 12, n_genes), np.sort(rng.uniform(0, _T_MAX, n_cells))[:, None]
    at_end = _rna(alpha, beta, gamma, switch, 0.0, 0.0)
    up = _rna(alpha, beta, gamma, np.minimum(t, switch), 0.0, 0.0)
    down = _rna(0 * alpha, beta, gamma, np.maximum(t - switch, 0), *at_end)
    unspliced, spliced = (np.where(t < switch, a, b) for a, b in zip(up, down, strict=True))
    slope = beta * unspliced - gamma * spliced
    noisy = [np.maximum(x + 0.1 * x.std(0) * rng.normal(size=x.shape), 0) for x in (unspliced, spliced)]
    u, d, _ = np.linalg.svd(noisy[1] - noisy[1].mean(0), full_matrices=False)
    nearest = cKDTree(u[:, :20] * d[:20]).query(u[:, :20] * d[:20], _NEIGHBOURS)[1]
    starts = np.arange(n_cells + 1) * _NEIGHBOURS
    mean = sp.csr_matrix((np.full(nearest.size, 1 / _NEIGHBOURS), nearest.ravel(), starts))
    smooth = [mean @ x for x in noisy]
    low, width = ([f(x, axis=0) for x in smooth] for f in (np.min, np.ptp))
    scaled = [((x - a) / b).astype(np.float32) for x, a, b in zip(smooth, low, width, strict=True)]
    adata = anndata.AnnData(scaled[1].copy(), layers={"Mu": scaled[0], "Ms": scaled[1], "velocity": slope / width[1]})
    adata.obs["time"] = t[:, 0]
    return adata


def steady_states(adata: anndata.AnnData) -> dict[str, float]:
    """The same figures of a line through the extreme cells of each gene, and of the first principal component."""
    s, u = (np.asarray(adata.layers[name], dtype=float) for name in ("Ms", "Mu"))
    far = s + u >= np.quantile(s + u, 0.95, axis=0)
    velocity = u - (far * u * s).sum(0) / (far * s**2).sum(0) * s
    first_n = np.linalg.svd(s - s.mean(0), full_matrices=False)[0][:, 0]
    return {
        "steady states, median correlation": _correlation(velocity, adata),
        "first component, rank correlation": abs(float(spearmanr(first_n, adata.obs["time"])[0])),
    }


def _correlation(velocity_ng: np.ndarray, adata: anndata.AnnData) -> float:
    pairs = zip(velocity_ng, adata.layers["velocity"], strict=True)
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


def figures(package: str, adata: anndata.AnnData, options: dict[str, Any]) -> dict[str, float]:
    """Train, and compare with the truth."""
    cls = importlib.import_module(f"{package}.external").VELOVI
    cls.setup_anndata(adata, spliced_layer="Ms", unspliced_layer="Mu")
    model = cls(adata)
    begun = time.process_time()
    model.train(**options)
    seconds = time.process_time() - begun
    velocity, times = (np.asarray(verb(n_samples=25)) for verb in (model.get_velocity, model.get_latent_time))
    return {
        "training, s of processor": seconds,
        "epochs": float(len(next(iter(model.history.values())))),
        "velocity, median correlation": _correlation(velocity, adata),
        "time, rank correlation": float(spearmanr(times.mean(1), adata.obs["time"])[0]),
    } | steady_states(adata)


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--package", choices=("celbo", "scvi"), default="celbo")
    given = parser.parse_args()
    options = common.training_options(given)
    package = importlib.import_module(given.package)
    runs = []
    for seed in range(given.seeds):
        path = given.data / f"velocities_{seed}.h5ad"
        if not path.exists():
            given.data.mkdir(parents=True, exist_ok=True)
            simulate_velocity(seed=seed).write_h5ad(path)
        package.settings.seed = seed
        quiet = {"verbose": 0} if given.package == "celbo" else {"enable_progress_bar": False, "accelerator": "cpu"}
        runs.append(figures(given.package, anndata.read_h5ad(path), options | quiet))
        print(seed, runs[-1], flush=True)
    report = common.Report("velocities", given.dry)
    report.add_runs(f"VELOVI of {given.package}, 500 x 60, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
