"""Training while others use the processors: alone on one thread, alone, beside one busy process, after numba's
parallel code, two trainings at once.

``python -m benchmarks.busy [--cells 2000] [--genes 2000] [--epochs 6] [--repeats 3] [--recipe classic]``

Each figure is the wall time of the same training, in a process of its own that has trained an epoch before; the cases
take turns. Nothing else should run.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import common

CASES = {
    "quiet, one thread": {"threads": 1},
    "quiet": {},
    "beside one busy process": {"beside": 1},
    "quiet, after numba": {"numba": True},
    "busy, after numba": {"beside": 1, "numba": True},
    "two at once": {"trainings": 2},
}
"""Case -> threads asked for, busy processes beside, whether numba's parallel code ran before, trainings at once."""


def train(task: dict) -> None:
    """Train when told to on standard input, and print how long it took."""
    import anndata
    import numpy as np
    import scipy.sparse as sp

    import celbo

    counts = np.random.default_rng(0).poisson(0.3, (task["cells"], task["genes"])).astype("float32")
    adata = anndata.AnnData(sp.csr_matrix(counts))
    celbo.model.SCVI.setup_anndata(adata)
    model = celbo.model.SCVI(adata)
    same = {"seed": 0, "verbose": 0, "accelerator": "cpu", "recipe": task["recipe"]}
    model.train(max_epochs=1, **same)
    if task["numba"]:
        run_numba()
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    model.train(max_epochs=task["epochs"], **same)
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def run_numba() -> None:
    """Wake numba's threads, as scanpy's ``highly_variable_genes`` does."""
    import numba
    import numpy as np

    @numba.njit(parallel=True)
    def total(values):
        found = 0.0
        for i in numba.prange(len(values)):
            found += values[i]
        return found

    assert total(np.ones(100_000)) == 100_000


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """So many processes that want a processor each, all the time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(task: dict, threads: int | None = None, beside: int = 0, numba: bool = False, trainings: int = 1) -> float:
    """How long the slowest training of a case took."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    asked = json.dumps(task | {"numba": numba})
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.busy", "--worker", asked]
    where = {"cwd": Path(__file__).resolve().parents[1], "env": environment, "text": True}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, **where, **streams) for _ in range(trainings)]
    for process in running:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{command} failed.")
    with busy(beside):
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate()[0] for process in running]
    return max(json.loads(answer.splitlines()[-1])["seconds"] for answer in answers)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        train(json.loads(options.worker))
        return
    task = {name: getattr(options, name) for name in ("cells", "genes", "epochs", "recipe")}
    report = common.Report("busy", options.dry)
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.repeats):
        for name, case in CASES.items():
            found[name].append(seconds(task, **case))
    for name, times in found.items():
        report.add(f"{options.cells} x {options.genes}, {options.epochs} epochs", name, "s", {"celbo": times})
    middle = {name: common.percentiles(times)[1] for name, times in found.items()}
    for name, figure in middle.items():
        print(f"{name:28s} {figure / middle['quiet, one thread']:.2f} times the quiet one-thread time")
    report.write()


if __name__ == "__main__":
    main()
