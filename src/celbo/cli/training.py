"""Training by the settings of the command line, before anything is written."""

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core import unknown_name
from ..data import top_variable_genes
from ..data.count_report import NO_COUNTS
from ..data.opening import of_genes
from ..train import RECIPES
from ..train.checkpoints.schedule import Interval
from .counts import counts_of
from .errors import UserError
from .kind import Fitted
from .models import MODELS
from .multimodal import modality_of_counts, replaced
from .options import TrainOptions

__all__ = ["Clock", "as_trained", "check_options", "fitted_on", "with_top_genes"]

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


class Clock:
    """Callback that measures training."""

    started = ended = 0.0

    def on_train_start(self, trainer: object, plan: object) -> None:
        """Begin."""
        self.started = self.ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: object, plan: object) -> None:
        """Note the time."""
        self.ended = time.perf_counter()


def check_options(options: TrainOptions) -> None:
    """Raise a ``UserError`` for what is wrong whatever the data; a ``ValueError`` for an interval that is none."""
    if options.raw and options.layer is not None:
        raise UserError("--raw and --layer name two matrices: give the one that holds the counts.")
    for option, given, known in (
        ("--recipe", options.recipe, (None, *RECIPES)),
        ("--accelerator", options.accelerator, _ACCELERATORS),
    ):
        if given not in known:
            raise UserError(unknown_name(f"value of {option}", given, [name for name in known if name]))
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found["gpu"] = any(found.values())
    if not found.get(options.accelerator, True):
        raise UserError(f"--accelerator {options.accelerator}: torch finds none here; take --accelerator cpu or auto.")
    if options.checkpoint_every not in (None, "never"):
        Interval.parse(options.checkpoint_every)


def with_top_genes(data: Any, options: TrainOptions) -> Any:
    """The data with the most variable genes, as many as ``--n-top-genes`` says; ``UserError`` where there are fewer."""
    n_top = options.n_top_genes
    if n_top is None:
        return data
    adata = modality_of_counts(data, options)
    x = counts_of(adata, options.layer, options.raw)
    if n_top > x.shape[1]:
        raise UserError(f"--n-top-genes {n_top}: the input has {x.shape[1]} genes; ask for that many or fewer.")
    chosen = of_genes(adata, top_variable_genes(x, n_top), options.raw)
    return chosen if data is adata else replaced(data, {str(options.rna): chosen})


def fitted_on(
    adata: Any, options: TrainOptions, quiet: bool, resumed: Path | None, checkpoints: Path | None
) -> tuple[Fitted, Clock]:
    """Train the model of the settings.

    Parameters
    ----------
    adata
        What the model takes.
    options
        Settings with the model's defaults filled in and values as the data have them.
    quiet
        Show no progress.
    resumed
        Checkpoints to go on with; None: training begins.
    checkpoints
        Folder of new ones; None: none are written.

    Returns
    -------
    The model, and how long its training took.
    """
    clock, never = Clock(), options.checkpoint_every == "never"
    training = {
        "max_epochs": options.max_epochs,
        "recipe": options.recipe,
        "seed": options.seed,
        "accelerator": options.accelerator,
        "devices": int(options.devices) if options.devices.isdecimal() else options.devices,
        "num_nodes": options.num_nodes,
        "precision": options.precision,
        "resume": resumed,
        "checkpoint_every": None if never else options.checkpoint_every,
        "checkpoint_dir": None if never else checkpoints,
        "verbose": 0 if quiet else 1,
        "callbacks": [clock],
    }
    kind = MODELS[options.model]
    given = {name: value for name, value in training.items() if value is not None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{NO_COUNTS}", UserWarning)  # said before, with the files
        return kind.fit(kind, adata, options, given), clock


def as_trained(options: TrainOptions, fitted: Fitted, resumed: Path | None) -> TrainOptions:
    """The settings of a training as it was: what a line with ``--resume`` left out is that of the killed run."""
    trainer = fitted.trained[0].trainer
    known: dict[str, Any] = {}
    if options.checkpoint_every is None:
        known["checkpoint_every"] = str(trainer.checkpointing.every)
    if options.max_epochs is None and resumed is not None:
        known["max_epochs"] = trainer.max_epochs
    return replace(options, **known)
