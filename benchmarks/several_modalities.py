"""TOTALVI, TOTALANVI and MULTIVI beside scvi-tools at the sizes that people train: a default training, and its memory.

``python -m benchmarks.several_modalities [--models TOTALVI TOTALANVI MULTIVI] [--what training memory] [--scale 1]
[--peer PYTHON] [--peer-epochs 4]``

TOTALVI and TOTALANVI have 5,000 cells x (2,000 genes + 100 proteins), for the latter with four labels in five hidden,
MULTIVI 3,000 x (2,000 genes + 20,000 peaks, 2% of them open); ``--scale`` multiplies all of these. scvi-tools trains
for ``--peer-epochs`` epochs, the first of which does not count,
and their mean is multiplied by the epochs of its default: early stopping may make it end sooner, so that this is the
most that it takes. ``--peer-epochs 0`` trains it whole, as it must be to compare what is found.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from celbo.train.plans.schedules import max_epochs_classic

from . import common
from .cite_seq import simulate_cite_seq
from .multimodal import simulate_multiome

__all__ = ["Case", "case_of"]

_MULTIVI_EPOCHS = 500
_SHARE_HIDDEN = 0.8


class Case(NamedTuple):
    """A model, its data on disk, what is known of them, and how long scvi-tools trains by default."""

    name: str
    task: dict[str, Any]
    types_n: np.ndarray
    epochs: int


def case_of(model: str, folder: Path, scale: float, seed: int) -> Case:
    """Data written to a folder, and the task that is about them."""
    n_cells, n_genes, n_others = (round(scale * n) for n in _SIZES[model])
    name = f"{model}, {n_cells} x ({n_genes} + {n_others})"
    if model.startswith("TOTAL"):
        data = simulate_cite_seq(n_cells, n_genes, n_others, seed=seed)
        setup: dict[str, Any] = {"protein_expression_obsm_key": "protein"}
        if model == "TOTALANVI":
            is_hidden_n = np.random.default_rng(seed).random(n_cells) < _SHARE_HIDDEN
            data.obs["label"] = data.obs["type"].astype(str).where(~is_hidden_n, "unknown")
            setup |= {"labels_key": "label", "unlabeled_category": "unknown"}
        data.write_h5ad(path := folder / "cite.h5ad")
        epochs = max_epochs_classic(n_cells)
    else:
        data = simulate_multiome(n_cells, n_genes, n_others, seed=seed, shares=(1, 0, 0), density=0.02)
        del data.uns["rho"]
        data["rna"].obs["batch"] = data.obs["batch"]
        data.write_h5mu(path := folder / "multiome.h5mu")
        setup = {"modalities": {"rna_layer": "rna", "atac_layer": "peaks", "batch_key": "rna"}}
        epochs = _MULTIVI_EPOCHS
    task = {"class": model, "data": str(path), "batch_key": "batch", "setup": setup, "seed": seed}
    return Case(name, task, data.obs["type"].astype(str).to_numpy(), epochs)


_SIZES = {"TOTALVI": (5000, 2000, 100), "TOTALANVI": (5000, 2000, 100), "MULTIVI": (3000, 2000, 20_000)}


def training(case: Case, report: common.Report, peer: str | None, peer_epochs: int, folder: Path) -> None:
    """Seconds of a whole default training, and the types that are found; of scvi-tools as the options say."""
    task = case.task | {"measure": "training", "latent": str(folder / "latent.npy")}
    ours = common.run_side("celbo", common.sys.executable, task)
    found = {"celbo": common.types_by_k_means(np.load(folder / "latent.npy"), case.types_n)}
    seconds, how = {"celbo": ours["seconds"]}, "default training"
    if peer is not None:
        theirs = common.run_side(
            "scvi-tools", peer, task | {"scvi": {"max_epochs": peer_epochs} if peer_epochs else {}}
        )
        seconds["scvi-tools"] = theirs["seconds"]
        if peer_epochs:
            seconds["scvi-tools"] = case.epochs * float(np.diff(theirs["epoch_seconds"]).mean())
            how = f"default training (scvi-tools: {peer_epochs - 1} of {case.epochs} epochs, multiplied)"
        else:
            found["scvi-tools"] = common.types_by_k_means(np.load(folder / "latent.npy"), case.types_n)
    report.add(case.name, how, "s", {tool: [value] for tool, value in seconds.items()}, higher_is_better=False)
    report.add(case.name, "ARI of k-means", "", {tool: [value] for tool, value in found.items()})


def memory(case: Case, report: common.Report, peer: str | None) -> None:
    """What two epochs need beyond the data and the weights, and beyond gradients and moments too."""
    # scvi-tools refuses TOTALVI's rates, which wait for validation, where there is none
    common.report_memory(report, case.name, case.task | {"train_size": 0.9}, peer)


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(_SIZES), choices=list(_SIZES))
    parser.add_argument("--what", nargs="+", default=["training", "memory"], choices=["training", "memory"])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--peer-epochs", type=int, default=4, help="0: all of its default")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    report = common.Report("several_modalities", asked.dry)
    with tempfile.TemporaryDirectory() as name:
        for model in asked.models:
            case = case_of(model, Path(name), asked.scale, asked.seed)
            if "training" in asked.what:
                training(case, report, asked.peer, asked.peer_epochs, Path(name))
            if "memory" in asked.what:
                memory(case, report, asked.peer)
    report.write()


if __name__ == "__main__":
    main()
