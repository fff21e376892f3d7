"""A long run of everything that repeats: does memory grow, are threads and files closed, does deletion give it back?

``python -m benchmarks.soak [--minutes 60] [--cells 100000] [--data FILE.h5ad]``

Training streams from disk, with validation every epoch, a checkpoint every minute and an embedding of a tenth of the
cells after each epoch. At the end of every epoch the process is asked for its resident memory, threads and open files.
The slope of memory is fitted by least squares over the second half of the epochs, so that what is allocated once
(pools, buffers, the allocator's own slack) is not taken for growth.
"""

import gc
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import common
from .streaming import simulate


class Reading(NamedTuple):
    """What a process holds."""

    seconds: float
    resident_mb: float
    threads: int
    files: int


def reading(started: float) -> Reading:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Reading(time.monotonic() - started, pages * 4096 / 2**20, threading.active_count(), files)


class _Watch:
    """Callback: reads what the process holds after each epoch, and ends training in time."""

    def __init__(self, model, started: float, seconds: float) -> None:
        self.model, self.started, self.seconds = weakref.ref(model), started, seconds
        self.readings: list[Reading] = []

    def on_train_epoch_end(self, trainer, plan) -> None:
        model = self.model()
        cells = np.arange(0, model.adata.n_obs, 10)
        model.is_trained_ = True
        model.get_latent_representation(indices=cells)
        self.readings.append(reading(self.started))
        print(f"epoch {trainer.current_epoch:5d}", *(f"{value:10.1f}" for value in self.readings[-1]), flush=True)
        if self.readings[-1].seconds > self.seconds:
            trainer.should_stop = True


def soak(path: Path, seconds: float, checkpoints: Path) -> tuple[list[Reading], Reading, Reading]:
    """Train for so long; what was held after each epoch, before the model was made, and after it was deleted."""
    import celbo

    celbo.settings.verbosity = 40
    started = time.monotonic()
    adata = celbo.data.open(path, stream=True)
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = celbo.model.SCVI(adata)
    before = reading(started)
    watch = _Watch(model, started, seconds)
    model.train(
        max_epochs=10**6,
        recipe="classic",
        check_val_every_n_epoch=1,
        seed=0,
        verbose=0,
        callbacks=[watch],
        accelerator="cpu",
        checkpoint_every="1 min",
        checkpoint_dir=checkpoints,
    )
    gone = weakref.ref(model)
    watch_readings = watch.readings
    del model, watch
    gc.collect()
    if gone() is not None:
        raise RuntimeError("The model is still held by something after `del model`.")
    return watch_readings, before, reading(started)


def slope(readings: list[Reading]) -> tuple[float, float]:
    """Growth of resident memory over the second half, in MB an epoch and MB an hour."""
    half = readings[len(readings) // 2 :]
    if len(half) < 2:
        raise ValueError(f"{len(readings)} epochs are too few for a slope: take more --minutes.")
    mb = [one.resident_mb for one in half]
    an_epoch = np.polyfit(np.arange(len(half)), mb, 1)[0]
    an_hour = 3600 * np.polyfit([one.seconds for one in half], mb, 1)[0]
    return float(an_epoch), float(an_hour)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--data", type=Path, help="instead of simulated cells; with a column 'batch'")
    options = parser.parse_args()
    report = common.Report("soak", options.dry)
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or Path(folder) / "cells.h5ad"
        if options.data is None:
            simulate(path, options.cells, options.genes)
        readings, before, after = soak(path, 60 * options.minutes, Path(folder) / "checkpoints")
    case = f"{path.stem if options.data else f'{options.cells} x {options.genes}'}, {len(readings)} epochs"
    an_epoch, an_hour = slope(readings)
    resident = [one.resident_mb for one in readings]
    for figure, unit, value in (
        ("growth an epoch", "MB", an_epoch),
        ("growth an hour", "MB", an_hour),
        ("resident, second epoch", "MB", resident[min(1, len(resident) - 1)]),
        ("resident, last epoch", "MB", resident[-1]),
        ("resident before training", "MB", before.resident_mb),
        ("resident after del model", "MB", after.resident_mb),
        ("threads more than before", "", after.threads - before.threads),
        ("files more than before", "", after.files - before.files),
    ):
        report.add(case, figure, unit, {"celbo": [value]}, higher_is_better=False)
    report.write()


if __name__ == "__main__":
    main()
