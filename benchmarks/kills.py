"""``kill -9`` at moments of chance while a model trains, until the run is through: the same weights, bit for bit?

``python -m benchmarks.kills --kills 50`` says so for each run and ends with exit code 1 where they differ. The
processes that are killed are forked from one that has loaded torch and has not computed anything; ``--fresh`` starts a
new interpreter for each instead, as a scheduler would (slower).
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from celbo import settings
from celbo.data import simulate_counts
from celbo.io import read_archive, write_archive
from celbo.model import SCVI
from celbo.train.checkpoints.folder import find_checkpoints

__all__ = ["main"]

_EPOCHS, _SECONDS_OF_ONE_LIFE = 5, 0.5


def _train(folder: Path | None, result: Path) -> None:
    """Train from where the checkpoints in the folder are (None: without any), and write the weights."""
    torch.set_num_threads(1)
    settings.verbosity = logging.WARNING
    adata = simulate_counts(160, 30, n_cell_types=3, n_batches=2, seed=0)
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=16)
    options: dict[str, Any] = {"max_epochs": _EPOCHS, "batch_size": 16, "seed": 1, "verbose": 0, "accelerator": "cpu"}
    if folder is not None and find_checkpoints(folder):
        options["resume"] = folder
    if folder is not None:
        options |= {"checkpoint_dir": folder, "checkpoint_every": "3 steps"}
    model.train(**options)
    history = {name: frame[name].tolist() for name, frame in (model.history_ or {}).items()}
    write_archive(result, dict(model.module.state_dict()), {"history": history}, overwrite=True)


def _start(folder: Path | None, result: Path, fresh: bool) -> int:
    """A process that trains; its id."""
    if fresh:
        command = [sys.executable, "-m", "benchmarks.kills", "--train", str(folder), str(result)]
        return subprocess.Popen(command).pid
    child = os.fork()
    if child:
        return child
    try:
        _train(folder, result)
        os._exit(0)
    except BaseException as error:
        print(f"the training process failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)


def _through(child: int, seconds: float) -> bool:
    """Whether a process ended by itself within that time; it is killed if not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit("A training process failed.")
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == 0  # it was through at the last moment


def _run_with_kills(folder: Path, moments: random.Random, fresh: bool) -> tuple[Path, int]:
    """Kill a run again and again until it is through; its result and the number of kills."""
    kills, result = 0, folder / "result"
    life = _SECONDS_OF_ONE_LIFE * (8 if fresh else 1)
    while not _through(_start(folder / "checkpoints", result, fresh), life * moments.random()):
        kills += 1
        life *= 1.1  # so that it ends
    return result, kills


def _same(one: Path, other: Path) -> bool:
    weights, document = read_archive(one)
    others, other_document = read_archive(other)
    equal = all(torch.equal(value, others[name]) for name, value in weights.items())
    return equal and weights.keys() == others.keys() and document == other_document


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Kill training again and again and compare the weights.")
    parser.add_argument("--kills", type=int, default=50, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for each life")
    parser.add_argument("--train", nargs=2, metavar=("FOLDER", "RESULT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        _train(Path(given.train[0]), Path(given.train[1]))
        return 0
    kills, wrong, moments = 0, 0, random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        if not _through(_start(None, whole, False), 600.0):
            raise SystemExit("The run without kills took more than ten minutes.")
        for i in range(1, 10**6):
            result, n = _run_with_kills(Path(temporary) / f"run-{i}", moments, given.fresh)
            kills, wrong = kills + n, wrong + (not _same(whole, result))
            print(f"run {i}: {n} kills, {'same' if _same(whole, result) else 'OTHER'} weights and history", flush=True)
            if kills >= given.kills:
                break
    print(f"{kills} kills, {wrong} runs that differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
