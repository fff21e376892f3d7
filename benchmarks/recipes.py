"""What the default recipe costs in quality: against the classic one, and against scvi-tools, on data nobody tuned on.

``python -m benchmarks.recipes [--cases NAME ...] [--seeds 10 11 12] [--peer PYTHON]``

Each seed draws other cells, other cell types and another split. Times are not reported: see ``time_to_elbo``.
"""

import tempfile
from pathlib import Path

import numpy as np

from celbo.dataloaders import split_indices
from celbo.report.metrics import batch_mixing, graph_connectivity, knn_label_accuracy, nmi_ari

from . import common

CASES: dict[str, tuple[dict, dict]] = {
    "300 cells, 500 genes": ({"n_cells": 300, "n_genes": 500, "n_batches": 1}, {}),
    "1 batch, nb": ({"n_cells": 2500, "n_genes": 800, "n_batches": 1}, {"gene_likelihood": "nb"}),
    "5 batches, zinb": ({"n_cells": 5000, "n_genes": 2000, "n_batches": 5, "likelihood": "zinb"}, {}),
    "3 batches, poisson": ({"n_cells": 3000, "n_genes": 1000, "n_batches": 3}, {"gene_likelihood": "poisson"}),
    "20,000 genes": ({"n_cells": 2000, "n_genes": 20_000, "n_batches": 2, "median_library": 4000.0}, {}),
    "50 batches": ({"n_cells": 8000, "n_genes": 1000, "n_batches": 50}, {}),
    "deep and wide": (
        {"n_cells": 4000, "n_genes": 1000, "n_batches": 4},
        {"n_layers": 3, "n_hidden": 256, "n_latent": 30},
    ),
    "weak types, strong batches": (
        {"n_cells": 4000, "n_genes": 1000, "n_batches": 4, "marker_strength": 0.7, "batch_strength": 0.6},
        {},
    ),
    "20,000 cells, 10 batches": ({"n_cells": 20_000, "n_genes": 1000, "n_batches": 10, "n_cell_types": 12}, {}),
}

FIGURES = (
    ("best_elbo", "nats", False),
    ("label_accuracy", "share", True),
    ("batch_mixing", "of chance", True),
    ("graph_connectivity", "share", True),
    ("nmi", "share", True),
    ("ari", "share", True),
    ("active_dimensions", "count", True),
)


def quality(latent_nk: np.ndarray, labels: np.ndarray, batches: np.ndarray, split: dict) -> dict[str, float]:
    """Figures of a latent space; a dimension is active when the posterior means vary by more than 0.01."""
    nmi, ari = nmi_ari(latent_nk, labels)
    figures = {
        "label_accuracy": knn_label_accuracy(latent_nk, labels, split["train"], split["validation"]),
        "graph_connectivity": graph_connectivity(latent_nk, labels),
        "nmi": nmi,
        "ari": ari,
        "active_dimensions": float((latent_nk.var(0) > 0.01).sum()),
    }
    if len(np.unique(batches)) > 1:
        figures["batch_mixing"] = float(batch_mixing(latent_nk, batches).foreign_share)
    return figures


def run_case(name: str, seed: int, sides: dict[str, tuple[str, str, dict]], folder: Path) -> dict[str, dict]:
    """Train each side on the same cells and split."""
    from celbo.data import simulate_counts

    simulation, model = CASES[name]
    adata = simulate_counts(**{"n_cell_types": 8, **simulation}, seed=seed)
    labels, batches = (adata.obs[key].to_numpy().astype(str) for key in ("cell_type", "batch"))
    adata.write_h5ad(folder / "data.h5ad")
    parts = split_indices(len(labels), 0.9, None, True, seed)
    split = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    np.savez(folder / "split.npz", **split)
    task = {"measure": "training", "seed": seed, "batch_key": "batch", "model": model}
    task |= {"data": str(folder / "data.h5ad"), "split": str(folder / "split.npz"), "latent": str(folder / "z.npy")}
    found = {}
    for side, (tool, python, more) in sides.items():
        result = common.run_side(tool, python, task | more)
        found[side] = quality(np.load(folder / "z.npy"), labels, batches, split)
        found[side]["best_elbo"] = min(result["elbo_validation"])
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--recipes", nargs="+", default=["classic", "one_cycle"])
    options = parser.parse_args()
    report = common.Report("recipes", options.dry)
    sides = {name: ("celbo", common.sys.executable, {"celbo": {"recipe": name}}) for name in options.recipes}
    if options.peer:
        sides["scvi-tools"] = ("scvi-tools", options.peer, {})
    for name in options.cases:
        found: dict[str, dict[str, list]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seed in options.seeds:
                for side, figures in run_case(name, seed, sides, Path(folder)).items():
                    for figure, value in figures.items():
                        found.setdefault(figure, {}).setdefault(side, []).append(value)
        for figure, unit, higher in FIGURES:
            if figure in found:
                report.add(name, figure, unit, found[figure], higher_is_better=higher)
    report.write()


if __name__ == "__main__":
    main()
