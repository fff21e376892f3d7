"""Models of open chromatin on peaks of known types: do they find them, how open, how deep; and on two cell lines.

``python -m benchmarks.accessibility [--lines atac_gm_h1.h5ad] [--wide 0.5] [--models PEAKVI POISSONVI] [--lr LR]
[--epochs N] [--recipe NAME] [--seeds 3] [--first-seed 0]``, or
``python -m benchmarks.accessibility --beside [training step memory] [--peer PYTHON]`` for PEAKVI beside scvi-tools.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.dataloaders import split_indices
from celbo.external import POISSONVI
from celbo.model import PEAKVI
from celbo.report.metrics import batch_mixing

from . import common
from .small_data import label_accuracy

MODELS = {"PEAKVI": PEAKVI, "POISSONVI": POISSONVI}


def simulate_peaks(
    n_cells: int = 600,
    n_peaks: int = 500,
    n_types: int = 4,
    n_batches: int = 2,
    seed: int = 0,
    differing: float = 0.5,
    density: float | None = None,
) -> anndata.AnnData:
    r"""Fragments in peaks, :math:`x_{ng} \sim \mathrm{Poisson}(-\log(1 - p_{t_n g}\, d_n))`.

    So a peak is seen to be open with the probability :math:`p_{tg}\, d_n`, of the cell's type and its depth.

    Parameters
    ----------
    n_cells, n_peaks, n_types, n_batches
        How many.
    seed
        Of everything.
    differing
        Share of the peaks that types differ in.
    density
        Share of the peaks that a cell is seen to have open, on average; None: what depths of 0.3 to 0.9 give.

    Returns
    -------
    ``obs``: ``type``, ``batch``, ``depth``; ``layers["p"]``: the probability that the peak is open, ``(n, g)``.
    """
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(n_types, size=n_cells), rng.integers(n_batches, size=n_cells)
    p_tg = np.where(
        rng.random(n_peaks) < differing, rng.beta(0.5, 1.5, (n_types, n_peaks)), rng.beta(0.5, 1.5, n_peaks)
    )
    p_ng = p_tg[kind] * rng.uniform(0.7, 1, size=(n_batches, n_peaks))[batch]
    depth_n = rng.uniform(0.3, 0.9, size=n_cells)
    depth_n *= 1 if density is None else density / (p_ng * depth_n[:, None]).mean()
    x_ng = rng.poisson(-np.log1p(-p_ng * depth_n[:, None])).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(x_ng))
    adata.layers["p"] = p_ng
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{k}" for k in batch])
    adata.obs["depth"] = depth_n
    return adata


def trained(name: str, adata: anndata.AnnData, seed: int, options: dict[str, Any]) -> tuple[Any, float]:
    """A model and the seconds that its training took."""
    cls = MODELS[name]
    cls.setup_anndata(adata, batch_key="batch" if "batch" in adata.obs else None)
    model = cls(adata)
    start = time.perf_counter()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    return model, time.perf_counter() - start


def simulated(name: str, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures on simulated peaks."""
    adata = simulate_peaks(seed=seed)
    model, seconds = trained(name, adata, seed, options)
    kind = adata.obs["type"].cat.codes.to_numpy()
    value_ng = model.get_normalized_accessibility(return_numpy=True)
    if name == "POISSONVI":
        value_ng = model.get_normalized_accessibility(return_numpy=True, normalize_regions=True, n_samples=10)
    return {
        "training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "ARI of k-means": common.types_by_k_means(model.get_latent_representation(), kind),
        "correlation of accessibility": float(np.corrcoef(value_ng.ravel(), adata.layers["p"].ravel())[0, 1]),
        "correlation of depth": float(np.corrcoef(model.get_library_size_factors(), adata.obs["depth"])[0, 1]),
    }


def cell_lines(name: str, seed: int, options: dict[str, Any], path: str) -> dict[str, float]:
    """Share of the 5 nearest neighbours in the latent space that are of the cell's own line."""
    adata = anndata.read_h5ad(path)
    model, seconds = trained(name, adata, seed, options)
    z_nk, kind = model.get_latent_representation(), adata.obs["Cell_Type"].to_numpy()
    distance_nn = ((z_nk[:, None] - z_nk) ** 2).sum(-1)
    np.fill_diagonal(distance_nn, np.inf)
    near = kind[np.argsort(distance_nn, 1)[:, :5]]
    majority = (near == kind[:, None]).mean(1) > 0.5
    return {"training, s": seconds, "accuracy of 5 neighbours": float(majority.mean())}


def wide(name: str, seed: int, options: dict[str, Any], differing: float) -> dict[str, float]:
    """Share of cells whose type their 15 nearest neighbours name, on 2,000 cells x 20,000 peaks at 2% density."""
    adata = simulate_peaks(2000, 20_000, 8, seed=seed, differing=differing, density=0.02)
    model, seconds = trained(name, adata, seed, options)
    z_nk, kind = model.get_latent_representation(), adata.obs["type"].to_numpy()
    return {
        "training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "validation ELBO": float(model.history["elbo_validation"].min().iloc[0]),
        "accuracy of 15 neighbours": label_accuracy(z_nk, kind),
        "batch mixing": float(batch_mixing(z_nk, adata.obs["batch"].to_numpy()).foreign_share),
    }


