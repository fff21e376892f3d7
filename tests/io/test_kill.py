"""``kill -9`` in the middle of saving, at moments of chance: the folder always holds one whole archive."""

import os
import subprocess
import sys

import pytest

from celbo.io import read_archive, write_archive

# One process imports torch and then, for each kind of archive, forks a child a round: the child saves without end, the
# parent kills it and looks at the folder.
ROUNDS = """
import os, random, signal, sys, time
import numpy as np, torch
from celbo.io import read_archive, read_scvi_archive, write_archive, write_scvi_archive

names = np.array(["a"], dtype=object)

def save(i):
    state = {"w": torch.full((100_000,), float(i))}
    if kind == "celbo":
        write_archive(folder, state, {"i": i}, overwrite=True)
    else:
        write_scvi_archive(folder, state, names, {"registry_": {}, "init_params_": {"i": i}}, overwrite=True)

def saved():
    if kind == "celbo":
        arrays, document = read_archive(folder)
        return arrays["w"], document["i"]
    archive = read_scvi_archive(folder)
    return archive.state_dict["w"], archive.attributes["init_params_"]["i"]

for kind in ("celbo", "scvi"):
    folder, moments = os.path.join(sys.argv[1], kind), random.Random(0)
    save(0)
    for _ in range(12):
        start = saved()[1] + 1
        child = os.fork()
        if not child:
            for i in range(start, start + 10**9):
                save(i)
        time.sleep(0.03 + 0.05 * moments.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        weights, i = saved()
        assert torch.equal(weights, torch.full((100_000,), float(i))), i
        assert i >= start - 1
    print("last", saved()[1])
"""


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """The folder with an archive of each kind, and the number of the last one saved."""
    if os.name == "nt":
        pytest.skip("no SIGKILL")
    folder = tmp_path_factory.mktemp("killed")
    for kind in ("celbo", "scvi"):
        (folder / kind).mkdir()
        (folder / kind / "user.txt").write_text("mine")
    command = [sys.executable, "-c", ROUNDS, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder, dict(zip(("celbo", "scvi"), map(int, done.stdout.split()[1::2]), strict=True))


@pytest.mark.parametrize("kind", ["celbo", "scvi"])
def test_a_killed_save_leaves_a_whole_archive(rounds, kind):
    folder, last = rounds
    assert last[kind] > 3
    assert (folder / kind / "user.txt").read_text() == "mine"
    if kind == "celbo":
        assert read_archive(folder / kind).document["i"] > 3
        write_archive(folder / kind, {}, {}, overwrite=True)
        assert sorted(p.name for p in (folder / kind).iterdir()) == ["model.json", "model.safetensors", "user.txt"]
