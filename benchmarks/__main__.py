"""Benchmarks row by row, beside scvi-tools: ``python -m benchmarks [--all] [--only NAME ...] [--afresh]``.

``make bench`` asks for the short rows and takes at most 20 minutes on two cores; ``make bench-all`` for every row that
needs no data of the user's. Each row is a command of this folder in a process of its own. What it said is kept in
``build/benchmarks``, by commit: a run that was stopped goes on with the rows that are missing. Nothing is appended to
``results.csv`` unless ``--record`` is given. scvi-tools runs in an environment of its own, ``.venv-peer``, which is
made once; where it cannot be installed, celbo runs alone.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import common

ROOT = common.HERE.parent
KEPT = ROOT / "build" / "benchmarks"
PEER = ROOT / ".venv-peer"
REQUIREMENT = "scvi-tools==1.4.2"


@dataclass(frozen=True)
class Row:
    """A command and what is asked of it.

    Attributes
    ----------
    command
        Benchmark of this folder and its arguments.
    asked
        How many times better than scvi-tools celbo should be, by the beginning of a figure's name; None: it is shown.
    is_short
        Whether ``make bench`` has it.
    takes_peer
        Whether it runs scvi-tools beside celbo.
    """

    command: str
    asked: dict[str, float] | None = None
    is_short: bool = False
    takes_peer: bool = True


ROWS = {
    "import": Row("import_time --repeats 3", is_short=True),
    "step": Row("step --genes 500 2000 8000", {"training": 4}, is_short=True),
    "step_nb": Row("step --genes 2000 --likelihood nb", {"training": 4}, is_short=True),
    "answers": Row("inference", {"get_latent": 4, "get_normalized": 5}, is_short=True),
    "densities": Row("inference --density 0.01 0.13 0.3", {"get_latent": 4}, is_short=True),
    "differential": Row("differential --sizes 400x60", {"uniform": 10, "importance": 10}, is_short=True),
    "memory": Row("memory --cells 4000 --genes 8000", {"training over data": 2}, is_short=True),
    "busy": Row("busy --repeats 2", is_short=True, takes_peer=False),
    "training": Row("time_to_elbo --simulate 2000", {"seconds_to_peer_best": 40, "seconds": 10}, is_short=True),
    "wide_step": Row("step --genes 20000", {"training": 4}),
    "wide_differential": Row("differential --sizes 10000x2000", {"uniform": 10, "importance": 10}),
    "training_40000": Row("time_to_elbo --simulate 40000", {"seconds_to_peer_best": 150}),
    "memory_40000": Row("memory", {"training over data": 2}),
    "peaks": Row("accessibility --beside training step memory", {"to its best": 10, "training": 5}),
    "modalities": Row("several_modalities", {"whole": 10}),
    "deconvolution": Row("deconvolution", takes_peer=False),
    "scaling": Row("scaling"),
    "recipes": Row("recipes", takes_peer=False),
    "samples": Row("samples", takes_peer=False),
    "growth": Row("growth", takes_peer=False),
    "a_million_cells": Row("many_cells --cells 1000000 --genes 2000 --per-cell 200 --steps 7000", takes_peer=False),
}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--all", action="store_true", help="every row, not the short ones only")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--afresh", action="store_true", help="run rows again that are kept")
    parser.add_argument("--record", action="store_true", help="append to results.csv")
    options = parser.parse_args()
    names = options.only or [name for name, row in ROWS.items() if options.all or row.is_short]
    wants_peer = any(ROWS[name].takes_peer for name in names)
    peer = options.peer or (peer_environment() if wants_peer else None)
    failed = []
    for name in names:
        kept = KEPT / f"{name}-{state_of_code()}-{'beside' if peer else 'alone'}.json"
        if options.afresh or not kept.exists():
            print(f"== {name}: python -m benchmarks.{ROWS[name].command}", flush=True)
            if not run(ROWS[name], peer, kept, record=options.record and not options.dry):
                failed.append(name)
                continue
        show(name, ROWS[name], json.loads(kept.read_text()))
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


def peer_environment() -> str | None:
    """The Python of an environment with scvi-tools, made at the first call; None, and a word, where it cannot be."""
    python = PEER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (PEER / ".complete").exists():
        return str(python)
    print(f"Making {PEER.name} with {REQUIREMENT}: some minutes, once.", flush=True)
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"  # both sides compute with the same
    install = [str(python), "-m", "pip", "install", "-q", torch, REQUIREMENT]
    steps = [[sys.executable, "-m", "venv", str(PEER)], install]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"{REQUIREMENT} cannot be installed here, so celbo runs alone: {reason}", flush=True)
            return None
    (PEER / ".complete").touch()
    return str(python)


def state_of_code() -> str:
    """The commit, and a mark where files were changed since: what changes rows makes them run again."""
    changed = subprocess.run(["git", "diff", "HEAD", "--", "src", "benchmarks"], cwd=ROOT, capture_output=True)
    mark = f"-{hashlib.sha256(changed.stdout).hexdigest()[:8]}" if changed.stdout else ""
    return common.commit() + mark


def run(row: Row, peer: str | None, kept: Path, record: bool) -> bool:
    """Run a row and keep its figures, if it ends well."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".unfinished")
    benchmark, *arguments = row.command.split()
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{benchmark}", *arguments]
    command += [] if record else ["--dry"]
    command += ["--peer", peer] if peer and row.takes_peer else []
    started = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"CELBO_BENCH_ROWS": str(unfinished)})
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
    if ended.returncode or not unfinished.exists():
        return False
    unfinished.replace(kept)
    return True


def show(name: str, row: Row, figures: list[dict]) -> None:
    """The row of the table: both tools, how many times better celbo is, and what is asked."""
    by_case: dict[tuple[str, str], dict[str, dict]] = {}
    for figure in figures:
        by_case.setdefault((figure["case"], figure["figure"]), {})[figure["tool"]] = figure
    for (case, figure), tools in by_case.items():
        shown = [f"{tool} {one['p50']:.4g} {one['unit']}" for tool, one in tools.items()]
        ratio = tools.get("celbo", {}).get("ratio") or None
        asked = next((times for start, times in (row.asked or {}).items() if figure.startswith(start)), None)
        verdict = "" if ratio is None else f"  {ratio:.2f}x"
        verdict += "" if ratio is None or asked is None else f" of {asked:g}x"
        print(f"{name:18s} {case:34s} {figure:32s} {', '.join(shown)}{verdict}", flush=True)


if __name__ == "__main__":
    main()
