"""Models of genes and proteins on simulated cells of known types: types, foreground, mixing of batches.

``python -m benchmarks.cite_seq [--models TOTALVI TOTALANVI] [--cells N] [--epochs N] [--recipe NAME] [--seeds N]
[--missing N] [--plan name=value,...]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.external import TOTALANVI
from celbo.model import TOTALVI

from . import common

__all__ = ["figures", "simulate_cite_seq"]

_HIDDEN = 0.8


def simulate_cite_seq(
    n_cells: int = 600,
    n_genes: int = 150,
    n_proteins: int = 12,
    n_types: int = 4,
    n_batches: int = 2,
    fold: float = 8.0,
    seed: int = 0,
) -> anndata.AnnData:
    """Counts of genes and proteins, whose foreground is ``fold`` times the background, in about half of the types.

    Parameters
    ----------
    n_cells, n_genes, n_proteins, n_types, n_batches
        How many.
    fold
        Foreground over background.
    seed
        Of everything.

    Returns
    -------
    ``obs``: ``type``, ``batch``, ``seen`` (the type, hidden in 80% of the cells); ``obsm["protein"]``, a DataFrame, and
    ``obsm["foreground"]``, whether each count is foreground.
    """
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(n_types, size=n_cells), rng.integers(n_batches, size=n_cells)
    base_g = rng.gamma(0.5, 1.0, n_genes)
    log_tg = rng.normal(0, 1, (n_types, n_genes)) * (rng.random(n_genes) < 0.3)
    rate_ng = base_g * np.exp(log_tg)[kind] * np.exp(rng.normal(0, 0.3, (n_batches, n_genes)))[batch]
    depth_n1 = rng.lognormal(np.log(600), 0.3, (n_cells, 1))
    mean_ng = depth_n1 * rate_ng / rate_ng.sum(1, keepdims=True)
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(5, mean_ng / 5)).astype(np.float32)))
    fore_tp = rng.random((n_types, n_proteins)) < 0.5
    capture_bp = np.exp(rng.normal(0, 0.2, (n_batches, n_proteins)))
    background_np = rng.lognormal(1.0, 0.4, (n_cells, n_proteins)) * capture_bp[batch]
    mean_np = background_np * np.where(fore_tp[kind], fold, 1.0)
    names = [f"protein_{p}" for p in range(n_proteins)]
    counts_np = rng.poisson(rng.gamma(5, mean_np / 5)).astype(np.float32)
    adata.obsm["protein"] = pd.DataFrame(counts_np, adata.obs_names, names)
    adata.obsm["foreground"] = fore_tp[kind]
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{k}" for k in batch])
    hidden = rng.random(n_cells) < _HIDDEN
    adata.obs["seen"] = np.where(hidden, "unknown", adata.obs["type"].astype(str))
    return adata


def hide_proteins(adata: anndata.AnnData, n_missing: int) -> None:
    """Take the first proteins from the second batch."""
    adata.obsm["protein"].iloc[(adata.obs["batch"] == "batch_1").to_numpy(), :n_missing] = 0


def figures(name: str, adata: anndata.AnnData, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    setup = {"protein_expression_obsm_key": "protein", "batch_key": "batch"}
    if name == "TOTALANVI":
        setup |= {"labels_key": "seen", "unlabeled_category": "unknown"}
    cls = {"TOTALVI": TOTALVI, "TOTALANVI": TOTALANVI}[name]
    cls.setup_anndata(adata, **setup)
    model = cls(adata)
    start = time.perf_counter()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    seconds = time.perf_counter() - start
    z_nk, kind = model.get_latent_representation(), adata.obs["type"].cat.codes.to_numpy()
    neighbours = KNeighborsClassifier(15)
    probability = model.get_protein_foreground_probability(n_samples=5, return_numpy=True, seed=0)
    known = {
        "training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "ELBO": float(model.get_elbo(indices=model.validation_indices, seed=0)),
        "ARI of k-means": common.types_by_k_means(z_nk, kind),
        "AUROC of foreground": float(roc_auc_score(adata.obsm["foreground"].ravel(), probability.ravel())),
        "types by neighbours": float(cross_val_score(neighbours, z_nk, kind, cv=5).mean()),
        "batch by neighbours": float(cross_val_score(neighbours, z_nk, adata.obs["batch"], cv=5).mean()),
    }
    if name == "TOTALANVI":
        hidden = (adata.obs["seen"] == "unknown").to_numpy()
        known["accuracy on hidden labels"] = float((model.predict() == adata.obs["type"])[hidden].mean())
    return known


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["TOTALVI", "TOTALANVI"])
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--genes", type=int, default=150)
    parser.add_argument("--proteins", type=int, default=12)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--recipe")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--missing", type=int, default=0, help="proteins that one batch lacks")
    parser.add_argument("--plan", default="", help="further settings of the plan, name=value,...")
    asked = parser.parse_args()
    sizes = (asked.cells, asked.genes, asked.proteins)
    options: dict[str, Any] = {"max_epochs": asked.epochs, "recipe": asked.recipe}
    plan = common.settings_of(asked.plan) | ({"lr": asked.lr} if asked.lr else {})
    options["plan_kwargs"] = plan or None
    report = common.Report("cite_seq", asked.dry)
    for name in asked.models:
        runs = []
        for seed in range(asked.seeds):
            adata = simulate_cite_seq(*sizes, seed=seed)
            hide_proteins(adata, asked.missing)
            runs.append(figures(name, adata, seed, options))
        size = f"{asked.cells} x ({asked.genes} + {asked.proteins}"
        size += f", {asked.missing} missing in a batch)" if asked.missing else ")"
        report.add_runs(f"{name}, {size}, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
