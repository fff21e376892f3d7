"""Pictures of the README, from ``benchmarks/results.csv`` and the curves that ``time_to_elbo --curves`` wrote.

``python -m benchmarks.pictures [--curves curves.json]`` writes ``docs/images/*.svg``.
"""

import argparse
import csv
import json
from pathlib import Path

from matplotlib.figure import Figure

from .common import HERE, RESULTS

IMAGES = HERE.parent / "docs" / "images"
COLOURS = {"celbo": "#0b6e4f", "scvi-tools": "#9aa0a6"}


def newest(benchmark: str, figure: str) -> dict[str, dict[str, float]]:
    """``{case: {tool: p50}}`` of a benchmark's figure, of the last run of each case."""
    found: dict[str, dict[str, float]] = {}
    with RESULTS.open() as file:
        for row in csv.DictReader(file):
            if row["benchmark"] == benchmark and row["figure"] == figure:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, default=HERE / "curves.json")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    throughput().savefig(IMAGES / "throughput.svg")
    if options.curves.exists():
        curves(json.loads(options.curves.read_text())).savefig(IMAGES / "time_to_elbo.svg")


if __name__ == "__main__":
    main()
