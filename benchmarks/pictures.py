"""Pictures of the README, from ``benchmarks/results.csv`` and the curves that ``time_to_elbo --curves`` wrote.

``python -m benchmarks.pictures [--curves curves.json]`` writes ``docs/images/*.svg``.
"""

import argparse
import csv
import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .common import HERE, RESULTS
from .growth import N_CELLS, N_GENES

IMAGES = HERE.parent / "docs" / "images"
COLOURS = {"celbo": "#0b6e4f", "scvi-tools": "#9aa0a6"}


def newest(benchmark: str, figure: str, unit: str | None = None) -> dict[str, dict[str, float]]:
    """``{case: {tool: p50}}`` of a benchmark's figure (in one unit, if given), of the last run of each case."""
    found: dict[str, dict[str, float]] = {}
    with RESULTS.open() as file:
        for row in csv.DictReader(file):
            if row["benchmark"] == benchmark and row["figure"] == figure and unit in (None, row["unit"]):
                found.setdefault(row["case"], {})[row["tool"]] = float(row["p50"])
    return found


def throughput() -> Figure:
    """Bars of the classic recipe's training throughput."""
    cases = dict(sorted(newest("step", "training").items(), key=lambda case: (len(case[0].split()[0]), case[0])))
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    for i, (tool, colour) in enumerate(COLOURS.items()):
        heights = [rates.get(tool, 0.0) for rates in cases.values()]
        places = [k + 0.4 * i for k in range(len(cases))]
        axes.bar(places, heights, width=0.38, color=colour, label=tool)
    for k, rates in enumerate(cases.values()):
        if len(rates) == 2:
            axes.text(k, rates["celbo"], f"{rates['celbo'] / rates['scvi-tools']:.1f}x", ha="center", va="bottom")
    axes.set_xticks([k + 0.2 for k in range(len(cases))], [case.replace(", ", "\n") for case in cases])
    axes.set_ylabel("cells / s")
    axes.set_title("Training, step for step (classic recipe)", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def curves(sides: dict[str, dict]) -> Figure:
    """Validation ELBO against wall time, both tools with their defaults."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    for tool, side in sides.items():
        axes.plot(side["epoch_seconds"], side["elbo_validation"], color=COLOURS[tool], label=tool)
    best = min(sides["scvi-tools"]["elbo_validation"])
    axes.axhline(best, color=COLOURS["scvi-tools"], linewidth=0.8, linestyle=":")
    low = min(min(side["elbo_validation"]) for side in sides.values())
    axes.set_ylim(low - 5, best + 60)
    axes.set_xscale("log")
    axes.set_xlabel("seconds since train()")
    axes.set_ylabel("negative validation ELBO")
    axes.set_title("Default training on the same split", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def growth() -> Figure:
    """Time and peak memory of ``celbo train`` against cells and against genes, loaded and streamed."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    for row, unit in zip(figure.subplots(2, 2, sharey="row"), ("s", "MB"), strict=True):
        for axes, growing in zip(row, ("cells", "genes"), strict=True):
            _draw_growth(axes, growing, unit)
            if growing == "cells":
                axes.set_ylabel({"s": "seconds", "MB": "peak memory, MB"}[unit])
            if unit == "MB":
                axes.set_xlabel({"cells": "cells, 2,000 genes each", "genes": "genes of 10,000 cells"}[growing])
    figure.axes[0].legend(frameon=False)
    return figure


def _draw_growth(axes: Axes, growing: str, unit: str) -> None:
    points: dict[str, list[tuple[int, float]]] = {}
    for case, by_tool in newest("growth", "celbo train", unit).items():
        shape, data = case.split(", ")
        cells, genes = (int(size) for size in shape.split(" x "))
        if (genes == N_GENES) if growing == "cells" else (cells == N_CELLS):
            points.setdefault(data, []).append((cells if growing == "cells" else genes, by_tool["celbo"]))
    for (data, found), style in zip(sorted(points.items()), ("-", "--"), strict=False):
        if len(found) < 2:
            continue
        label = {"auto": "by default", "stream": "streamed"}.get(data, data)
        axes.loglog(*zip(*sorted(found), strict=True), style, marker="o", color=COLOURS["celbo"], label=label)
    ticks = {"s": [10, 30, 100], "MB": [500, 1000, 2000, 4000]}[unit]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, default=HERE / "curves.json")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    throughput().savefig(IMAGES / "throughput.svg")
    growth().savefig(IMAGES / "growth.svg")
    if options.curves.exists():
        curves(json.loads(options.curves.read_text())).savefig(IMAGES / "time_to_elbo.svg")


if __name__ == "__main__":
    main()
