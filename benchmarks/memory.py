"""Peak memory of training: over what the process held before, and over what torch, anndata and the data need alone.

``python -m benchmarks.memory [--peer PYTHON]``
"""

import tempfile
from pathlib import Path

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, nargs="+", default=[2000])
    options = parser.parse_args()
    report = common.Report("memory", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        for n_genes in options.genes:
            data = common.simulated(Path(folder), options.cells, n_genes)
            task = {"measure": "memory", "data": str(data), "celbo": {"recipe": "classic"}}
            sides = common.both_sides(options.peer, task)
            case = f"{options.cells} cells, {n_genes} genes"
            over = {tool: result["peak_mb"] - result["before_mb"] for tool, result in sides.items()}
            report.add(case, "training over data", "MB", over, higher_is_better=False)
            floor = common.run_side("celbo", common.sys.executable, task | {"measure": "floor"})["peak_mb"]
            above = {tool: result["peak_mb"] - floor for tool, result in sides.items()}
            report.add(case, "peak over torch, anndata, data", "MB", above, higher_is_better=False)
            peak = {tool: result["peak_mb"] for tool, result in sides.items()}
            report.add(case, "peak of the process", "MB", peak, higher_is_better=False)
    report.write()


if __name__ == "__main__":
    main()
