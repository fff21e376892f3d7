"""Peak memory of the process as the number of cells grows: opening, setup, training, an embedding, streamed.

``python -m benchmarks.many_cells [--cells 1000000 10000000 100000000] [--genes 50] [--embed] [--folder DIR]``, or
``python -m benchmarks.many_cells --model PEAKVI --cells 100000 --genes 100000 --per-cell 2000 --steps 100``
for wide data, or
``python -m benchmarks.many_cells --model RESOLVI --cells 200000 --genes 5000 --per-cell 200 --steps 100 --compare``
for cells in tissue, one type of which is compared with all others; a ``.h5mu`` of genes and peaks is that of
``--model MULTIVI --cells 10000 100000 --genes 20000 --per-cell 400 --peaks 100000 --steps 100``

Counts of few genes, so that the files of a hundred million cells (11 GB) are written and read in minutes: what grows
with the number of cells (names, columns of obs, codes, the split, row pointers) does not depend on the genes. Each size
runs in a process of its own; the peak of each stage is the process's, reset between them.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from . import common
from .side import peak_mb

N_TYPES, N_BATCHES, ENTRIES_AT_ONCE = 20, 4, 5 * 2**18


def simulate(path: Path, n_cells: int, n_genes: int, per_cell: int, seed: int = 0, feature: str = "gene") -> None:
    """An h5ad of cells sorted by type, each with so many genes of its type's; memory holds a piece of it."""
    import pandas as pd

    from celbo.store.mapped import put
    from celbo.store.tables.names import CellNames
    from celbo.store.writing.matrix import new_anndata, write_table

    rng = np.random.default_rng(seed)
    step, piece = n_genes // per_cell, max(1, ENTRIES_AT_ONCE // per_cell)
    shift_tk = rng.integers(0, step, (N_TYPES, per_cell))

    def pieces() -> Iterator[np.ndarray]:
        return (np.arange(start, min(start + piece, n_cells)) for start in range(0, n_cells, piece))

    with new_anndata(path, overwrite=True) as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]})
        n_entries = n_cells * per_cell
        stored = {
            name: x.create_dataset(name, (n_entries,), dtype=dtype, chunks=(min(2**16, n_entries),))
            for name, dtype in (("data", "f4"), ("indices", "i4"))
        }
        indptr = x.create_dataset("indptr", (n_cells + 1,), dtype="i8")
        for cells in pieces():
            rows = slice(int(cells[0]) * per_cell, (int(cells[-1]) + 1) * per_cell)
            type_m = cells * N_TYPES // n_cells
            gene_mk = (shift_tk[type_m] + rng.integers(0, 3, (len(cells), per_cell))) % step + step * np.arange(
                per_cell
            )
            stored["indices"][rows] = gene_mk.ravel()
            stored["data"][rows] = 1 + rng.poisson(1.0, gene_mk.size)
            indptr[cells[0] : cells[-1] + 2] = per_cell * np.arange(cells[0], cells[-1] + 2)
        codes = {
            "cell_type": (lambda: (cells * N_TYPES // n_cells for cells in pieces()), N_TYPES),
            "batch": (lambda: (cells % N_BATCHES for cells in pieces()), N_BATCHES),
        }
        columns = {
            name: pd.Categorical.from_codes(put(made, np.int8), [f"{name} {i}" for i in range(count)])
            for name, (made, count) in codes.items()
        }
        columns["score"] = put(lambda: (cells / 7 for cells in pieces()), np.float32)
        names = CellNames.from_pieces(lambda: ([f"cell_{i}" for i in cells.tolist()] for cells in pieces()))
        write_table(file, "obs", pd.DataFrame(columns, index=pd.Index(names), copy=False))
        write_table(file, "var", pd.DataFrame(index=[f"{feature}_{i}" for i in range(n_genes)]))


def simulate_both(path: Path, n_cells: int, sizes: dict[str, tuple[int, int]]) -> None:
    """An h5mu of such cells, with so many features, and so many of a cell, in each modality; written as memory is."""
    from anndata.io import read_elem

    from celbo.cli.written import _new, _write_whole

    with _new(path) as root:
        group = root.create_group("mod")
        for seed, (key, size) in enumerate(sizes.items()):
            one = path.with_name(f"{path.stem}_{key}.h5ad")
            simulate(one, n_cells, *size, seed=seed, feature=key)
            with h5py.File(one) as file:
                file.copy(file["/"], group, name=key)
            one.unlink()
        _write_whole(root, {key: group[key] for key in sizes}, read_elem(group[next(iter(sizes))]["obs"]))


class _Stages:
    """Peak memory and time of each stage of this process."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._began = time.perf_counter(), time.process_time()

    def end(self, stage: str) -> None:
        """The stage is over; the next one begins."""
        now = time.perf_counter(), time.process_time()
        passed, of_processor = (float(b - a) for a, b in zip(self._began, now, strict=True))
        self.found[stage] = {"peak_mb": peak_mb(), "s": passed, "processor_s": of_processor}
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._began = time.perf_counter(), time.process_time()


def measure(task: dict) -> dict:
    """All stages of one size, in this process."""
    import celbo
    from celbo.cli import runs
    from celbo.cli.options import Asked

    celbo.settings.verbosity = 40
    path, folder = Path(task["path"]), Path(task["folder"])
    stages = _Stages()
    open_data = celbo.data.open_mudata if path.suffix == ".h5mu" else celbo.data.open
    adata = open_data(path, stream=True)
    stages.end("open")
    model_cls = getattr(celbo.external if task["model"] == "RESOLVI" else celbo.model, task["model"])
    if task["model"] == "RESOLVI":
        adata.obsm["X_spatial"] = np.random.default_rng(0).random((adata.n_obs, 2)) * adata.n_obs**0.5
    setup = model_cls.setup_mudata if path.suffix == ".h5mu" else model_cls.setup_anndata
    setup(adata, batch_key="batch", **_SETUP.get(task["model"], {}))
    stages.end("setup")
    model = model_cls(adata)
    weights_mb = sum(parameter.nbytes for parameter in model.module.parameters()) / 2**20
    model.train(max_epochs=1, max_steps=task["steps"], seed=0, verbose=0, accelerator="cpu")
    stages.end("train")
    stages.found["train"]["weights_mb"] = weights_mb
    if task["compare"]:
        model.differential_expression(groupby="cell_type", group1="cell_type 0", seed=0, silent=True)
        stages.end("differential expression of a type")
    model.save(str(folder / "model"), overwrite=True)
    del model, adata
    if task["embed"]:
        how = runs.ReadingOptions("stream")
        runs.embed(Asked(folder / "model", [path], folder / "latent.h5ad", how, overwrite=True, quiet=True))
        stages.end("celbo embed")
        (folder / "latent.h5ad").unlink()
    return stages.found


_SETUP: dict[str, dict[str, Any]] = {
    "SCANVI": {"labels_key": "cell_type", "unlabeled_category": "cell_type 0"},
    "MULTIVI": {"modalities": {"rna_layer": "rna", "atac_layer": "peaks"}},
}


def answer() -> None:
    """Measure the task that the process was given, and print what came out."""
    print(json.dumps(measure(json.loads(sys.argv[1]))))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure every size and add its rows."""
    report = common.Report("many_cells", options.dry)
    for n_cells in options.cells:
        features = f"{options.genes}+{options.peaks}" if options.peaks else f"{options.genes}"
        path = folder / f"many_{n_cells}_{features}_{options.per_cell}.{'h5mu' if options.peaks else 'h5ad'}"
        if options.peaks and not path.exists():
            of_peaks = (options.peaks, options.peaks // 50)
            simulate_both(path, n_cells, {"rna": (options.genes, options.per_cell), "peaks": of_peaks})
        elif not path.exists():
            simulate(path, n_cells, options.genes, options.per_cell)
        task = {"path": str(path), "folder": str(folder), "model": options.model}
        task |= {"steps": options.steps, "embed": options.embed, "compare": options.compare}
        for stage, figures in common.in_a_process("many_cells", task).items():
            for figure, value in figures.items():
                unit = "MB" if figure.endswith("_mb") else "s"
                report.add(f"{options.model}, {n_cells} x {features}, {stage}", figure, unit, {"celbo": [value]}, False)
    report.write()


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--genes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps; validation comes after them")
    parser.add_argument("--model", default="SCVI", choices=["SCVI", "SCANVI", "PEAKVI", "RESOLVI", "MULTIVI"])
    parser.add_argument("--per-cell", type=int, default=5, help="genes of a cell that are not zero")
    parser.add_argument("--compare", action="store_true", help="compare a type with all others, too")
    parser.add_argument("--peaks", type=int, default=0, help="peaks beside the genes, 2%% open, which MULTIVI wants")
    parser.add_argument("--embed", action="store_true", help="write the latent space of all cells, too")
    parser.add_argument("--folder", type=Path, help="where the files are kept")
    options = parser.parse_args()
    with common.folder_for_data(options.folder) as folder:
        run(options, folder)


if __name__ == "__main__":
    main()
