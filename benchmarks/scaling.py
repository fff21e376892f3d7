"""Classic recipe: cells a second against cells, genes, batches and latent size, one varied at a time.

``python -m benchmarks.scaling [--peer PYTHON]``
"""

import tempfile
from pathlib import Path

from . import common

BASE = {"cells": 4096, "genes": 2000, "batches": 2, "latent": 10}
VARIED = {"cells": (1024, 16384, 65536), "genes": (500, 8000), "batches": (10, 50), "latent": (30, 100)}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    report = common.Report("scaling", options.dry)
    cases = [BASE] + [BASE | {name: value} for name, values in VARIED.items() for value in values]
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            task = {
                "measure": "step",
                "data": str(common.simulated(Path(folder), case["cells"], case["genes"], case["batches"])),
                "batch_key": "batch",
                "epochs": options.epochs,
                "model": {"n_latent": case["latent"]},
                "celbo": {"recipe": "classic"},
            }
            sides = common.both_sides(options.peer, task)
            rates = {tool: result["cells_per_second"] for tool, result in sides.items()}
            report.add(", ".join(f"{value} {name}" for name, value in case.items()), "training", "cells/s", rates)
    report.write()


if __name__ == "__main__":
    main()
