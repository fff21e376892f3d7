"""Answers: latent space, and normalized expression averaged over three batches.

``python -m benchmarks.inference [--peer PYTHON]``
"""

import tempfile
from pathlib import Path

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, nargs="+", default=[2000])
    options = parser.parse_args()
    report = common.Report("inference", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        for n_genes in options.genes:
            data = common.simulated(Path(folder), options.cells, n_genes, n_batches=3)
            task = {"measure": "inference", "data": str(data), "batch_key": "batch", "repeats": 5}
            sides = common.both_sides(options.peer, task)
            for figure in ("get_latent_representation", "get_normalized_expression"):
                rates = {tool: result[figure] for tool, result in sides.items()}
                report.add(f"{options.cells} cells, {n_genes} genes", figure, "cells/s", rates)
    report.write()


if __name__ == "__main__":
    main()
