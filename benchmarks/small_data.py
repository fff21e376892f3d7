"""Whether the default recipe holds on real data that are small, deep or shallow: ``default`` against ``classic``.

``python -m benchmarks.small_data FOLDER [--data FOLDER] [--sets NAME ...] [--cells N ...] [--depths N ...]``

Both train on the same cells of the same split with one thread. Each run is a line of ``FOLDER/small_data.jsonl``; those
that are there are not done again, so the script can be stopped at any time. The table is printed at the end, or at once
with ``--table``. A depth of 0 is that of the data; another draws counts as ``Poisson(k x counts)``, k such that the
median cell has that many. Seconds are of processor time, which other programs on the machine bear on less.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from celbo.dataloaders import split_indices
from celbo.model import SCVI
from celbo.report.metrics import batch_mixing, knn_label_accuracy

SHARED = Path(os.environ.get("CELBO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS: dict[str, tuple[str | None, str | None]] = {
    "batches_celllines_3plates": ("cell_line", "batch"),
    "mixtures_9cells_reference": ("cell_line", None),
    "samples_worm_embryo": ("cell.type", "batch"),
    "sorted_pbmc_3500": ("sorted_label", None),
    "spatial_breast_4slices": (None, "slice"),
    "systems_celllines_2tech": ("cell_line", "technology"),
    "trajectory_paul15": ("lineage", None),
    "perturb_thp1_eccite": (None, None),
}
"""Data: column of labels, column of batches."""
RECIPES = ("classic", "default")
N_GENES = 1000
WORSE = {"elbo": 0.003, "labels": 0.02, "mixing": 0.05, "seconds": 1 / 3}
"""What a row may be worse by (the ELBO as a share), and the share of the seconds."""
DIGITS = {"elbo": 1, "labels": 3, "mixing": 3, "seconds": 1}


class Case(NamedTuple):
    """Data cut to some cells (0: all) and drawn to some depth (0: as it is)."""

    name: str
    n_cells: int
    depth: int


def load(case: Case, folder: Path) -> anndata.AnnData:
    """The cut, the genes that vary most over their mean, with ``label`` and ``batch`` in obs."""
    data = anndata.read_h5ad(folder / f"{case.name}.h5ad")
    rng = np.random.default_rng(0)
    if 0 < case.n_cells < data.n_obs:
        data = data[np.sort(rng.choice(data.n_obs, case.n_cells, replace=False))].copy()
    x_ng = sp.csr_matrix(data.X, dtype=np.float64)
    mean_g = np.asarray(x_ng.mean(0)).ravel()
    ratio_g = (np.asarray(x_ng.multiply(x_ng).mean(0)).ravel() - mean_g**2) / np.maximum(mean_g, 1e-9)
    genes = np.argsort(-ratio_g)[:N_GENES]
    x_ng = x_ng[:, np.sort(genes[mean_g[genes] > 0])]
    if case.depth:
        x_ng.data = rng.poisson(x_ng.data * case.depth / np.median(np.asarray(x_ng.sum(1)))).astype(float)
        x_ng.eliminate_zeros()
    label, batch = SETS[case.name]
    obs = pd.DataFrame(index=[f"c{i}" for i in range(data.n_obs)])
    if label is not None:
        obs["label"] = data.obs[label].astype(str).to_numpy()
    obs["batch"] = "all" if batch is None else data.obs[batch].astype(str).to_numpy()
    return anndata.AnnData(x_ng.astype(np.float32), obs=obs)


def label_accuracy(latent_nk: np.ndarray, labels: np.ndarray, n_folds: int = 5) -> float:
    """Share of all cells whose 15 nearest neighbours in the other folds name their label."""
    order = np.random.default_rng(0).permutation(len(labels))
    folds = np.array_split(order, n_folds)
    right = [knn_label_accuracy(latent_nk, labels, np.setdiff1d(order, fold), fold) * len(fold) for fold in folds]
    return sum(right) / len(labels)


def run(data: anndata.AnnData, recipe: str, seed: int) -> dict[str, float]:
    """Train once; figures of the trained model, and the best ELBO on the way."""
    has_batches = len(np.unique(data.obs["batch"])) > 1
    SCVI.setup_anndata(data, batch_key="batch" if has_batches else None)
    parts = split_indices(data.n_obs, 0.9, None, True, seed)
    sets = [parts.train, parts.validation, parts.test]
    model = SCVI(data)
    began = time.process_time()
    model.train(
        recipe=None if recipe == "default" else recipe,
        seed=seed,
        verbose=0,
        accelerator="cpu",
        datasplitter_kwargs={"external_indexing": sets},
    )
    figures = {"seconds": time.process_time() - began}
    curve = model.history["elbo_validation"].to_numpy().ravel()
    figures |= {"elbo": _elbo(model, sets[1]), "best_elbo": float(curve.min()), "epochs": len(curve)}
    latent_nk = model.get_latent_representation()
    if "label" in data.obs:
        figures["labels"] = label_accuracy(latent_nk, data.obs["label"].to_numpy())
    if has_batches:
        figures["mixing"] = float(batch_mixing(latent_nk, data.obs["batch"].to_numpy()).foreign_share)
    return figures


def _elbo(model: SCVI, rows: np.ndarray, n_times: int = 5) -> float:
    """Negative ELBO of the final weights, averaged over draws."""
    return -statistics.fmean(float(model.get_elbo(indices=rows, seed=i)) for i in range(n_times))


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Cuts of all sets at all depths, then the whole sets as they are."""
    for n_cells in options.cells:
        for depth in options.depths:
            yield from (Case(name, n_cells, depth) for name in options.sets)


