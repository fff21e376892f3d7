"""Wall time to the best validation ELBO that scvi-tools reaches with its defaults, same split; quality of the latents.

``python -m benchmarks.time_to_elbo --data pbmc.h5ad --label cell_type [--seeds 0 1 2] [--peer PYTHON]``, or
``--simulate CELLS``.

Both tools validate every epoch; the time that scvi-tools spends on it is reported beside. Quality is computed here
for both, from
the latent spaces alone: label accuracy of 15 nearest neighbours (training cells vote, validation cells are scored),
batch mixing.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from celbo.dataloaders import split_indices
from celbo.report.metrics import batch_mixing, knn_label_accuracy

from . import common


def prepared(options, folder: Path) -> tuple[Path, np.ndarray, np.ndarray | None]:
    """The data as an h5ad, labels and batches."""
    from celbo.data import read, simulate_counts, top_variable_genes

    path = folder / "data.h5ad"
    if options.simulate:
        adata = simulate_counts(options.simulate, options.genes, n_batches=8, n_cell_types=12, seed=0)
        label, batch = "cell_type", "batch"
    else:
        adata, label, batch = read(options.data), options.label, options.batch_key
        adata = adata[:, top_variable_genes(adata.X, options.genes)].copy()
    adata.write_h5ad(path)
    return (
        path,
        adata.obs[label].to_numpy().astype(str),
        None if batch is None else adata.obs[batch].to_numpy().astype(str),
    )


def quality(latent: np.ndarray, labels, batches, split) -> dict[str, float]:
    """Label accuracy and batch mixing of a latent space."""
    figures = {"label_accuracy": knn_label_accuracy(latent, labels, split["train"], split["validation"])}
    if batches is not None:
        figures["batch_mixing"] = float(batch_mixing(latent, batches).foreign_share)
    return figures


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default=None)
    parser.add_argument("--simulate", type=int, default=0)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--label", default="cell_type")
    parser.add_argument("--batch-key", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--curves", default=None, help="write the curves of the first seed as JSON")
    options = parser.parse_args()
    report = common.Report("time_to_elbo", options.dry)
    case = f"simulated {options.simulate}" if options.simulate else Path(options.data).stem
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, labels, batches = prepared(options, folder)
        found: dict[str, dict[str, list]] = {}
        for seed in options.seeds:
            parts = split_indices(len(labels), 0.9, None, True, seed)
            split = {"train": parts.train, "validation": parts.validation, "test": parts.test}
            np.savez(folder / "split.npz", **split)
            task = {
                "measure": "training",
                "data": str(data),
                "split": str(folder / "split.npz"),
                "latent": str(folder / "latent.npy"),
                "seed": seed,
                "batch_key": "batch" if options.simulate else options.batch_key,
            }
            sides = {}
            for tool, python in (("scvi-tools", options.peer), ("celbo", common.sys.executable)):
                if python is not None:
                    sides[tool] = common.run_side(tool, python, task)
                    sides[tool] |= quality(np.load(folder / "latent.npy"), labels, batches, split)
            add_times(sides)
            for tool, side in sides.items():
                for figure, value in side.items():
                    found.setdefault(figure, {}).setdefault(tool, []).append(value)
            if options.curves and seed == options.seeds[0]:
                Path(options.curves).write_text(json.dumps(sides))
    for figure, unit, higher in FIGURES:
        if figure in found:
            report.add(case, figure, unit, found[figure], higher_is_better=higher)
    report.write()


FIGURES = (
    ("seconds_to_peer_best", "s", False),
    ("seconds", "s", False),
    ("validation_seconds", "s", False),
    ("best_elbo", "nats", False),
    ("last_elbo", "nats", False),
    ("label_accuracy", "share", True),
    ("batch_mixing", "of chance", True),
)


def add_times(sides: dict[str, dict]) -> None:
    """When each tool's validation ELBO was first as good as the best of scvi-tools."""
    for side in sides.values():
        side["best_elbo"], side["last_elbo"] = min(side["elbo_validation"]), side["elbo_validation"][-1]
    target = sides["scvi-tools"]["best_elbo"] if "scvi-tools" in sides else sides["celbo"]["best_elbo"]
    for side in sides.values():
        reached = [t for t, elbo in zip(side["epoch_seconds"], side["elbo_validation"]) if elbo <= target]
        side["seconds_to_peer_best"] = reached[0] if reached else float("nan")


if __name__ == "__main__":
    main()
