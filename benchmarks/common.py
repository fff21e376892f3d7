"""What the benchmarks share: running both sides, data, rows of ``results.csv``."""

import argparse
import contextlib
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COLUMNS = (
    "date",
    "commit",
    "benchmark",
    "case",
    "figure",
    "tool",
    "p20",
    "p50",
    "p80",
    "unit",
    "ratio",
    "versions",
    "machine",
)


def arguments(description: str) -> argparse.ArgumentParser:
    """Parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=os.environ.get("CELBO_PEER_PYTHON"), help="python with scvi-tools==1.4.2")
    parser.add_argument("--dry", action="store_true", help="do not append to results.csv")
    return parser


def training_arguments(description: str) -> argparse.ArgumentParser:
    """Parser of a benchmark that trains once a seed: how many seeds, and the recipe and epochs of ``train``."""
    parser = arguments(description)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe")
    parser.add_argument("--epochs", type=int)
    return parser


def training_options(given: argparse.Namespace, **others) -> dict:
    """Arguments of ``train`` that were given to that parser, and others unless they are None."""
    asked = {"recipe": given.recipe, "max_epochs": given.epochs, **others}
    return {name: value for name, value in asked.items() if value is not None}


def settings_of(text: str) -> dict[str, float | None]:
    """Settings from ``name=value,...``."""
    pairs = [pair.split("=") for pair in text.split(",") if pair]
    return {name: None if value == "None" else float(value) for name, value in pairs}


def shown(options: dict) -> str:
    """What was asked for, in the name of a case."""
    return " ".join(f"{name}={value}" for name, value in options.items() if value not in (None, {}))


def run_side(tool: str, python: str, task: dict, script: str = "side.py") -> dict:
    """Run ``side.py``, or another script of this folder, for one tool and return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "task.json", Path(folder) / "result.json"
        asked.write_text(json.dumps(task | {"tool": "celbo" if tool == "celbo" else "scvi"}))
        run = subprocess.run(
            [python, "-W", "ignore", str(HERE / script), str(asked), str(answered)],
            cwd=folder,
            capture_output=True,
            text=True,
            env=_as_installed(),
        )
        if run.returncode:
            raise RuntimeError(f"{tool} failed on {task}:\n{run.stderr[-3000:]}")
        return json.loads(answered.read_text())


def _as_installed() -> dict[str, str]:
    """The environment, in which Python keeps what it compiled: pip compiles too, and users never wait for it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def in_a_process(benchmark: str, task: dict) -> dict:
    """What ``answer`` of another benchmark says of a task, in a process that nothing else was in."""
    code = f"from benchmarks.{benchmark} import answer; answer()"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(task)], cwd=HERE.parent, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{task} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def both_sides(peer: str | None, task: dict) -> dict[str, dict]:
    """The same task for scvi-tools and for celbo, one after the other."""
    sides = {} if peer is None else {"scvi-tools": run_side("scvi-tools", peer, task)}
    return sides | {"celbo": run_side("celbo", sys.executable, task)}


@contextlib.contextmanager
def folder_for_data(kept: Path | None) -> Iterator[Path]:
    """The folder that the user named, which stays, or one that does not."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def simulated(folder: Path, n_cells: int, n_genes: int, n_batches: int = 1, seed: int = 0) -> Path:
    """An h5ad of simulated counts."""
    from celbo.data import simulate_counts

    path = folder / f"sim_{n_cells}_{n_genes}_{n_batches}_{seed}.h5ad"
    if not path.exists():
        simulate_counts(n_cells, n_genes, n_batches=n_batches, seed=seed).write_h5ad(path)
    return path


def at_density(folder: Path, n_cells: int, n_genes: int, density: float, in_order: bool = True) -> Path:
    """An h5ad of three batches in whose counts that share is not zero; rows in order of the genes, or as a cut of genes
    leaves them.
    """
    import anndata
    import scipy.sparse as sp

    path = folder / f"density_{n_cells}_{n_genes}_{density}_{in_order}.h5ad"
    if not path.exists():
        rng = np.random.default_rng(0)
        counts = sp.random(n_cells, n_genes, density, format="csr", rng=rng, dtype=np.float32)
        counts.data = 1 + rng.poisson(1.0, counts.nnz).astype(np.float32)
        if not in_order:
            counts = counts[:, rng.permutation(n_genes)]
        adata = anndata.AnnData(counts)
        adata.obs["batch"] = rng.choice(["0", "1", "2"], n_cells)
        adata.write_h5ad(path)
    return path


