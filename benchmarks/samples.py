"""MRVI on simulated samples of known truth: do two groups of samples differ in the one cell type in which they do?

``python -m benchmarks.samples [--seeds 3] [--recipe NAME] [--epochs N] [--plan name=value,...]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.external import MRVI

from . import common


def simulate_samples(
    n_cells: int = 600,
    n_genes: int = 150,
    n_types: int = 4,
    n_batches: int = 2,
    n_samples: int = 8,
    n_different: int = 25,
    seed: int = 0,
) -> anndata.AnnData:
    r"""Counts of cells of samples in two groups, :math:`x_{ng} \sim \mathrm{NB}(\ell_n\,\rho_{ng}, 5)`.

    Profiles are those of the cell's type, times those of its batch; in the second half of the samples
    ``n_different`` genes of the first type are e times as high. All else is the same in all samples.

    Parameters
    ----------
    n_cells, n_genes, n_types, n_batches, n_samples, n_different
        How many.
    seed
        Of everything.

    Returns
    -------
    ``obs``: ``type``, ``batch``, ``sample``, ``group``; ``uns["different"]``: the genes, as numbers.
    """
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(n_types, size=n_cells), rng.integers(n_batches, size=n_cells)
    sample = rng.integers(n_samples, size=n_cells)
    group = (sample >= n_samples // 2).astype(int)
    profile_tg = rng.gamma(1.0, size=n_genes) * np.exp(rng.normal(0, 1, (n_types, n_genes)))
    profile_ng = profile_tg[kind] * np.exp(rng.normal(0, 0.2, (n_batches, n_genes)))[batch]
    different = rng.choice(n_genes, n_different, replace=False)
    profile_ng[np.ix_((kind == 0) & (group == 1), different)] *= np.e
    profile_ng /= profile_ng.sum(1, keepdims=True)
    library_n = np.exp(rng.normal(np.log(1000), 0.3, n_cells))
    x_ng = rng.poisson(rng.gamma(5.0, library_n[:, None] * profile_ng / 5.0)).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(x_ng))
    for name, code in (("type", kind), ("batch", batch), ("sample", sample), ("group", group)):
        adata.obs[name] = pd.Categorical([f"{name}_{k}" for k in code])
    adata.uns["different"] = different
    return adata


def between_over_within(distance_ss: np.ndarray, group_s: np.ndarray) -> float:
    """Mean distance of samples of different groups over that of different samples of the same group."""
    same_ss = group_s[:, None] == group_s
    return float(distance_ss[~same_ss].mean() / distance_ss[same_ss & ~np.eye(len(group_s), dtype=bool)].mean())


def ratios(table_tss: Any, group_s: np.ndarray) -> tuple[float, float]:
    """:func:`between_over_within` in the first type, and the mean of the others'."""
    each = {str(t): between_over_within(table_tss.sel(type_name=t).values, group_s) for t in table_tss.type_name.values}
    first = each.pop("type_0")
    return first, float(np.mean(list(each.values())))


def figures(seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training."""
    adata = simulate_samples(seed=seed)
    MRVI.setup_anndata(adata, sample_key="sample", batch_key="batch")
    model = MRVI(adata)
    start = time.perf_counter()
    model.train(**options)
    seconds = time.perf_counter() - start
    table = model.get_local_sample_distances(groupby="type", keep_cell=False)["type"]
    group_s = (np.arange(8) >= 4).astype(int)
    first, others = ratios(table, group_s)
    u_nk, kind, sample = model.get_latent_representation(), adata.obs["type"].cat.codes, adata.obs["sample"].cat.codes
    return {
        "training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "between over within, type that differs": first,
        "between over within, others": others,
        "ARI of k-means on u": common.types_by_k_means(u_nk, kind.to_numpy()),
        "accuracy of 15 neighbours for the sample": common.neighbours_of_their_own(u_nk, sample.to_numpy()),
    }


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--plan", default="", help="settings of the plan, name=value,...")
    given = parser.parse_args()
    options: dict[str, Any] = {"recipe": given.recipe, "max_epochs": given.epochs}
    options = {name: value for name, value in options.items() if value is not None}
    options["plan_kwargs"] = common.settings_of(given.plan)
    runs = [figures(seed, {**options, "seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report = common.Report("samples", given.dry)
    report.add_runs(f"MRVI, 600 x 150, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
