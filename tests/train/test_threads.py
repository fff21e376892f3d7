"""A run works on one number of threads from its first step to its last, resumed or not; a forked child never hangs."""

import hashlib
import logging
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from celbo.data import simulate_counts
from celbo.model import SCVI
from celbo.ops.native import waiting
from celbo.ops.native.openmp import OPENMP
from celbo.train import Callback
from celbo.train.checkpoints.folder import open_run

GENES = 300


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def model():
    adata = simulate_counts(400, GENES, seed=0)
    SCVI.setup_anndata(adata)
    return SCVI(adata, n_hidden=32)


def train(made=None, epochs=2, **kwargs):
    made = model() if made is None else made
    made.train(max_epochs=epochs, seed=0, verbose=0, accelerator="cpu", **kwargs)
    return made


def digest(made=None, epochs=2):
    """Of all weights after a training, and of the latents."""
    made = train(made, epochs)
    weights = [value.numpy() for value in made.module.state_dict().values()]
    parts = [*weights, made.get_latent_representation()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


class StopError(BaseException):
    """Nothing in celbo catches it."""


class Threads(Callback):
    """Keeps the number of threads of each minibatch, lets another library change it after each, may end the run."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        self.seen.append(torch.get_num_threads())

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if OPENMP is not None:
            OPENMP.set_threads(5)
        if len(self.seen) == self.stop_at:
            raise StopError


@pytest.mark.parametrize("asked", [1, 2])
def test_one_number_throughout_that_of_the_user(asked):
    torch.set_num_threads(asked)
    threads = Threads()
    train(callbacks=[threads])
    assert set(threads.seen) == {asked}
    assert torch.get_num_threads() == asked


@pytest.mark.parametrize(("first", "then", "taken", "words"), [(1, 2, 1, ""), (2, 2, 2, ""), (2, 1, 1, "threads 2")])
def test_a_resumed_run_takes_the_number_of_the_run(tmp_path, said, first, then, taken, words):
    torch.set_num_threads(first)
    whole = train(callbacks=[Threads()])
    with pytest.raises(StopError):
        train(callbacks=[Threads(stop_at=5)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    assert torch.get_num_threads() == first
    assert open_run(tmp_path).threads == first
    torch.set_num_threads(then)
    threads = Threads()
    resumed = train(callbacks=[threads], resume=tmp_path)
    assert set(threads.seen) == {taken}
    assert torch.get_num_threads() == then
    if taken == first:
        pairs = zip(whole.module.state_dict().values(), resumed.module.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    differences = [message for message in said(logging.WARNING) if "last digits" in message]
    assert [words in message for message in differences] == ([True] if words else [])


def test_answers_work_on_the_users_number(monkeypatch):
    made = train()
    seen, encode = [], made.module.inference
    monkeypatch.setattr(made.module, "inference", lambda **k: (seen.append(torch.get_num_threads()), encode(**k))[1])
    torch.set_num_threads(1)
    if OPENMP is not None:  # as numba's layer does when it starts
        OPENMP.set_threads(2)
        monkeypatch.setitem(sys.modules, "numba.np.ufunc.parallel", SimpleNamespace(_is_initialized=True))
        monkeypatch.setitem(sys.modules, "numba.core.config", SimpleNamespace(NUMBA_NUM_THREADS=2))
    made.get_latent_representation()
    made.get_elbo()
    assert set(seen) == {1}
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(OPENMP is None, reason="torch here has no GNU OpenMP")
def test_the_same_bits_whatever_others_want(monkeypatch):
    alone = digest(epochs=6)  # a few looks at the machine for each crowd
    crowds = []
    crowd = waiting._Crowd
    monkeypatch.setattr(waiting, "_Crowd", lambda n: crowds.append(n) or crowd(n))
    monkeypatch.setattr(waiting, "WINDOW", 0.0)
    monkeypatch.setattr(waiting, "seconds_waited", lambda: 0.0)
    monkeypatch.setattr(waiting, "SHORTEST", 0.001)
    monkeypatch.setattr(waiting, "LONGEST", 0.001)
    watch = waiting._Watch()
    monkeypatch.setattr(watch, "_others_waited_for", lambda now: True)
    monkeypatch.setattr(waiting, "_watch", watch)
    assert digest(epochs=6) == alone
    assert len(crowds) > 3
    assert not watch.crowded


def test_the_same_bits_in_two_threads_at_once():
    alone, found = digest(), []
    threads = [threading.Thread(target=lambda: found.append(digest())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone, alone]


ANOTHER = """
import sys; sys.path.insert(0, sys.argv[1])
import multiprocessing, os, warnings
import torch; torch.set_num_threads(2)
import test_threads
warnings.simplefilter("ignore")
print("digest", test_threads.digest())

made = test_threads.train()
large = torch.rand(2000, 2000); large.exp().sum(); large @ large

def child(asks):
    if asks: torch.set_num_threads(2)
    for model in (made, None):
        model = test_threads.train(model, epochs=1)
        model.get_latent_representation(); model.get_elbo(); model.get_normalized_expression()
        model.differential_expression(idx1=range(9), idx2=range(9, 30))
    (large.exp().sum(), large @ large)
    print("child", torch.get_num_threads(), flush=True)

for asks in (False, True) if hasattr(os, "fork") else ():
    process = multiprocessing.get_context("fork").Process(target=child, args=(asks,))
    process.start(); process.join()
    print("exit code", process.exitcode)
threads = test_threads.Threads()
test_threads.train(made, callbacks=[threads])
print("parent", set(threads.seen), torch.get_num_threads())

from numba.np.ufunc import parallel
torch.set_num_threads(1)
parallel._launch_threads()  # as the first parallel function does
threads = test_threads.Threads()
test_threads.train(made, callbacks=[threads])
print("after numba", set(threads.seen), torch.get_num_threads())
"""


@pytest.fixture(scope="module")
def another_process():
    """What another process said; it would hang for ever if a forked child waited for threads it does not have."""
    command = [sys.executable, "-c", ANOTHER, os.path.dirname(__file__)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_same_bits_in_another_process(another_process):
    assert f"digest {digest()}" in another_process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_trains_and_answers_on_one_thread_whatever_it_asks_for(another_process):
    assert another_process[1:-1] == ["child 1", "exit code 0", "child 1", "exit code 0", "parent {2} 2"]


def test_numbas_own_layer_does_not_count(another_process):
    assert another_process[-1] == "after numba {1} 1"
