"""SCVIVA on simulated tissue: are the neighbours of a cell predicted better than by its type alone?

``python -m benchmarks.tissue [--seeds 3] [--recipe NAME] [--epochs N]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.external import SCVIVA

from . import common

K_NN = 20


def simulate_tissue(
    n_cells: int = 1500, n_genes: int = 150, n_types: int = 4, n_state_genes: int = 30, seed: int = 0
) -> anndata.AnnData:
    r"""Counts of cells of one section, whose niches vary inside a type and leave a trace in its expression.

    Two smooth fields :math:`f(s)` over the section give the shares of the types, :math:`\mathrm{softmax}(W f(s))`, and
    shift ``n_state_genes`` genes of each type: :math:`x_{ng} \sim \mathrm{Poisson}(\ell_n\,\rho_{ng})`,
    :math:`\log \rho_{ng} = a_{t_n g} + f(s_n) \cdot b_{t_n g}` up to the cell's sum.

    Parameters
    ----------
    n_cells, n_genes, n_types, n_state_genes
        How many.
    seed
        Of everything.

    Returns
    -------
    ``obs``: ``cell_type``; ``obsm``: ``spatial``, ``X_scVI`` (principal components of log counts, ten), ``field``.
    """
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (n_cells, 2))
    waves = rng.normal(0, 4, (2, 2, 3))
    field = np.stack([np.sin(xy @ waves[k] + rng.uniform(0, 6, 3)).sum(1) for k in range(2)], 1)
    logits = 1.2 * field @ rng.normal(0, 1, (2, n_types))
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    kind = (share.cumsum(1) < rng.uniform(size=(n_cells, 1))).sum(1)
    base_tg = rng.gamma(1.0, size=n_genes).clip(0.05) * np.exp(rng.normal(0, 1, (n_types, n_genes)))
    slope_tkg = np.zeros((n_types, 2, n_genes))
    for t in range(n_types):
        moved = rng.choice(n_genes, n_state_genes, replace=False)
        slope_tkg[t][:, moved] = rng.normal(0, 0.5, (2, n_state_genes))
    profile = base_tg[kind] * np.exp(np.einsum("nk,nkg->ng", field, slope_tkg[kind]))
    profile /= profile.sum(1, keepdims=True)
    library = np.exp(rng.normal(np.log(400), 0.3, n_cells))
    x = rng.poisson(library[:, None] * profile).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(x))
    adata.obs["cell_type"] = pd.Categorical([f"type_{t}" for t in kind])
    adata.obsm["spatial"], adata.obsm["field"] = xy, field
    logs = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    u, s, _ = np.linalg.svd(logs - logs.mean(0), full_matrices=False)
    adata.obsm["X_scVI"] = (u[:, :10] * s[:10] / np.sqrt(n_cells)).astype(np.float32)
    return adata


def by_type(values: np.ndarray, labels: pd.Series) -> np.ndarray:
    """The mean over the cells of each cell's type: what the type alone says."""
    codes = labels.astype("category").cat.codes.to_numpy()
    means = np.stack([values[codes == code].mean(0) for code in range(codes.max() + 1)])
    return means[codes]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of all entries."""
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def figures(adata: anndata.AnnData, options: dict[str, Any], cls: type = SCVIVA, **made_with: Any) -> dict[str, float]:
    """Figures of one training."""
    cls.preprocessing_anndata(adata, k_nn=K_NN, labels_key="cell_type", sample_key=options.pop("sample_key", None))
    cls.setup_anndata(adata, labels_key="cell_type")
    model = cls(adata, **made_with)
    start = time.perf_counter()
    model.train(**options)
    seconds = time.perf_counter() - start
    return {"training, s": seconds, **fit(adata, model)}


def fit(adata: anndata.AnnData, model: Any) -> dict[str, float]:
    """How well niches are predicted, in all cells and in those that were not trained on; the mean by type beside it."""
    truth, state = np.asarray(adata.obsm["niche_composition"]), np.asarray(adata.obsm["niche_activation"])
    found, decoded = np.asarray(model.predict_neighborhood()), np.asarray(model.predict_niche_activation())
    shares, states = by_type(truth, adata.obs["cell_type"]), by_type(state, adata.obs["cell_type"])
    there = truth > 0
    measured = {}
    for name, rows in (("all cells", np.arange(adata.n_obs)), ("held out", np.asarray(model.validation_indices))):
        near = there[rows]
        measured |= {
            f"shares, {name}": correlation(found[rows], truth[rows]),
            f"shares, {name}, mean by type": correlation(shares[rows], truth[rows]),
            f"states, {name}": correlation(decoded[rows][near], state[rows][near]),
            f"states, {name}, mean by type": correlation(states[rows][near], state[rows][near]),
        }
    return measured


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    given = parser.parse_args()
    options = common.training_options(given)
    runs = [figures(simulate_tissue(seed=seed), {**options, "seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report = common.Report("tissue", given.dry)
    for figure in runs[0]:
        unit = "s" if figure.endswith(", s") else ""
        report.add("SCVIVA, 1500 x 150", figure, unit, {"celbo": [run[figure] for run in runs]})
    report.write()


if __name__ == "__main__":
    main()
