"""MRVI on simulated samples of known truth: do two groups of samples differ in the one cell type in which they do?

``python -m benchmarks.samples [--seeds 3] [--recipe NAME] [--epochs N] [--plan name=value,...]``

``--mapped`` leaves one sample of each group out and maps it onto the others by ``load_query_data``;
``--memory [--peer PYTHON]`` measures what training needs beyond data, weights, gradients and moments.
"""

import tempfile
import time
from pathlib import Path
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


_LEFT_OUT = ("sample_3", "sample_7")


def mapped(seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Distances of new samples to the other group over those to their own, in the type that differs."""
    adata = simulate_samples(seed=seed)
    adata.obs["sample"] = adata.obs["sample"].astype(str)
    is_new = adata.obs["sample"].isin(_LEFT_OUT).to_numpy()
    known, new = adata[~is_new].copy(), adata[is_new].copy()
    MRVI.setup_anndata(known, sample_key="sample", batch_key="batch")
    reference = MRVI(known)
    reference.train(**options)
    model = MRVI.load_query_data(new, reference)
    model.train(seed=seed, verbose=0)
    table = model.get_local_sample_distances(adata.copy(), groupby="type", keep_cell=False)["type"]
    first_ss, names = table.sel(type_name="type_0").values, [str(name) for name in table.sample_x.values]
    group_s = np.array([int(name[-1]) >= 4 for name in names])
    ratio = {}
    for name in _LEFT_OUT:
        row, own = names.index(name), group_s == group_s[names.index(name)]
        near = own & (np.arange(len(names)) != row)
        ratio[f"other group over own, {name}"] = float(first_ss[row, ~own].mean() / first_ss[row, near].mean())
    return ratio


def memory(report: common.Report, peer: str | None) -> None:
    """What two epochs need beyond data, weights, gradients and moments, where code has to be loaded and where not."""
    n_cells, n_genes = 5000, 2000
    with tempfile.TemporaryDirectory() as folder:
        simulate_samples(n_cells, n_genes, n_samples=20).write_h5ad(path := Path(folder) / "samples.h5ad")
        setup = {"batch_key": "batch", "setup": {"sample_key": "sample"}}
        task = {"class": "MRVI", "data": str(path), **setup, "train_size": 0.9}
        common.report_memory(report, f"MRVI, {n_cells} x {n_genes}, 20 samples", task, peer)


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--plan", default="", help="settings of the plan, name=value,...")
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    report = common.Report("samples", given.dry)
    if given.memory:
        memory(report, given.peer)
        report.write()
        return
    options = common.training_options(given)
    options["plan_kwargs"] = common.settings_of(given.plan)
    measured, what = (mapped, ", two samples mapped") if given.mapped else (figures, "")
    runs = [measured(seed, {**options, "seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report.add_runs(f"MRVI, 600 x 150{what}, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
