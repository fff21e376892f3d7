"""Time and peak memory of ``celbo train`` as cells and as genes grow, from the command to the report, with exponents.

``python -m benchmarks.growth [--cells 1000 10000 100000 1000000] [--genes 500 2000 10000 50000] [--folder DIR]``

Cells grow at 2,000 genes, genes at 10,000 cells; one gene in ten of a cell is not zero, in four batches. Each run is a
process with the defaults of the command. The exponent is the slope of log seconds (or megabytes) on log size, fitted by
least squares; where a curve bends, the slope of its last two sizes says more.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from . import common
from .many_cells import simulate

N_GENES, N_CELLS, SHARE = 2000, 10_000, 10


def train(path: Path, folder: Path, data: str) -> dict[str, float]:
    """Seconds and peak memory of ``celbo train`` with its defaults."""
    command = [sys.executable, "-W", "ignore", "-m", "celbo", "train", str(path), "--batch-key", "batch"]
    command += ["-o", str(folder / "run"), "--overwrite", "--quiet", *(["--data", data] if data != "auto" else [])]
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{' '.join(command[4:])} failed.")
    return {"s": time.perf_counter() - started, "MB": used.ru_maxrss / 1024}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--genes", type=int, nargs="*", default=[500, 2000, 10_000, 50_000])
    parser.add_argument("--data", nargs="+", default=["auto", "stream"], choices=["auto", "stream", "load"])
    parser.add_argument("--folder", type=Path, default=None, help="where the files are kept; a temporary one")
    options = parser.parse_args()
    report = common.Report("growth", options.dry)
    with common.folder_for_data(options.folder) as folder:
        for data in options.data:
            grow(report, folder, data, options)
    report.write()


def grow(report: common.Report, folder: Path, data: str, options: argparse.Namespace) -> None:
    """Both curves of data that are loaded where they fit, or streamed."""
    curves = {
        "cells": [(cells, N_GENES) for cells in options.cells],
        "genes": [(N_CELLS, genes) for genes in options.genes],
    }
    found: dict[tuple[int, int], dict[str, float]] = {}
    for growing, sizes in curves.items():
        for cells, genes in sizes:
            path = folder / f"growth_{cells}_{genes}.h5ad"
            if not path.exists():
                simulate(path, cells, genes, genes // SHARE)
            if (cells, genes) not in found:
                found[cells, genes] = train(path, folder, data)
                for unit, value in found[cells, genes].items():
                    report.add(f"{cells} x {genes}, {data}", "celbo train", unit, {"celbo": [value]}, False)
        if len(sizes) > 1:
            grown = [size[0 if growing == "cells" else 1] for size in sizes]
            _report_exponents(report, f"{growing}, {data}", grown, [found[size] for size in sizes])


def _report_exponents(report: common.Report, case: str, sizes: list[int], runs: list[dict[str, float]]) -> None:
    for unit in runs[0]:
        values = [run[unit] for run in runs]
        for figure, few in ((f"exponent of {unit}", 0), (f"exponent of {unit}, last two", -2)):
            report.add(case, figure, "", {"celbo": [exponent(sizes[few:], values[few:])]})


if __name__ == "__main__":
    main()
