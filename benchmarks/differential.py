"""Differential expression, one group of cells against the rest, by either kind of weights.

``python -m benchmarks.differential [--sizes 400x60 10000x2000] [--weights uniform importance] [--peer PYTHON]``
"""

import tempfile
from pathlib import Path

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["400x60", "10000x2000"], help="cells x genes")
    parser.add_argument("--weights", nargs="+", default=["uniform", "importance"], choices=["uniform", "importance"])
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    report = common.Report("differential", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            n_cells, n_genes = map(int, size.split("x"))
            data = common.simulated(Path(folder), n_cells, n_genes, n_batches=3)
            task = {"measure": "differential", "data": str(data), "batch_key": "batch"}
            task |= {"weights": options.weights, "repeats": options.repeats}
            sides = common.both_sides(options.peer, task)
            for figure in sides["celbo"]:
                seconds = {tool: result[figure] for tool, result in sides.items()}
                report.add(f"{n_cells} cells, {n_genes} genes", figure, "s", seconds, higher_is_better=False)
    report.write()


if __name__ == "__main__":
    main()
