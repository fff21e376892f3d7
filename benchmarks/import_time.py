"""Seconds of the import, and of the import and a first model, in fresh processes.

``python -m benchmarks.import_time [--peer PYTHON]``
"""

from . import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    report = common.Report("import_time", options.dry)
    runs = [common.both_sides(options.peer, {"measure": "import"}) for _ in range(options.repeats)]
    for figure in ("import", "first_model"):
        by_tool = {tool: [run[tool][figure] for run in runs] for tool in runs[0]}
        report.add("fresh process", figure, "s", by_tool, higher_is_better=False)
    report.write()


if __name__ == "__main__":
    main()