def done_in(path: Path) -> dict[tuple[Case, str, int], dict[str, Any]]:
    """Figures by (case, recipe, seed)."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(Case(*row["case"]), row["recipe"], row["seed"]): row for row in rows}


def table(done: dict[tuple[Case, str, int], dict[str, Any]]) -> Iterator[str]:
    """One line a case: medians over the seeds that both have, ``classic`` first."""
    yield "| data, cells, counts a cell: `classic`, then default | validation ELBO | labels | mixing | seconds | |"
    yield "|---|---|---|---|---|---|"
    for case in dict.fromkeys(case for case, _, _ in done):
        seeds = [s for c, recipe, s in done if c == case and recipe == "default" and (case, "classic", s) in done]
        if not seeds:
            continue
        cells, faults = [], []
        for figure in DIGITS:
            if figure not in done[case, "default", seeds[0]]:
                cells.append("")
                continue
            old, new = (statistics.median(done[case, side, s][figure] for s in seeds) for side in RECIPES)
            digits = DIGITS[figure]
            cells.append(f"{old:.{digits}f}, {new:.{digits}f}")
            faults += [figure] if is_worse(figure, old, new) else []
        size = f"{case.n_cells or 'all'}, {case.depth or 'own'}"
        yield f"| {case.name}, {size} | {' | '.join(cells)} | {', '.join(faults) or 'holds'} |"


def is_worse(figure: str, old: float, new: float) -> bool:
    """Whether a median of the default is worse than of ``classic`` by more than it may be."""
    limit = WORSE[figure]
    if figure == "elbo":
        return new > old + limit * abs(old)
    return new > limit * old if figure == "seconds" else new < old - limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the results; made where it is not there")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the h5ad files")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--cells", type=int, nargs="+", default=[50, 100, 200, 400, 0], help="0: all of them")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 200_000], help="counts a cell; 0: the data's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no run after that")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "small_data.jsonl"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not options.table:
        fill(path, options)
    print("\n".join(table(done_in(path))))


def fill(path: Path, options: argparse.Namespace) -> None:
    """Do what is not done yet, a line a run: all cases with one seed, then with the next; whole sets with the first."""
    stop_at = time.monotonic() + 60 * options.minutes
    done = done_in(path)
    wanted = [
        (case, seed) for seed in options.seeds for case in cases(options) if case.n_cells or seed == options.seeds[0]
    ]
    for case, seed in wanted:
        sides = [side for side in RECIPES if (case, side, seed) not in done]
        data = load(case, options.data) if sides else None
        for side in sides:
            if time.monotonic() > stop_at:
                return
            row = {"case": list(case), "recipe": side, "seed": seed} | run(data, side, seed)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
