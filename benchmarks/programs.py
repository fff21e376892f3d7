"""Factors of cells in which known programs are on or off, each whatever the others do: DRVI, and SCVI as the null.

``python -m benchmarks.programs [--models DRVI SCVI] [--cells N] [--latents N] [--epochs N] [--seeds N]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.external import DRVI
from celbo.model import SCVI

from . import common

__all__ = ["figures", "simulate_programs"]

_GENES_OF_ONE = 25


def simulate_programs(n_cells: int = 1000, n_genes: int = 300, n_programs: int = 6, seed: int = 0) -> anndata.AnnData:
    """Cells with 30% of the programs on, by different amounts, in two batches.

    Parameters
    ----------
    n_cells, n_genes, n_programs
        How many; a program raises 25 genes.
    seed
        Of everything.

    Returns
    -------
    ``obs["batch"]``; ``obsm["amount"]``, of each program in each cell; ``varm["gene"]``, which genes are of which.
    """
    rng = np.random.default_rng(seed)
    amount_np = (rng.random((n_cells, n_programs)) < 0.3) * rng.gamma(3, 1 / 3, (n_cells, n_programs))
    gene_pg = np.zeros((n_programs, n_genes), bool)
    for genes in gene_pg:
        genes[rng.choice(n_genes, _GENES_OF_ONE, replace=False)] = True
    batch_n = rng.integers(2, size=n_cells)
    rate_ng = rng.gamma(0.5, 1, n_genes) + amount_np @ (gene_pg * rng.gamma(2, 6, (n_programs, n_genes)))
    rate_ng *= np.exp(rng.normal(0, 0.3, (2, n_genes)))[batch_n]
    mean_ng = rng.lognormal(np.log(1500), 0.3, (n_cells, 1)) * rate_ng / rate_ng.sum(1, keepdims=True)
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(5, mean_ng / 5)).astype(np.float32)))
    adata.obs["batch"] = pd.Categorical([f"batch_{k}" for k in batch_n])
    adata.obsm["amount"], adata.varm["gene"] = amount_np, gene_pg.T
    return adata


def figures(name: str, adata: anndata.AnnData, seed: int, n_latent: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training."""
    cls = {"DRVI": DRVI, "SCVI": SCVI}[name]
    cls.setup_anndata(adata, batch_key="batch")
    model = cls(adata, n_latent=n_latent, **({"gene_likelihood": "nb"} if name == "SCVI" else {}))
    start = time.perf_counter()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    seconds, z_nk, amount_np = time.perf_counter() - start, model.get_latent_representation(), adata.obsm["amount"]
    side_ns = np.concatenate([np.maximum(z_nk, 0), np.maximum(-z_nk, 0)], 1)
    side_ns = side_ns[:, side_ns.std(0) > 1e-3]
    of_program_ps = np.corrcoef(amount_np.T, side_ns.T)[: amount_np.shape[1], amount_np.shape[1] :]
    result = {
        "training, s": seconds,
        "epochs": len(model.history["elbo_train"]),
        "best correlation of a program": float(of_program_ps.max(1).mean()),
        "programs above 0.9": float((of_program_ps.max(1) > 0.9).sum()),
    }
    if isinstance(model, DRVI):
        embed = model.get_embedding()
        model.calculate_interpretability_scores(embed, methods="ALL")
        for key in ("OOD", "IND"):
            scores = model.get_interpretability_scores(embed, key).to_numpy().T
            first = np.argsort(-scores, 1)[:, :_GENES_OF_ONE]
            share = adata.varm["gene"][first].mean(1)
            result[f"genes of a program among the first 25 of its best side, {key}"] = float(share.max(0).mean())
    return result


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["DRVI", "SCVI"])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--latents", type=int, default=32)
    given = parser.parse_args()
    options = common.training_options(given)
    report = common.Report("programs", given.dry)
    for name in given.models:
        seeds = range(given.seeds)
        runs = [figures(name, simulate_programs(given.cells, seed=s), s, given.latents, options) for s in seeds]
        report.add_runs(f"{name} {common.shown(options)}".strip(), runs)
    report.write()


if __name__ == "__main__":
    main()
