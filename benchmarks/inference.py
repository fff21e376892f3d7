"""Answers: latent space, and normalized expression averaged over three batches.

``python -m benchmarks.inference [--peer PYTHON]``, or ``--density .01 .13 .3`` for latents of data of which that share
is not zero, their genes in order and, at the middle density, as a cut of the genes leaves them.
"""

import tempfile
from pathlib import Path

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, nargs="+", default=[2000])
    parser.add_argument("--density", type=float, nargs="*", default=[])
    options = parser.parse_args()
    report = common.Report("inference", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        for n_genes in options.genes:
            size = f"{options.cells} cells, {n_genes} genes"
            if not options.density:
                data = common.simulated(Path(folder), options.cells, n_genes, n_batches=3)
                measure(report, options.peer, data, size, ("get_latent_representation", "get_normalized_expression"))
            middle = sorted(options.density)[len(options.density) // 2] if options.density else None
            for density in options.density:
                for in_order in (True, False) if density == middle else (True,):
                    data = common.at_density(Path(folder), options.cells, n_genes, density, in_order)
                    case = f"{size}, {density:.0%}{'' if in_order else ', unsorted'}"
                    measure(report, options.peer, data, case, ("get_latent_representation",))
    report.write()


def measure(report: common.Report, peer: str | None, data: Path, case: str, figures: tuple[str, ...]) -> None:
    """Add cells a second of each answer."""
    task = {"measure": "inference", "data": str(data), "batch_key": "batch", "repeats": 5, "figures": figures}
    sides = common.both_sides(peer, task)
    for figure in figures:
        report.add(case, figure, "cells/s", {tool: result[figure] for tool, result in sides.items()})


if __name__ == "__main__":
    main()
