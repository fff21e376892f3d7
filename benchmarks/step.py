"""Training throughput with the classic recipe, step for step: SCVI defaults, batch 128, validation off on both sides.

``python -m benchmarks.step [--genes 500 2000 8000 20000] [--likelihood zinb nb] [--peer PYTHON]``
"""

import tempfile
from pathlib import Path

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=[500, 2000, 8000, 20000])
    parser.add_argument("--likelihood", nargs="+", default=["zinb"])
    parser.add_argument("--cells", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    report = common.Report("step", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        for n_genes in options.genes:
            data = common.simulated(Path(folder), options.cells, n_genes)
            for likelihood in options.likelihood:
                task = {
                    "measure": "step",
                    "data": str(data),
                    "epochs": options.epochs,
                    "model": {"gene_likelihood": likelihood},
                    "celbo": {"recipe": "classic"},
                }
                sides = common.both_sides(options.peer, task)
                rates = {tool: result["cells_per_second"] for tool, result in sides.items()}
                report.add(f"{n_genes} genes, {likelihood}", "training", "cells/s", rates)
    report.write()


if __name__ == "__main__":
    main()
