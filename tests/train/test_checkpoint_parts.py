"""Checkpoints that are whole and make no sense: one error that names the file and the part, before a run is touched."""

import math

import numpy as np
import pytest
import torch
from tests.io.hostile import bounded

from celbo.data import synthetic_iid
from celbo.io import ArchiveError, read_archive, write_archive
from celbo.model import SCVI

TRAINING = {"max_epochs": 2, "batch_size": 8, "seed": 0, "verbose": 0, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def adata():
    adata = synthetic_iid(batch_size=8, n_genes=6, seed=0)
    SCVI.setup_anndata(adata, batch_key="batch")
    return adata


@pytest.fixture(scope="module")
def first(adata, tmp_path_factory):
    """The document of a checkpoint in the middle of the second epoch, read anew each time."""
    folder = tmp_path_factory.mktemp("run")
    SCVI(adata, n_hidden=4, n_latent=2).train(**TRAINING, checkpoint_every="3 steps", checkpoint_dir=str(folder))
    return lambda: read_archive(folder / "checkpoint-000002").document


@pytest.fixture
def resumed(adata, first, tmp_path):
    """Resume from the checkpoint after a change to it."""

    def resume(edit):
        document = first()
        edit(document)
        write_archive(tmp_path / "checkpoint-000002", {}, document)
        model = SCVI(adata, n_hidden=4, n_latent=2)
        model.train(**TRAINING, resume=tmp_path)
        return model

    return resume


def test_the_checkpoint_itself_is_taken(resumed):
    assert len(resumed(lambda document: None).history["elbo_train"]) == 2


PARTS = ["identity", "progress", "weights", "plan_weights", "gradients", "plan", "optimizers", "schedules"]
PARTS += ["processes", "loaders", "callbacks", "history", "start"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [..., None, "x", 3, {"x": 1}, [1]], ids=str)
def test_parts_that_are_others(resumed, part, value):
    def edit(document):
        if value is ...:
            del document[part]
        else:
            document[part] = value

    with bounded(), pytest.raises(ArchiveError, match=rf"checkpoint-000002.* {part}"):
        resumed(edit)


def momenta(document):
    return document["optimizers"][0]["state"][0]


def px_r(document):
    return document["weights"]["px_r"]


CHANGES = {
    "progress a text": (lambda d: d["progress"].update(global_step="3"), "progress.*global_step.*whole number"),
    "progress negative": (lambda d: d["progress"].update(current_epoch=-1), "progress.*current_epoch"),
    "a flag a number": (lambda d: d["progress"].update(should_stop=0), "progress.*should_stop"),
    "weight of another shape": (lambda d: d["weights"].update(px_r=px_r(d)[:2]), r"weights.*px_r.*\(2,\).*\(6,\)"),
    "weight of another kind": (lambda d: d["weights"].update(px_r=px_r(d).bool()), "weights.*px_r.*bool"),
    "weight missing": (lambda d: d["weights"].pop("px_r"), "weights.*px_r.*missing"),
    "learning rate a text": (lambda d: d["plan"].update(lr="fast"), "plan.*lr.*a number"),
    "learning rate infinite": (
        lambda d: d["optimizers"][0]["param_groups"][0].update(lr=math.inf),
        "optimizers.*finite",
    ),
    "learning rate missing": (
        lambda d: d["optimizers"][0]["param_groups"][0].update(lr=None),
        "optimizers.*lr.*None, wanted a number",
    ),
    "a switch the other way": (
        lambda d: d["optimizers"][0]["param_groups"][0].update(amsgrad=True),
        "optimizers.*amsgrad.*True, wanted False",
    ),
    "step of a schedule missing": (
        lambda d: d["schedules"][0].update(last_epoch=None),
        "schedules.*last_epoch.*None, wanted a number",
    ),
    "best value a text": (lambda d: d["callbacks"][0][1].update(best="x"), "callbacks.*best.*a number"),
    "first loss a text": (lambda d: d["start"].update(first_loss="x"), "start.*first_loss.*a number"),
    "no optimizer": (lambda d: d["optimizers"].clear(), "optimizers.*a list of 1"),
    "other parameters": (lambda d: d["optimizers"][0]["param_groups"][0].update(params=[0]), "optimizers.*parameters"),
    "momentum of another shape": (lambda d: momenta(d).update(exp_avg=torch.ones(1)), "optimizers.*fit the parameters"),
    "momentum a list": (lambda d: momenta(d).update(exp_avg=[1.0]), "optimizers.*fit the parameters"),
    "step of another shape": (lambda d: momenta(d).update(step=torch.ones(3)), "optimizers.*fit the parameters"),
    "momentum missing": (lambda d: momenta(d).pop("exp_avg"), "optimizers.*values by parameter"),
    "rates cut": (lambda d: d["schedules"][0].update(base_lrs=[]), "schedules.*base_lrs.*a list of 2"),
    "no process": (lambda d: d["processes"].clear(), "processes.*process 0"),
    "generator a number": (lambda d: d["processes"][0]["generators"].update(cpu=5), "processes.*cpu.*bytes"),
    "generator cut": (lambda d: d["processes"][0]["generators"].update(cpu=torch.zeros(3, dtype=torch.uint8)), ""),
    "sums without names": (lambda d: d["processes"][0]["metrics"].update(names=["x"]), "processes.*a sum for each"),
    "behind the end": (lambda d: d["loaders"]["train"].update(batch=10**6), "loaders.*before its end"),
    "loader of others": (lambda d: d["loaders"]["train"].update(n=3), "n=3"),
    "another callback": (lambda d: d["callbacks"][0].__setitem__(0, "Other"), "Other"),
    "half a callback": (lambda d: d["callbacks"][0].pop(), "callbacks.*a list of 2"),
    "curve cut": (lambda d: d["history"]["values"]["elbo_train"].pop(), "history.*as many places"),
    "curve of texts": (lambda d: d["history"]["values"].update(elbo_train=["x"]), "history.*elbo_train.*a number"),
    "curve by nothing": (lambda d: d["history"]["index_name"].update(elbo_train=[]), "history.*'epoch' or 'step'"),
    "attempt a text": (lambda d: d["start"].update(attempt="x"), "start.*attempt"),
    "start of another shape": (lambda d: d["start"].update(weights={"px_r": torch.ones(2)}), "start.*weights"),
    "seed a text": (lambda d: d["identity"]["trainer"].update(seed="x"), "identity.*seed"),
    "another layout": (lambda d: d.update(format=99), "layout.*99"),
    "array for a dictionary": (lambda d: d.update(start=np.ones(3)), "start.*dictionary"),
}


@pytest.mark.parametrize("which", CHANGES)
def test_changes(resumed, which):
    edit, says = CHANGES[which]
    with bounded(), pytest.raises(ArchiveError, match=f"checkpoint-000002.*{says}"):
        resumed(edit)
