"""What one of two processes does in tests/train/test_processes.py: ``python two_processes.py FOLDER``.

Latents are their means and there is no batch normalisation here, so that two processes with half the batch size do what
one does with the whole, up to the order of sums.
"""

import atexit
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from celbo.data import simulate_counts
from celbo.io import write_archive
from celbo.model import MULTIVI, SCANVI, SCVI, TOTALVI
from celbo.module import Classifier
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


WITHOUT_NORMS = {"use_batch_norm": "none", "use_layer_norm": "none"}


def without_dropout(model):
    """The model; the protein decoder of MULTIVI has a dropout that no argument reaches."""
    for part in model.module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def totalvi():
    """Genes and proteins; the second batch lacks one protein, which turns an adversary on."""
    adata, rng = counts(), np.random.default_rng(1)
    proteins = rng.poisson(rng.gamma(1.0, 5.0, (3, 12))[adata.obs["cell_type"].cat.codes]).astype(np.float32)
    proteins[(adata.obs["batch"] == "batch_1").to_numpy(), 3] = 0
    names = [f"protein_{p}" for p in range(12)]
    adata.obsm["protein"] = pd.DataFrame(proteins, index=adata.obs_names, columns=names)
    TOTALVI.setup_anndata(adata, "protein", batch_key="batch")
    return without_dropout(TOTALVI(adata, n_latent=3, n_hidden=8, **WITHOUT_NORMS))


def multivi():
    """A mosaic: genes of most cells, regions of most, proteins of some."""
    import mudata

    cells, number = counts(), np.arange(211)
    has = {"rna": number % 4 != 1, "peaks": number % 4 != 2, "adt": number % 3 == 0}
    parts = {}
    for seed, (name, has_n) in enumerate(has.items()):
        part = simulate_counts(211, 16 + 4 * seed, n_cell_types=3, n_batches=2, seed=seed)
        part.obs, part.var_names = cells.obs[["batch"]].copy(), [f"{name}_{j}" for j in range(part.n_vars)]
        parts[name] = part[has_n].copy()
    modalities = {"rna_layer": "rna", "atac_layer": "peaks", "protein_layer": "adt", "batch_key": "rna"}
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData(parts)
        MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    return without_dropout(MULTIVI(mdata, n_hidden=8, n_latent=3, **WITHOUT_NORMS))


def run_of(name):
    """Arguments of training, with a classifier without noise, and an ``eps`` beside which rounding is nothing."""
    of_model = {"TOTALVI": {"n_epochs_kl_warmup": 4}, "MULTIVI": {"adversarial_mixing": True, "eps": 0.01}}[name]
    classifier = Classifier(3, 8, 2, dropout_rate=0.0, logits=True, use_batch_norm=False)
    torch.manual_seed(0)
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    plan = {"adversarial_classifier": classifier, "scale_adversarial_loss": 1.0}
    return RUN | of_model | {"plan_kwargs": RUN["plan_kwargs"] | plan}


MAKE = {"TOTALVI": totalvi, "MULTIVI": multivi}


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


def multimodal_runs(folder, rank):
    """The same of models of several modalities, each with an adversary."""
    for name, make in MAKE.items():
        if name == "MULTIVI" and importlib.util.find_spec("mudata") is None:
            continue
        model = make()
        model.train(**run_of(name), batch_size=BATCH_SIZE // 2)
        keep(folder / f"{name}-{rank}", model)


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


def main(folder, rank):
    """All of it, in each process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    say_at_exit(folder)
    torch.set_num_threads(1)
    as_it_is = torch.distributions.Normal.rsample
    use_means()
    from celbo.train.engines.engine import make_engine

    rank = make_engine("cpu").rank
    whole_run(folder, rank)
    multimodal_runs(folder, rank)
    torch.distributions.Normal.rsample = as_it_is
    killed_run(folder, rank)
    labelled_run(folder, rank)
    mixed_run(folder, rank)
    broken_run(folder, rank)
    command_line(folder)


def both(folder):
    """Two processes: the first imports what both need, once, and forks before it does anything else."""
    child = os.fork()
    rank = int(child == 0)
    said = os.open(folder / f"said-{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    try:
        main(folder, rank)
    finally:  # the command line ends in an exit
        if child and (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])):
            sys.exit(code)


if __name__ == "__main__":
    both(Path(sys.argv[1]))
