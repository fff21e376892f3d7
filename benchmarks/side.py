"""One measurement of one tool, in a process of its own: ``python side.py TASK.json RESULT.json``.

The same lines run with ``import celbo as scvi`` and with scvi-tools: the two differ only where a task says so in
``celbo``/``peer``.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import resource
import sys
import time
import warnings
from pathlib import Path


def main() -> None:
    with open(sys.argv[1]) as file:
        task = json.load(file)
    warnings.filterwarnings("ignore")
    result = MEASURES[task["measure"]](task)
    with open(sys.argv[2], "w") as file:
        json.dump(result, file)


def peak_mb() -> float:
    """The most memory that this process had; ``ru_maxrss`` begins, on Linux, with what its parent had."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(task: dict):
    """The library and the data, set up."""
    scvi = importlib.import_module(task["tool"])
    if task.get("threads"):
        import torch

        torch.set_num_threads(task["threads"])
    scvi.settings.seed = task.get("seed", 0)
    cls, setup = model_class(scvi, task), {"batch_key": task.get("batch_key"), **task.get("setup", {})}
    if task["data"].endswith(".h5mu"):
        import mudata

        adata = mudata.read_h5mu(task["data"])
        cls.setup_mudata(adata, **setup)
    else:
        import anndata

        adata = anndata.read_h5ad(task["data"])
        cls.setup_anndata(adata, **setup)
    return scvi, adata


def model_class(scvi, task: dict):
    """The class of the model that the task is about."""
    name = task.get("class", "SCVI")
    return getattr(scvi.model if hasattr(scvi.model, name) else scvi.external, name)


def callback_class(task: dict):
    if task["tool"] == "celbo":
        return importlib.import_module("celbo.train").Callback
    return importlib.import_module("lightning.pytorch.callbacks").Callback


def clock(task: dict):
    """A callback that notes when epochs end, and how long validation took."""

    class Clock(callback_class(task)):
        def __init__(self):
            self.epochs, self.validation, self.started = [], 0.0, 0.0

        def on_validation_start(self, trainer, plan):
            self.started = time.perf_counter()

        def on_validation_end(self, trainer, plan):
            self.validation += time.perf_counter() - self.started

        def on_train_epoch_end(self, trainer, plan):
            self.epochs.append(time.perf_counter())

    return Clock()


def measure_step(task: dict) -> dict:
    """Cells a second of each epoch, validation off."""
    scvi, adata = load(task)
    model = model_class(scvi, task)(adata, **task.get("model", {}))
    times = clock(task)
    off = {"check_val_every_n_epoch": 0, "verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    kwargs = {"max_epochs": task["epochs"], "train_size": 1.0, "accelerator": task.get("accelerator", "cpu")}
    kwargs["early_stopping"] = False  # the default of some models, which scvi-tools refuses without validation
    model.train(**kwargs, batch_size=128, callbacks=[times], **off, **(task.get(task["tool"]) or {}))
    seconds = [b - a for a, b in zip(times.epochs[:-1], times.epochs[1:])]  # without the first, which warms up
    return {"cells_per_second": [adata.n_obs / s for s in seconds]}


def measure_memory(task: dict) -> dict:
    """Peak resident memory after import and data, and after training; of which the weights take how much.

    With ``warm`` a training has gone before, so that what it loads of the libraries is there.
    """
    scvi, adata = load(task)
    off = {"check_val_every_n_epoch": 0, "verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    off |= {"early_stopping": False, "train_size": task.get("train_size", 1.0)}
    kwargs = {"accelerator": "cpu", **off, **(task.get(task["tool"]) or {})}
    if task.get("warm"):
        model_class(scvi, task)(adata).train(max_epochs=1, **kwargs)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free belongs to no training
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    model = model_class(scvi, task)(adata)
    before, weights = peak_mb(), sum(p.numel() * p.element_size() for p in model.module.parameters()) / 2**20
    model.train(max_epochs=2, **kwargs)
    return {"before_mb": before, "peak_mb": peak_mb(), "weights_mb": weights}


def measure_floor(task: dict) -> dict:
    """Peak resident memory of a process that imports torch and anndata, reads the data and does nothing else."""
    import anndata
    import torch  # noqa: F401

    anndata.read_h5ad(task["data"])
    return {"peak_mb": peak_mb()}


def measure_training(task: dict) -> dict:
    """A default training: when each epoch ended, its validation ELBO, and the latent space.

    Of a task with a split it is on that.
    """
    import numpy as np

    scvi, adata = load(task)
    splits = {}
    if "split" in task:
        split = np.load(task["split"])
        splits = {"external_indexing": [split["train"], split["validation"], split["test"]]}
    model = model_class(scvi, task)(adata, **task.get("model", {}))
    times = clock(task)
    quiet = {"verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    started = time.perf_counter()
    model.train(
        accelerator="cpu",
        check_val_every_n_epoch=1,
        datasplitter_kwargs=splits,
        callbacks=[times],
        **quiet,
        **(task.get(task["tool"]) or {}),
    )
    total = time.perf_counter() - started
    np.save(task["latent"], model.get_latent_representation())
    return {
        "seconds": total,
        "validation_seconds": times.validation,
        "epoch_seconds": [t - started for t in times.epochs],
        "elbo_validation": [float(v) for v in model.history["elbo_validation"].iloc[:, 0]],
    }


def measure_inference(task: dict) -> dict:
    """Cells a second of the two commonest answers, of the untrained model's networks."""
    scvi, adata = load(task)
    model = scvi.model.SCVI(adata)
    off = {"check_val_every_n_epoch": 0, "verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    model.train(max_epochs=1, accelerator="cpu", **off)
    batches = list(adata.obs[task["batch_key"]].astype("category").cat.categories)[:3]
    answers = {
        "get_latent_representation": lambda: model.get_latent_representation(),
        "get_normalized_expression": lambda: model.get_normalized_expression(
            transform_batch=batches, return_numpy=True
        ),
    }
    rates = {}
    for name in task["figures"]:
        rates[name] = [adata.n_obs / seconds for seconds in seconds_of(answers[name], task["repeats"])]
    return rates


def seconds_of(answer, repeats: int) -> list[float]:
    """How long an answer takes, each time, once it has been asked."""
    answer()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        answer()
        found.append(time.perf_counter() - started)
    return found


def measure_differential(task: dict) -> dict:
    """Seconds of differential expression, one batch against the rest, with either kind of weights; of marginal_ll."""
    scvi, adata = load(task)
    model = scvi.model.SCVI(adata)
    quiet = {"verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    model.train(max_epochs=5, accelerator="cpu", **quiet)
    one = {"groupby": task["batch_key"], "group1": adata.obs[task["batch_key"]].iloc[0], "silent": True}
    answers = {
        f"{weights} weights": lambda weights=weights: model.differential_expression(**one, weights=weights)
        for weights in task["weights"]
    }
    return {name: seconds_of(answer, task["repeats"]) for name, answer in answers.items()}


def measure_import(task: dict) -> dict:
    """Seconds of the import, and of the import and a first model."""
    started = time.perf_counter()
    scvi = importlib.import_module(task["tool"])
    imported = time.perf_counter() - started
    adata = scvi.data.synthetic_iid()
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.SCVI(adata)
    return {"import": imported, "first_model": time.perf_counter() - started}


MEASURES = {
    "step": measure_step,
    "memory": measure_memory,
    "floor": measure_floor,
    "training": measure_training,
    "inference": measure_inference,
    "differential": measure_differential,
    "import": measure_import,
}

if __name__ == "__main__":
    main()
