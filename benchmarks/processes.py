"""Throughput of two processes that share a training, and where it is lost.

``python -m benchmarks.processes [--cells 40000] [--steps 400] [--data FILE.h5ad]``

The same training, step for step, by one process with all cores; by one process with one thread; by two processes that
know nothing of each other, one thread each; and by two that share it (gloo), one thread each. What two strangers lose
against twice the one is memory and caches; what two that share it lose against the strangers is averaging gradients and
waiting for each other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from . import common
from .streaming import _Meter, simulate

CASES = {
    "one process, all cores": (1, None, False),
    "one process, one thread": (1, 1, False),
    "two processes apart, one thread each": (2, 1, False),
    "two processes together, one thread each": (2, 1, True),
}
"""Case -> processes, threads of each, whether they share the training."""


def train(task: dict) -> None:
    """Train in this process and print its cells a second."""
    import celbo

    celbo.settings.verbosity = 40
    adata = celbo.data.open(task["path"], stream=task["stream"])
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model, meter = celbo.model.SCVI(adata), _Meter()
    model.train(
        max_epochs=100,
        max_steps=task["steps"],
        limit_val_batches=1,
        seed=0,
        verbose=0,
        callbacks=[meter],
        accelerator="cpu",
    )
    steps = np.diff(meter.times)[meter.WARM :]
    print(json.dumps({"cells_per_second": 128 * len(steps) / steps.sum()}), flush=True)


def rate(task: dict, n: int, threads: int | None, together: bool) -> float:
    """Cells a second of all the processes of a case."""
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(n), "--standalone"] if together else []
    command = [sys.executable, "-W", "ignore", *launcher, "-m", "benchmarks.processes", "--worker", json.dumps(task)]
    where = {"cwd": Path(__file__).resolve().parents[1], "env": environment, "text": True}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, **where, **streams) for _ in range(1 if together else n)]
    rates = []
    for process in running:
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{command} failed:\n{err[-3000:]}")
        rates += [json.loads(line)["cells_per_second"] for line in out.splitlines() if line.startswith("{")]
    if len(rates) != n:
        raise RuntimeError(f"{len(rates)} of {n} processes gave a rate.")
    return sum(rates)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="instead of simulated cells; with a column 'batch'")
    parser.add_argument("--stream", action="store_true", help="leave the data on disk")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        train(json.loads(options.worker))
        return
    report = common.Report("processes", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or Path(folder) / "cells.h5ad"
        if options.data is None:
            simulate(path, options.cells, options.genes)
        task = {"path": str(path), "steps": options.steps, "stream": options.stream}
        found: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(options.repeats):
            for name, case in CASES.items():
                found[name].append(rate(task, *case))
    where = "streamed" if options.stream else "in memory"
    for name, rates in found.items():
        report.add(f"{options.genes} genes, {where}", name, "cells/s", {"celbo": rates})
    report.write()


if __name__ == "__main__":
    main()
