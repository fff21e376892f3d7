"""Decipher on simulated cells of a tree with three ends: does the time along a branch follow the true one?

``python -m benchmarks.trajectories [--seeds 3] [--recipe NAME] [--epochs N]``
"""

import time
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from scipy.stats import spearmanr

from celbo.external import Decipher
from celbo.external.decipher.patterns import time_of
from celbo.external.decipher.utils import Trajectory

from . import common

_FORK = 0.35
_STAGES = 5


def simulate_tree(n_cells: int = 900, n_genes: int = 150, n_branches: int = 3, seed: int = 0) -> anndata.AnnData:
    r"""Counts of cells that differentiate along one stem and then one of several branches.

    .. math:: x_{ng} \sim \mathrm{NB}(\ell_n \rho_g(t_n, b_n), 5), \qquad
              \log \rho_g = a_g + s_g \min(t, t_0) + c_{g b} \max(t - t_0, 0) + \text{const}

    with a fork at :math:`t_0 = 0.35`, and times uniform in [0, 1].

    Parameters
    ----------
    n_cells, n_genes, n_branches
        How many.
    seed
        Of everything.

    Returns
    -------
    ``obs``: ``time``, ``branch`` and ``cluster``, the stem or one of a branch's stages.
    """
    rng = np.random.default_rng(seed)
    t, branch = rng.random(n_cells), rng.integers(n_branches, size=n_cells)
    active = rng.random((n_branches, n_genes)) < 0.25
    slope_bg = np.where(active, rng.normal(0, 4, (n_branches, n_genes)), 0)
    log_rate = rng.normal(0, 1, n_genes) + np.outer(np.minimum(t, _FORK), np.where(rng.random(n_genes) < 0.25, 4, 0))
    log_rate = log_rate + np.maximum(t - _FORK, 0)[:, None] * slope_bg[branch]
    rho = np.exp(log_rate)
    mu = rng.lognormal(np.log(800), 0.3, (n_cells, 1)) * rho / rho.sum(1, keepdims=True)
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(5.0, mu / 5.0)).astype(np.float32)))
    adata.obs["time"], adata.obs["branch"] = t, [f"branch_{b}" for b in branch]
    stage = np.floor((t - _FORK) / (1 - _FORK) * _STAGES).astype(int).clip(0, _STAGES - 1)
    adata.obs["cluster"] = [
        "stem" if one < _FORK else f"branch_{b} {k}" for one, b, k in zip(t, branch, stage, strict=True)
    ]
    return adata


def along_branches(latent_nk: np.ndarray, adata: anndata.AnnData) -> float:
    """Mean over branches of the rank correlation of time on the way through clusters' means with the true time."""
    found = []
    for branch in sorted(adata.obs["branch"].unique()):
        names = ["stem", *(f"{branch} {k}" for k in range(_STAGES))]
        means = np.stack([latent_nk[(adata.obs["cluster"] == name).to_numpy()].mean(0) for name in names])
        own = (adata.obs["branch"] == branch).to_numpy()
        time_n = time_of(latent_nk[own], Trajectory("v", means, names), 10)
        found.append(spearmanr(time_n, adata.obs["time"][own])[0])
    return float(np.mean(found))


def figures(seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training, with two principal components of log-normalized counts beside them."""
    adata = simulate_tree(seed=seed)
    Decipher.setup_anndata(adata)
    model = Decipher(adata)
    start = time.perf_counter()
    model.train(**options)
    seconds = time.perf_counter() - start
    x = adata.X.toarray()
    x = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return {
        "training, s": seconds,
        "rank correlation of time, v": along_branches(model.get_latent_representation(), adata),
        "rank correlation of time, z": along_branches(model.get_latent_representation(give_z=True), adata),
        "rank correlation of time, two PCs": along_branches(u[:, :2] * s[:2], adata),
    }


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    given = parser.parse_args()
    options = common.training_options(given)
    runs = [figures(seed, options | {"seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report = common.Report("trajectories", given.dry)
    report.add_runs(f"Decipher, 900 x 150, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
