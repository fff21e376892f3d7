"""Two processes on the CPU (gloo), started as torchrun does: the figures of one process, one that writes and speaks."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from celbo.core import is_first_process
from celbo.dataloaders import sampler as sampler_module
from celbo.dataloaders.sampler import EpochSampler
from celbo.io import read_archive
from celbo.model import SCVI
from celbo.train.engines.engine import asks_for_several, several_processes

from . import two_processes

SCRIPT = Path(__file__).with_name("two_processes.py")


def environment(port):
    return os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the two processes left behind, and what they said."""
    pytest.importorskip("lightning_fabric", reason="several processes need lightning-fabric")
    if not hasattr(os, "fork"):
        pytest.skip("nothing forks here")
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("two")
    two_processes.counts().write_h5ad(folder / "cells.h5ad")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SCRIPT), str(folder)]
    with subprocess.Popen(command, env=environment(port), start_new_session=True) as running:
        try:
            code = running.wait(timeout=240)
        finally:
            if running.returncode is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert code == 0, "".join((folder / f"said-{rank}.txt").read_text()[-3000:] for rank in (0, 1))
    return folder


def of_both(folder, name):
    """Results of the two processes, which must be equal."""
    (weights, document), (others, other_document) = (read_archive(folder / f"{name}-{rank}") for rank in (0, 1))
    for key, value in weights.items():
        assert torch.equal(value, others[key]), key
    assert document == other_document
    return weights, document["history"]


@pytest.fixture
def means(monkeypatch):
    """Normal distributions give their means in this process too, until the test ends."""
    monkeypatch.setattr(torch.distributions.Normal, "rsample", torch.distributions.Normal.rsample)
    two_processes.use_means()


@pytest.mark.usefixtures("means")
def test_metrics_are_those_of_one_process(folder):
    one = two_processes.scvi()
    one.train(**two_processes.RUN, batch_size=two_processes.BATCH_SIZE)
    assert_same(folder, "whole", one)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("name", two_processes.MAKE)
def test_several_modalities_are_those_of_one_process(folder, name):
    """With the adversary's losses, a mask of proteins, and cells that lack a modality."""
    if name == "MULTIVI":
        pytest.importorskip("mudata", reason="the optional package mudata is not installed")
    one = two_processes.MAKE[name]()
    one.train(**two_processes.run_of(name), batch_size=two_processes.BATCH_SIZE)
    assert {"fool_loss_train", "adversarial_loss_train"} <= set(one.history_)
    assert_same(folder, name, one)


def assert_same(folder, name, one):
    """Both processes have the weights, history and latents of one."""
    weights, history = of_both(folder, name)
    assert set(history) == set(one.history_)
    for name, frame in one.history_.items():
        assert history[name] == pytest.approx(frame[name].tolist(), rel=1e-6, abs=1e-9), name
    for name, value in one.module.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weights["latent"].numpy(), one.get_latent_representation(), rtol=1e-3, atol=1e-5)


def test_one_process_writes(folder):
    saved = list((folder / "best").iterdir())
    assert len(saved) == 1
    assert SCVI.load(str(saved[0]), adata=False).is_trained_


def test_processes_leave_their_group(folder):
    assert [(folder / f"left-{rank}.txt").read_text() for rank in (0, 1)] == ["True", "True"]


def test_a_run_that_was_ended_goes_on_exactly(folder):
    killed, killed_history = of_both(folder, "killed")
    whole, history = of_both(folder, "uninterrupted")
    for name, value in whole.items():
        assert torch.equal(value, killed[name]), name
    assert killed_history == history


def test_pairs_of_minibatches(folder):
    _, history = of_both(folder, "labelled")
    assert len(history["train_accuracy"]) == len(history["elbo_validation"]) == 2


def test_an_adversary_is_one_in_both(folder):
    weights, history = of_both(folder, "mixed")
    assert len(history["adversarial_loss_train"]) == 2
    assert any(name.startswith("classifier.") for name in weights)


def test_a_loss_that_is_not_finite_ends_both(folder):
    first, second = ((folder / f"broken-{rank}.txt").read_text() for rank in (0, 1))
    assert "another process" in first
    assert "input 'X' of 1 cell" in second


def test_command_line(folder):
    embedding = anndata.read_h5ad(folder / "run" / "embedding.h5ad")
    assert list(embedding.obs_names) == list(two_processes.counts().obs_names)
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "embedding.h5ad",
        "history.csv",
        "model",
        "report.html",
        "run.json",
    ]
    assert "2 epochs in" in (folder / "said-0.txt").read_text()
    assert (folder / "said-1.txt").read_text() == ""


@pytest.mark.parametrize("n", [1, 2, 5, 31, 32, 33, 34, 37, 64, 65])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("merge", [False, True])
def test_shares_of_minibatches(n, size, merge):
    """Together the processes do what one does with larger minibatches; each position is given out once."""
    options = {"shuffle": True, "seed": 3, "merge_small_tail": merge}
    samplers = [EpochSampler(n, 8, **options) for _ in range(size)]
    for rank, sampler in enumerate(samplers):
        sampler.take_share(rank, size)
    for _ in range(2):
        parts = [list(sampler) for sampler in samplers]
        assert {len(part) for part in parts} == {len(samplers[0])}  # as many steps
        assert sorted(np.concatenate([np.concatenate(part) for part in parts])) == list(range(n))
        sizes = np.array([[len(batch) for batch in part] for part in parts])
        assert (sizes.max(0) - sizes.min(0)).max() <= 1
        if merge and n > 8 * size:
            assert sizes.min() >= sampler_module.SMALL_TAIL
    weights = [sampler.last_weight for sampler in samplers]
    assert sum(weights) == pytest.approx(size)
    one = EpochSampler(n, 8 * size, **(options | {"merge_small_tail": False}))
    if not merge:
        samplers[0].load_state_dict(samplers[0].state_dict() | {"epoch": 0, "batch": 0})
        for mine, all_of_it in zip(samplers[0], one, strict=True):
            np.testing.assert_array_equal(mine, all_of_it[::size])


def test_which_process_speaks(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    assert not several_processes({})
    monkeypatch.setenv("RANK", "1")
    assert is_first_process()  # alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    assert several_processes({})
    monkeypatch.delenv("RANK")
    assert is_first_process()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first_process()


@pytest.mark.parametrize(
    ("devices", "nodes", "several"),
    [("auto", 1, False), (1, 1, False), ([0], 1, False), (2, 1, True), ("auto", 2, True)],
)
def test_who_asks_for_several(devices, nodes, several):
    assert asks_for_several(devices, nodes) is several
