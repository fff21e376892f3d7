"""Genes hidden in one data set, imputed by GIMVI from another, and by the nearest cells there.

``python -m benchmarks.imputing [--celllines systems_celllines_2tech.h5ad] [--seeds 3] [--first 0] [--epochs N]``

``--package scvi``, in an environment with scvi-tools, trains its model on the same data; ``--dry`` is meant then. The
cell lines (two technologies, half of the genes hidden in Drop-seq) are not in the repository. Seconds are of the
processor; set ``OMP_NUM_THREADS=1``.
"""

import importlib
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from . import common


class Hidden(NamedTuple):
    """Two data sets of the same genes, some of them hidden in the second.

    Parameters
    ----------
    first, second
        Counts, ``(n, g)``.
    seen, hidden
        Places of the genes that the second is shown, and of those that it is asked for.
    mean
        What is to be expected of the second, ``(n, g)``, where that is known.
    """

    first: np.ndarray
    second: np.ndarray
    seen: np.ndarray
    hidden: np.ndarray
    mean: np.ndarray | None = None


def simulated(seed: int, n_cells: int = 600, n_genes: int = 150) -> Hidden:
    """Four types in both; two thirds of the genes are seen in space, at a third of the depth and other efficiencies."""
    rng = np.random.default_rng(seed)
    profile_tg = rng.gamma(1, 1, n_genes) * np.exp(rng.normal(0, 1, (4, n_genes)))

    def measured(depth: float, efficiency_g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean_ng = profile_tg[rng.integers(0, 4, n_cells)] * efficiency_g
        mean_ng *= depth / mean_ng.sum(1, keepdims=True)
        return rng.poisson(rng.gamma(5, mean_ng / 5)).astype(np.float32), mean_ng

    first, _ = measured(1500, np.ones(n_genes))
    second, mean_ng = measured(500, np.exp(rng.normal(0, 0.3, n_genes)))
    order = rng.permutation(n_genes)
    return Hidden(first, second, np.sort(order[: 2 * n_genes // 3]), np.sort(order[2 * n_genes // 3 :]), mean_ng)


def cell_lines(path: Path, seed: int) -> Hidden:
    """Half of the genes hidden in Drop-seq; asked for are those of them that a tenth of its cells express."""
    adata = ad.read_h5ad(path)
    adata = adata[~adata.obs["doublet"].to_numpy()]
    x, is_second = adata.X.toarray(), (adata.obs["technology"] == "Drop-seq").to_numpy()
    order = np.random.default_rng(seed).permutation(adata.n_vars)
    seen, hidden = np.sort(order[: adata.n_vars // 2]), np.sort(order[adata.n_vars // 2 :])
    return Hidden(x[~is_second], x[is_second], seen, hidden[(x[is_second][:, hidden] > 0).mean(0) > 0.1])


def _ranked(x_ng: np.ndarray) -> np.ndarray:
    rank_ng = rankdata(x_ng, axis=0)
    return rank_ng - rank_ng.mean(0)


def correlation(found_ng: np.ndarray, true_ng: np.ndarray) -> float:
    """Median over genes of the rank correlation over cells; a gene that is found to be constant counts 0."""
    a, b = _ranked(found_ng), _ranked(true_ng)
    length_g = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(np.median((a * b).sum(0) / np.where(length_g > 0, length_g, 1)))


def by_neighbours(data: Hidden, k: int, n_components: int | None = None) -> np.ndarray:
    """Counts of the hidden genes: their share over that of seen genes in the k nearest cells, times the own total."""
    shown = [x_ng[:, data.seen] for x_ng in (data.first, data.second)]
    log = [np.log1p(1e4 * x_ng / np.maximum(x_ng.sum(1, keepdims=True), 1)) for x_ng in shown]
    if n_components is not None:
        scaled = [(x_ng - x_ng.mean(0)) / (x_ng.std(0) + 1e-6) for x_ng in log]
        components = PCA(n_components, random_state=0).fit(np.concatenate(scaled))
        log = [components.transform(x_ng) for x_ng in scaled]
    nearest = NearestNeighbors(n_neighbors=k).fit(log[0]).kneighbors(log[1], return_distance=False)
    share_ng = data.first[:, data.hidden] / np.maximum(shown[0].sum(1, keepdims=True), 1)
    return share_ng[nearest].mean(1) * shown[1].sum(1, keepdims=True)


def figures(package: str, data: Hidden, seed: int, init: dict[str, Any], options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training, beside those of neighbours and of the cells' totals."""
    genes = np.sort(np.concatenate([data.seen, data.hidden]))
    names = np.array([f"gene_{place}" for place in range(data.first.shape[1])])
    first, second = ad.AnnData(data.first[:, genes].copy()), ad.AnnData(data.second[:, data.seen].copy())
    first.var_names, second.var_names = names[genes], names[data.seen]
    cls = importlib.import_module(f"{package}.external").GIMVI
    for adata in (first, second):
        cls.setup_anndata(adata)
    is_celbo = package == "celbo"
    if not is_celbo:
        importlib.import_module("scvi").settings.seed = seed
    model = cls(first, second, **init)
    quiet = {"seed": seed, "verbose": 0} if is_celbo else {"enable_progress_bar": False}
    start = time.process_time()
    model.train(accelerator="cpu", **quiet, **options)
    seconds = time.process_time() - start
    found = model.get_imputed_values(normalized=False)[1][:, np.searchsorted(genes, data.hidden)]
    true, latents = data.second[:, data.hidden], model.get_latent_representation()
    origin = np.repeat([0, 1], [len(one) for one in latents])
    neighbours = {f"{k} nearest": by_neighbours(data, k) for k in (5, 30)}
    neighbours["30 nearest in 30 components"] = by_neighbours(data, 30, 30)
    total_n1 = data.second[:, data.seen].sum(1, keepdims=True)
    known = {} if data.mean is None else {"true means of the types": correlation(data.mean[:, data.hidden], true)}
    return {
        "training, processor, s": seconds,
        "GIMVI": correlation(found, true),
        **{name: correlation(value_ng, true) for name, value_ng in neighbours.items()},
        **known,
        "totals alone": correlation(np.repeat(total_n1, len(data.hidden), 1), true),
        "neighbours of the same data set": common.neighbours_of_their_own(np.concatenate(latents), origin),
    }


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--package", default="celbo", choices=["celbo", "scvi"])
    parser.add_argument("--celllines", type=Path)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--latent-libraries", action="store_true", help="as scvi-tools: of the dissociated cells")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    options = common.training_options(given)
    init = {"model_library_size": [True, False]} if given.latent_libraries else {}
    seeds = range(given.first, given.first + given.seeds)
    report = common.Report("imputing", given.dry)
    cases = {"600 and 600 simulated cells": simulated}
    if given.celllines is not None:
        cases["cell lines by two technologies"] = lambda seed: cell_lines(given.celllines, seed)
    for case, made in cases.items():
        figures(given.package, made(given.first), given.first, init, options | {"max_epochs": 1})
        runs = [figures(given.package, made(seed), seed, init, options) for seed in seeds]
        report.add_runs(f"GIMVI, {case} {common.shown(options | init)}".strip(), runs)
    report.write()


if __name__ == "__main__":
    main()
