"""What one of two processes does in tests/train/test_processes.py: ``python two_processes.py FOLDER``, under torchrun.

Latents are their means and there is no batch normalisation here, so that two processes with half the batch size do what
one does with the whole, up to the order of sums.
"""

import atexit
import os
import sys
from pathlib import Path

import numpy as np
import torch

from celbo.data import simulate_counts
from celbo.io import write_archive
from celbo.model import SCANVI, SCVI
from celbo.train import AdversarialTrainingPlan, Callback, NonFiniteLossError

BATCH_SIZE = 32
RUN = {
    "max_epochs": 3,
    "seed": 1,
    "accelerator": "cpu",
    "recipe": "classic",
    "train_size": 0.8,
    "early_stopping": True,
    "check_val_every_n_epoch": 1,
    "keep_best": True,
    "plan_kwargs": {"lr": 0.01},
    "verbose": 0,
}


def use_means():
    """Let normal distributions give their means."""
    torch.distributions.Normal.rsample = lambda self, shape=(): self.loc.expand(self._extended_shape(shape))


def counts():
    """211 cells: 169 to train on and 42 to validate on, neither of which two processes can share out evenly."""
    adata = simulate_counts(211, 20, n_cell_types=3, n_batches=2, seed=0)
    labels = adata.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[::2] = "unknown"
    adata.obs["labels"] = labels
    return adata


def scvi(adata=None):
    """A model without noise."""
    adata = counts() if adata is None else adata
    SCVI.setup_anndata(adata, batch_key="batch")
    return SCVI(adata, n_hidden=8, use_batch_norm="none", use_layer_norm="none", dropout_rate=0.0)


def keep(path, model):
    """Weights, history and latents."""
    history = {name: frame[name].tolist() for name, frame in model.history_.items()}
    latent = {"latent": torch.from_numpy(np.ascontiguousarray(model.get_latent_representation()))}
    write_archive(path, {**model.module.state_dict(), **latent}, {"history": history})


class Killed(Callback):
    """End the run after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyError("killed")


def whole_run(folder, rank):
    """The same as one process; checkpoints of the model are written by one."""
    model = scvi()
    model.train(**RUN, batch_size=BATCH_SIZE // 2, enable_checkpointing=True, log_save_dir=folder / "best")
    keep(folder / f"whole-{rank}", model)


def killed_run(folder, rank):
    """Ended within the second epoch and gone on with; with noise and batch normalisation."""
    SCVI.setup_anndata(adata := counts(), batch_key="batch")
    for name, step in (("killed", 8), ("uninterrupted", -1)):
        options = RUN | {"batch_size": BATCH_SIZE // 2, "callbacks": [Killed(step)]}
        try:
            model = SCVI(adata, n_hidden=8)
            model.train(**options, checkpoint_every="3 steps", checkpoint_dir=folder / f"checkpoints-{name}")
        except KeyError:
            model = SCVI(adata, n_hidden=8)
            model.train(**(options | {"callbacks": [Killed(-1)]}), resume=folder / f"checkpoints-{name}")
        keep(folder / f"{name}-{rank}", model)


def labelled_run(folder, rank):
    """Pairs of minibatches."""
    SCANVI.setup_anndata(adata := counts(), labels_key="labels", unlabeled_category="unknown", batch_key="batch")
    model = SCANVI(adata, n_hidden=8)
    model.train(max_epochs=2, batch_size=40, seed=1, accelerator="cpu", n_samples_per_label=10, verbose=0)
    keep(folder / f"labelled-{rank}", model)


class Mixing(SCVI):
    """With an adversary, whose optimizer is a second one."""

    _training_plan_cls = AdversarialTrainingPlan


def mixed_run(folder, rank):
    """Two optimizers, one of parameters that no strategy knows."""
    Mixing.setup_anndata(adata := counts(), batch_key="batch")
    model, weights = Mixing(adata, n_hidden=8), {}

    class Keep(Callback):
        def on_train_end(self, trainer, plan):
            named = plan.adversarial_classifier.named_parameters()
            weights.update({name: value.detach().clone() for name, value in named})

    options = {"plan_kwargs": {"adversarial_classifier": True}, "callbacks": [Keep()], "accumulate_grad_batches": 2}
    model.train(max_epochs=2, batch_size=20, seed=1, accelerator="cpu", verbose=0, recipe="classic", **options)
    history = {name: frame[name].tolist() for name, frame in model.history_.items()}
    write_archive(folder / f"mixed-{rank}", {**model.module.state_dict(), **weights}, {"history": history})


def broken_run(folder, rank):
    """A loss that is not finite in one process ends both."""
    model = scvi()

    class Breaking(Callback):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            if rank == 1 and trainer.global_step == 3:
                batch["X"][0, 0] = float("nan")

    try:
        model.train(**RUN, batch_size=BATCH_SIZE, callbacks=[Breaking()])
    except NonFiniteLossError as error:
        (folder / f"broken-{rank}.txt").write_text(str(error))


def command_line(folder):
    """``celbo train``, as ``torchrun -m celbo train`` runs it."""
    from celbo.cli import app

    sys.argv = ["celbo"]
    options = ["--max-epochs", "2", "--seed", "3", "--checkpoint-every", "1 epoch", "-o", str(folder / "run")]
    app(["train", str(folder / "cells.h5ad"), "--batch-key", "batch", *options])


def say_at_exit(folder):
    """Whether the group of processes is still there when all that celbo and Fabric do at exit has been done."""
    rank = os.environ["RANK"]
    atexit.register(lambda: (folder / f"left-{rank}.txt").write_text(str(not torch.distributed.is_initialized())))


def main():
    """All of it, in each process."""
    folder = Path(sys.argv[1])
    say_at_exit(folder)
    torch.set_num_threads(1)
    as_it_is = torch.distributions.Normal.rsample
    use_means()
    from celbo.train.engines.engine import make_engine

    rank = make_engine("cpu").rank
    whole_run(folder, rank)
    torch.distributions.Normal.rsample = as_it_is
    killed_run(folder, rank)
    labelled_run(folder, rank)
    mixed_run(folder, rank)
    broken_run(folder, rank)
    command_line(folder)


if __name__ == "__main__":
    main()
