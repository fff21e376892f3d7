"""Training from disk beside training from memory: throughput, peak memory of the process, validation ELBO.

``python -m benchmarks.streaming [--cells 1000000] [--genes 2000] [--storage h5ad gzip zarr shard] [--steps 2000]``

Simulated counts with about 10% nonzero, sorted by cell type and batch so that rows which are not mixed would show, are
written in pieces and never held. Each storage is trained on in a process of its own for the same number of steps, and
so are the first ``--memory-cells`` cells, from memory and streamed: where both run, they are compared. The figures are
the steps' own (setup, which reads everything once, is a row of its own). ``--folder`` keeps the files for another time.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from . import common
from .side import peak_mb

N_TYPES, N_BATCHES, PIECE = 20, 4, 4096


def simulate(path: Path, n_cells: int, n_genes: int, seed: int = 0) -> None:
    """An h5ad of sorted cells; memory holds one piece of it.

    Counts are gamma-Poisson: ``x ~ Poisson(l_n w_tg v_bg gamma)``, types t in blocks, batches b within each.
    """
    import pandas as pd
    from anndata.io import write_elem

    from celbo.store.writing.matrix import new_anndata

    rng = np.random.default_rng(seed)
    profile_tg = rng.lognormal(-3.0, 1.2, (1, n_genes)) * rng.lognormal(0, 0.7, (N_TYPES, n_genes))
    effect_bg = rng.lognormal(0, 0.15, (N_BATCHES, n_genes))
    group_n = np.arange(n_cells) * (N_TYPES * N_BATCHES) // n_cells
    with new_anndata(path, overwrite=True) as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]})
        options = {"shape": (0,), "maxshape": (None,), "chunks": (2**16,)}
        stored = {"data": x.create_dataset("data", dtype="f4", **options)}
        stored["indices"] = x.create_dataset("indices", dtype="i4", **options)
        lengths = []
        for start in range(0, n_cells, PIECE):
            group = group_n[start : start + PIECE]
            rate = (
                profile_tg[group // N_BATCHES] * effect_bg[group % N_BATCHES] * rng.lognormal(0, 0.3, (len(group), 1))
            )
            counts = rng.poisson(rate * rng.gamma(4.0, 0.25, rate.shape))
            rows, columns = np.nonzero(counts)
            for name, values in (("data", counts[rows, columns]), ("indices", columns)):
                n = len(stored[name])
                stored[name].resize((n + len(values),))
                stored[name][n:] = values
            lengths.append(np.bincount(rows, minlength=len(group)))
        x.create_dataset("indptr", data=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
        obs = pd.DataFrame(
            {
                "cell_type": pd.Categorical.from_codes(group_n // N_BATCHES, [f"t{i}" for i in range(N_TYPES)]),
                "batch": pd.Categorical.from_codes(group_n % N_BATCHES, [f"b{i}" for i in range(N_BATCHES)]),
            },
            index=np.char.add("cell_", np.arange(n_cells).astype(str)),
        )
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)]))


def stored_as(storage: str, source: Path) -> Path:
    """The same cells in another storage, written once, in bounded memory where it must be."""
    path = source.with_name(f"{source.stem}_{storage}.{'h5ad' if storage == 'gzip' else 'zarr'}")
    if storage == "h5ad" or path.exists():
        return source if storage == "h5ad" else path
    if storage == "shard":
        import celbo
        from celbo.store.writing.shard import shard

        return shard(celbo.data.open(source, stream=True), path)
    return _copied(source, path, {"compression": "gzip"} if storage == "gzip" else {})


def _copied(source: Path, path: Path, options: dict) -> Path:
    import h5py
    from anndata.io import read_elem, write_elem

    from celbo.store.writing.matrix import new_anndata

    with h5py.File(source) as file, new_anndata(path, False) as root:
        old, new = file["X"], root.create_group("X")
        new.attrs.update({name: old.attrs[name] for name in ("encoding-type", "encoding-version")})
        new.attrs["shape"] = [int(length) for length in old.attrs["shape"]]
        for name, array in old.items():
            make = new.create_dataset if path.suffix == ".h5ad" else new.create_array
            there = make(name, shape=array.shape, dtype=array.dtype, chunks=(min(len(array), 2**18),), **options)
            for start in range(0, len(array), 2**22):
                there[start : start + 2**22] = array[start : start + 2**22]
        for name in ("obs", "var"):
            write_elem(root, name, read_elem(file[name]))
    return path


class _Meter:
    """Callback that times the steps of training after the first ones."""

    WARM = 50

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer, plan, output, batch, batch_idx) -> None:
        self.times.append(time.perf_counter())


def measure(task: dict) -> dict:
    """One training, in this process."""
    import celbo

    celbo.settings.verbosity = 40
    started = time.perf_counter()
    adata = celbo.data.open(task["path"], stream=task["stream"])
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model, meter = celbo.model.SCVI(adata), _Meter()
    ready = time.perf_counter()
    model.train(
        max_epochs=task["epochs"],
        max_steps=task["steps"],
        seed=task["seed"],
        verbose=0,
        callbacks=[meter],
        accelerator="cpu",
    )
    steps = np.diff(meter.times)[meter.WARM :]
    return {
        "setup_s": ready - started,
        "cells_per_second": 128 * len(steps) / steps.sum(),
        "elbo": float(model.history["elbo_validation"].iloc[-1, 0]),
        "peak_mb": peak_mb(),
    }


def answer() -> None:
    """Measure the task that the process was given, and print what came out."""
    print(json.dumps(measure(json.loads(sys.argv[1]))))


def compare(report: common.Report, case: str, tasks: dict[str, dict], seeds: int) -> None:
    """Measure each task under several seeds, in turns, since rates drift; add its rows."""
    results: dict[str, list[dict]] = {name: [] for name in tasks}
    for seed in range(seeds):
        for name, task in tasks.items():
            results[name].append(common.in_a_process("streaming", task | {"seed": seed}))
    for name, found in results.items():
        for figure, unit in (("cells_per_second", "cells/s"), ("peak_mb", "MB"), ("elbo", "nats"), ("setup_s", "s")):
            values = [result[figure] for result in found]
            report.add(f"{case}, {name}", figure, unit, {"celbo": values}, figure == "cells_per_second")


def run(options: argparse.Namespace, folder: Path) -> None:
    report = common.Report("streaming", options.dry)
    sizes = {"large": options.cells, "small": min(options.memory_cells, options.cells)}
    for size, n_cells in sizes.items():
        source = folder / f"sorted_{n_cells}_{options.genes}.h5ad"
        if not source.exists():
            simulate(source, n_cells, options.genes)
        paths = {storage: stored_as(storage, source) for storage in options.storage}
        tasks = {f"streamed {name}": {"path": str(path), "stream": True} for name, path in paths.items()}
        if size == "small":
            tasks["in memory"] = {"path": str(source), "stream": False}
        epochs = -(-options.steps * 128 // max(1, int(0.9 * n_cells)))
        for task in tasks.values():
            task |= {"epochs": epochs, "steps": options.steps}
        compare(report, f"{n_cells} x {options.genes}", tasks, options.seeds if size == "small" else 1)
    report.write()


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--memory-cells", type=int, default=100_000, help="size at which memory is compared")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps of each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each storage at the smaller size")
    parser.add_argument("--storage", nargs="+", default=["h5ad", "gzip", "zarr", "shard"])
    parser.add_argument("--folder", type=Path, help="where the files are kept")
    options = parser.parse_args()
    with common.folder_for_data(options.folder) as folder:
        run(options, folder)


if __name__ == "__main__":
    main()
