"""Every model beside scvi-tools' own: what shows that it works, and how long its training takes.

``python -m benchmarks.models --pbmc sorted_pbmc_3500.h5ad [--peer PYTHON] [--models NAME ...] [--page]``

``--page`` writes the table of ``docs/models.md`` from the last rows of ``results.csv``.
"""

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.data import read, simulate_counts, simulate_spots, top_variable_genes

from . import common

PAGE = common.HERE.parent / "docs" / "models.md"
COARSE = {"B": "B", "Mono": "Monocyte", "NK": "NK"}
"""Beginning of a short name of the sorted cells -> coarse label; all others are T cells."""

MARKERS = {
    "B": ("CD79A", "CD79B", "MS4A1"),
    "Monocyte": ("CD14", "LYZ", "S100A8", "FCGR3A"),
    "NK": ("NKG7", "GNLY", "GZMB"),
    "T": ("CD3D", "CD3E", "CD8A", "CD4", "IL7R"),
}


def few_labels(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """25 labelled cells of each type; accuracy on the others."""
    adata = pbmc[:, top_variable_genes(pbmc.X, 2000)].copy()
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    rng = np.random.default_rng(seed)
    seen = np.concatenate([rng.choice(np.flatnonzero(truth == name), 25, replace=False) for name in np.unique(truth)])
    adata.obs["seen_label"] = "Unknown"
    adata.obs.iloc[seen, adata.obs.columns.get_loc("seen_label")] = truth[seen]
    adata.write_h5ad(folder / "data.h5ad")
    hidden = np.setdiff1d(np.arange(len(truth)), seen)
    return {}, lambda found: {"accuracy on cells without label": float((found == truth)[hidden].mean())}


def sorted_cells(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """Sorted cells, of which the types are not told; how well the latents tell them."""
    adata = pbmc[:, top_variable_genes(pbmc.X, 2000)].copy()
    adata.write_h5ad(folder / "data.h5ad")
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    return {}, lambda found: {"neighbours of the same type": common.neighbours_of_their_own(found, truth)}


def zero_inflated(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """Half of the genes lose two counts in five; area under the curve of finding them."""
    from sklearn.metrics import roc_auc_score

    adata = simulate_counts(2000, 100, 4, 1, median_library=600.0, seed=seed)
    rng = np.random.default_rng(seed)
    inflated = rng.random(adata.n_vars) < 0.5
    dense = adata.X.toarray()
    dense[:, inflated] *= rng.random((adata.n_obs, inflated.sum())) > 0.4
    adata.X = sp.csr_matrix(dense)
    adata.write_h5ad(folder / "data.h5ad")
    return {}, lambda found: {"AUC of zero-inflated genes": float(roc_auc_score(inflated, found))}


def tissue(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """Spots of known mixture; correlation of the proportions."""
    cells = simulate_counts(1500, 300, 4, 1, median_library=900.0, marker_strength=2.0, seed=seed)
    spots = simulate_spots(cells, "cell_type", 300, capture_rate=0.1, seed=seed)
    cells.write_h5ad(folder / "data.h5ad")
    truth = spots.obsm["proportions"]
    truth = truth[sorted(truth.columns)].to_numpy()
    spots.obsm.clear()
    spots.write_h5ad(folder / "spots.h5ad")
    return {"spots": str(folder / "spots.h5ad")}, lambda found: {
        "correlation of proportions": float(np.corrcoef(found.ravel(), truth.ravel())[0, 1])
    }


def marker_genes(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """Fifteen marker genes; accuracy on coarse labels."""
    fine = pbmc.obs["cell_type"].astype(str)
    truth = np.array([next((label for start, label in COARSE.items() if name.startswith(start)), "T") for name in fine])
    genes = [gene for genes in MARKERS.values() for gene in genes]
    table = pd.DataFrame({label: [int(gene in own) for gene in genes] for label, own in MARKERS.items()}, index=genes)
    table.to_csv(folder / "markers.csv")
    pbmc.write_h5ad(folder / "data.h5ad")
    return {"markers": str(folder / "markers.csv")}, lambda found: {
        "accuracy on coarse labels": float((found == truth).mean())
    }


def doublets(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """One cell in six is the sum of two cells of different type; area under the curve of finding them."""
    from sklearn.metrics import roc_auc_score

    adata = pbmc[:, top_variable_genes(pbmc.X, 2000)].copy()
    rng, kind = np.random.default_rng(seed), adata.obs["cell_type"].to_numpy().astype(str)
    first, second = rng.integers(adata.n_obs, size=(2, 4 * adata.n_obs))
    pairs = np.flatnonzero(kind[first] != kind[second])[: adata.n_obs // 5]
    x = sp.vstack([adata.X, adata.X[first[pairs]] + adata.X[second[pairs]]]).tocsr()
    is_doublet = np.repeat([False, True], [adata.n_obs, len(pairs)])
    anndata.AnnData(x.astype(np.float32), var=adata.var).write_h5ad(folder / "data.h5ad")
    return {}, lambda found: {"AUC of doublets": float(roc_auc_score(is_doublet, found))}


def documents(pbmc: anndata.AnnData, seed: int, folder: Path) -> tuple[dict, Callable]:
    """Documents of five topics; correlation of each true topic with the nearest found."""
    rng = np.random.default_rng(seed)
    topic_tg = rng.dirichlet(np.full(400, 0.05), size=5)
    share_nt = rng.dirichlet(np.full(5, 0.2), size=2000)
    counts = rng.poisson(300 * (share_nt @ topic_tg))
    anndata.AnnData(sp.csr_matrix(counts.astype(np.float32))).write_h5ad(folder / "data.h5ad")

    def judge(found_gt: np.ndarray) -> dict[str, float]:
        correlations = np.corrcoef(topic_tg, found_gt.T)[:5, 5:]
        return {"correlation of topics": float(correlations.max(1).mean())}

    return {"topics": 5}, judge


CASES: dict[str, tuple[Callable, str]] = {
    "scanvi": (few_labels, "sorted PBMCs, 25 labelled cells a class"),
    "scanvi_from_scvi": (few_labels, "sorted PBMCs, 25 labelled cells a class"),
    "linear": (sorted_cells, "sorted PBMCs, 3,500 x 2,000 genes"),
    "autozi": (zero_inflated, "simulated, half of 100 genes zero-inflated"),
    "stereoscope": (tissue, "simulated spots of known mixture"),
    "destvi": (tissue, "simulated spots of known mixture"),
    "cellassign": (marker_genes, "sorted PBMCs, 15 marker genes"),
    "solo": (doublets, "sorted PBMCs and doublets of two types"),
    "lda": (documents, "documents of five topics"),
}
NAMES = {
    "scanvi": "SCANVI",
    "scanvi_from_scvi": "SCVI, then SCANVI",
    "linear": "LinearSCVI",
    "autozi": "AUTOZI",
    "stereoscope": "RNAStereoscope, SpatialStereoscope",
    "destvi": "CondSCVI, DestVI",
    "cellassign": "CellAssign",
    "solo": "SCVI, then SOLO",
    "lda": "AmortizedLDA",
}


def measure(model: str, pbmc: anndata.AnnData, seeds: list[int], peer: str | None) -> dict[str, dict[str, list]]:
    """``{figure: {tool: values}}`` of one model."""
    found: dict[str, dict[str, list]] = {}
    tools = {"scvi-tools": peer, "celbo": common.sys.executable}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            more, judge = CASES[model][0](pbmc, seed, folder)
            task = {"model": model, "seed": seed, "data": str(folder / "data.h5ad"), "out": str(folder / "out.npy")}
            for tool, python in tools.items():
                if python is None:
                    continue
                figures = common.run_side(tool, python, task | more, script="model_side.py")
                figures |= judge(np.load(folder / "out.npy"))
                for figure, value in figures.items():
                    found.setdefault(figure, {}).setdefault(tool, []).append(value)
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--pbmc", default=None, help="the sorted PBMCs, h5ad")
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--page", action="store_true", help="write the table of docs/models.md")
    options = parser.parse_args()
    report = common.Report("models", options.dry)
    pbmc = None if options.pbmc is None else read(options.pbmc)
    for model in options.models:
        for figure, by_tool in measure(model, pbmc, options.seeds, options.peer).items():
            unit = {"seconds": "s", "perplexity": ""}.get(figure, "share")
            report.add(NAMES[model], figure, unit, by_tool, higher_is_better=figure not in ("seconds", "perplexity"))
    report.write()
    if options.page:
        write_page()


BEGIN, END = "<!-- table: python -m benchmarks.models --page -->\n", "<!-- end of table -->"


def write_page() -> None:
    """Put the last measured rows of each model between the two marks of the page."""
    last: dict[tuple[str, str], dict[str, dict]] = {}
    with common.RESULTS.open() as file:
        for row in csv.DictReader(file):
            if row["benchmark"] == "models":
                last.setdefault((row["case"], row["figure"]), {})[row["tool"]] = row
    data = {NAMES[name]: text for name, (_, text) in CASES.items()}
    lines = ["| model | data | figure | scvi-tools 1.4.2 | celbo |", "|---|---|---|---|---|"]
    for (case, figure), rows in last.items():
        values = [_shown(rows.get(tool)) for tool in ("scvi-tools", "celbo")]
        shown = "training, s" if figure == "seconds" else figure
        lines.append(f"| {case} | {data[case]} | {shown} | {' | '.join(values)} |")
    shown_rows = [row for rows in last.values() for row in rows.values()]
    dates, machines = (sorted({row[name] for row in shown_rows}) for name in ("date", "machine"))
    lines.append(f"\nMeasured {' and '.join(dates)} on {' and '.join(machines)}; median over seeds.\n")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])


def _shown(row: dict | None) -> str:
    return "" if row is None else f"{float(row['p50']):.3g}"


if __name__ == "__main__":
    main()