def types_by_k_means(z_nk: np.ndarray, labels_n: np.ndarray) -> float:
    """Adjusted Rand index of the known types and as many clusters of latents."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    found = KMeans(len(np.unique(labels_n)), n_init=10, random_state=0).fit_predict(z_nk)
    return float(adjusted_rand_score(labels_n, found))


def neighbours_of_their_own(z_nk: np.ndarray, labels_n: np.ndarray, k: int = 15) -> float:
    """Share of cells most of whose nearest neighbours have their label."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=k + 1).fit(z_nk).kneighbors(z_nk, return_distance=False)[:, 1:]
    names, code_n = np.unique(labels_n, return_inverse=True)
    votes_nc = (code_n[nearest][..., None] == np.arange(len(names))).sum(1)
    return float((votes_nc.argmax(1) == code_n).mean())


def percentiles(values) -> tuple[float, float, float]:
    """p20, p50, p80."""
    return tuple(float(v) for v in np.percentile(np.atleast_1d(values), (20, 50, 80)))


def versions() -> str:
    """What was measured with."""
    from importlib import metadata

    import celbo

    others = " ".join(f"{name}={metadata.version(name)}" for name in ("torch", "numpy"))
    return f"celbo={celbo.__version__} {others} scvi-tools=1.4.2"  # celbo may run from a checkout, not installed


def machine() -> str:
    """Where: processor and cores, nothing that names the host."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores"


def commit() -> str:
    """Short hash of the code that was measured."""
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return run.stdout.strip() or "unknown"


class Report:
    """Rows of a benchmark: printed as they come, appended to ``results.csv`` at the end."""

    def __init__(self, benchmark: str, dry: bool = False) -> None:
        self.benchmark, self.dry = benchmark, dry
        self.rows: list[dict] = []

    def add(self, case: str, figure: str, unit: str, by_tool: dict, higher_is_better: bool = True) -> None:
        """Add one figure of both tools; the ratio says how many times better celbo is."""
        middle = {tool: percentiles(values) for tool, values in by_tool.items()}
        ratio = None
        if set(middle) == {"celbo", "scvi-tools"}:
            ours, theirs = middle["celbo"][1], middle["scvi-tools"][1]
            ratio = (ours / theirs if higher_is_better else theirs / ours) if ours and theirs else None
        for tool, (p20, p50, p80) in middle.items():
            row = {"case": case, "figure": figure, "tool": tool, "p20": p20, "p50": p50, "p80": p80, "unit": unit}
            row["ratio"] = ratio if tool == "celbo" and ratio is not None else ""
            self.rows.append(row)
            better = f"{ratio:8.2f}x" if row["ratio"] != "" else ""
            print(f"{case:32s} {figure:28s} {tool:10s} {p50:12.4g} {unit:10s} {better}", flush=True)

    def add_runs(self, case: str, runs: list[dict[str, float]]) -> None:
        """Add every figure of celbo's runs, one for each seed; those whose name says so are seconds."""
        for figure in runs[0]:
            self.add(case, figure, "s" if figure.endswith(", s") else "", {"celbo": [run[figure] for run in runs]})

    def write(self) -> None:
        """Append the rows; ``CELBO_BENCH_ROWS`` names a file for them as JSON, for the runner of all benchmarks."""
        if asked := os.environ.get("CELBO_BENCH_ROWS"):
            Path(asked).write_text(json.dumps(self.rows))
        if self.dry:
            return
        fixed = {
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "benchmark": self.benchmark,
            "versions": versions(),
            "machine": machine(),
        }
        new = not RESULTS.exists()
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            for row in self.rows:
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in (fixed | row).items()})


def report_memory(report: Report, case: str, task: dict, peer: str | None) -> None:
    """What two epochs need beyond data, weights, gradients and moments, where code has to be loaded and where not."""
    for how, warm in (("a first training", False), ("a second training", True)):
        sides = both_sides(peer, task | {"measure": "memory", "warm": warm})
        further = {tool: one["peak_mb"] - one["before_mb"] - 3 * one["weights_mb"] for tool, one in sides.items()}
        report.add(case, f"{how} over data, weights, gradients, moments", "MB", further, higher_is_better=False)