def beside(peer: str | None, report: common.Report, what: list[str], seed: int) -> None:
    """PEAKVI beside scvi-tools: defaults on 2,000 cells x 20,000 peaks; a step and memory on 5,000 x 50,000."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "training" in what:
            _trainings(peer, report, folder, seed)
        simulate_peaks(5000, 50_000, 8, seed=seed, density=0.02).write_h5ad(folder / "wide.h5ad")
        case, task = (
            "PEAKVI, 5000 x 50000",
            {"class": "PEAKVI", "data": str(folder / "wide.h5ad"), "batch_key": "batch"},
        )
        classic = {"celbo": {"recipe": "classic"}}
        if "step" in what:
            sides = common.both_sides(peer, {**task, **classic, "measure": "step", "epochs": 3})
            rates = {tool: result["cells_per_second"] for tool, result in sides.items()}
            report.add(case, "training", "cells/s", rates)
        if "memory" in what:
            sides = common.both_sides(peer, {**task, **classic, "measure": "memory"})
            over = {tool: result["peak_mb"] - result["before_mb"] for tool, result in sides.items()}
            report.add(case, "training over data", "MB", over, higher_is_better=False)


def _trainings(peer: str | None, report: common.Report, folder: Path, seed: int) -> None:
    adata = simulate_peaks(2000, 20_000, 8, seed=seed, density=0.02)
    adata.write_h5ad(folder / "data.h5ad")
    parts = split_indices(adata.n_obs, 0.9, None, True, seed)
    np.savez(folder / "split.npz", train=parts.train, validation=parts.validation, test=parts.test)
    task = {"measure": "training", "class": "PEAKVI", "data": str(folder / "data.h5ad"), "batch_key": "batch"}
    task |= {"split": str(folder / "split.npz"), "latent": str(folder / "latent.npy"), "seed": seed}
    case, figures = "PEAKVI, 2000 x 20000, defaults", {}
    for tool, python in {"scvi-tools": peer, "celbo": sys.executable}.items():
        if python is None:
            continue
        found = common.run_side(tool, python, task)
        z_nk = np.load(folder / "latent.npy")
        figures[tool] = {
            "whole training": found["seconds"],
            "to its best ELBO": found["epoch_seconds"][int(np.argmin(found["elbo_validation"]))],
            "best validation ELBO": min(found["elbo_validation"]),
            "accuracy of 15 neighbours": label_accuracy(z_nk, adata.obs["type"].to_numpy()),
            "batch mixing": float(batch_mixing(z_nk, adata.obs["batch"].to_numpy()).foreign_share),
        }
        if tool == "celbo" and peer is not None:
            best = figures["scvi-tools"]["best validation ELBO"]
            at = [s for s, elbo in zip(found["epoch_seconds"], found["elbo_validation"], strict=True) if elbo <= best]
            figures[tool]["to scvi-tools' best ELBO"] = at[0] if at else float("nan")
            figures["scvi-tools"]["to scvi-tools' best ELBO"] = figures["scvi-tools"]["to its best ELBO"]
    for figure in figures["celbo"]:
        values = {tool: [row[figure]] for tool, row in figures.items()}
        report.add(case, figure, _UNITS.get(figure, "s"), values, higher_is_better=figure in _MORE_IS_BETTER)


_MORE_IS_BETTER = ("accuracy of 15 neighbours", "batch mixing")
_UNITS = {"best validation ELBO": "nats", "accuracy of 15 neighbours": "share", "batch mixing": "share of chance"}


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--lines", help="atac_gm_h1.h5ad")
    parser.add_argument("--wide", type=float, nargs="*", default=[], help="shares of the peaks that types differ in")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--plan", default="", help="further settings of the plan, name=value,...")
    parser.add_argument("--beside", nargs="*", choices=("training", "step", "memory"), help="PEAKVI beside scvi-tools")
    given = parser.parse_args()
    if given.beside is not None:
        report = common.Report("accessibility", given.dry)
        beside(given.peer, report, given.beside or ["training", "step", "memory"], given.first_seed)
        report.write()
        return
    options = common.training_options(given, lr=given.lr)
    options["plan_kwargs"] = common.settings_of(given.plan)
    report = common.Report("accessibility", given.dry)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for name in given.models:
        cases = {"600 x 500": [simulated(name, seed, options) for seed in seeds]}
        for differing in given.wide:
            case = f"2000 x 20000, types differ in {differing:g}"
            cases[case] = [wide(name, seed, options, differing) for seed in seeds]
        if given.lines:
            cases["two cell lines"] = [cell_lines(name, seed, options, given.lines) for seed in seeds]
        for case, runs in cases.items():
            report.add_runs(f"{name}, {case}, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
