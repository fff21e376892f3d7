"""Checkpoints on a disk that loses bytes, is full, or may not be written to."""

import errno
import logging
import os
import shutil

import numpy as np
import pytest
import torch

from celbo.io import ArchiveError
from celbo.train.checkpoints.folder import CheckpointFolder, find_checkpoints, open_run


def state(step):
    return {"step": step, "w": torch.full((40,), float(step)), "identity": {"trainer": {"seed": 3}}}


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of steps 1 and 2."""
    checkpoints = CheckpointFolder(tmp_path / "run")
    for step in (0, 1, 2):
        checkpoints.write(state(step))
    return checkpoints


def steps_in(path):
    return [open_run_at(p).state["step"] for p in find_checkpoints(path)]


def open_run_at(path):
    lonely = path.parent.parent / "lonely"
    shutil.rmtree(lonely, ignore_errors=True)
    shutil.copytree(path, lonely / path.name)
    return open_run(lonely)


def test_the_newest_two_are_kept(folder):
    assert steps_in(folder.path) == [1, 2]
    assert open_run(folder.path).state["step"] == 2
    assert open_run(folder.path).seed == 3
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoint-000002", "checkpoint-000003"]


def test_the_folder_above_is_good_enough(folder):
    shutil.copytree(folder.path, folder.path.parent / "output" / "checkpoints")
    assert open_run(folder.path.parent / "output").state["step"] == 2


def damages(path, rng):
    """Every way that a checkpoint breaks: each file cut short or with a byte flipped, at moments of chance, or gone."""
    for name in ("model.json", "model.safetensors"):
        raw = (path / name).read_bytes()
        for at in [0, 1, len(raw) - 1, *rng.integers(2, len(raw) - 1, 60).tolist()]:
            yield name, raw[:at]
            yield name, raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :]
        yield name, raw + b"\0"
        yield name, None


def test_a_damaged_one_is_passed_over_and_said(folder, rng, said):
    """250 damages: the one before it is taken each time."""
    newest = find_checkpoints(folder.path)[-1]
    n = 0
    for name, raw in list(damages(newest, rng)):
        whole = (newest / name).read_bytes()
        if raw is None:
            (newest / name).unlink()
        else:
            (newest / name).write_bytes(raw)
        run = open_run(folder.path)
        assert (run.state["step"], run.damaged) == (1, (newest,))
        assert torch.equal(run.state["w"], torch.full((40,), 1.0))
        (newest / name).write_bytes(whole)
        n += 1
        assert f"{newest} is damaged, checkpoint-000002 before it is taken" in said(logging.WARNING)[-1]
    assert n > 200
    assert open_run(folder.path).state["step"] == 2


def test_all_damaged_is_an_error_that_names_them(folder):
    for path in find_checkpoints(folder.path):
        (path / "model.json").write_bytes(b"{}")
    with pytest.raises(ArchiveError, match=r"None of the 2 checkpoints in .*run can be read.*checkpoint-000003"):
        open_run(folder.path)


def test_damaged_ones_go_once_there_are_two_others(folder):
    newest = find_checkpoints(folder.path)[-1]
    (newest / "model.json").unlink()
    run = open_run(folder.path)
    again = CheckpointFolder(run.folder, run.path, set(run.damaged))
    again.write(state(5))
    assert steps_in_names(folder.path) == ["checkpoint-000002", "checkpoint-000004"]
    again.write(state(6))
    assert steps_in(folder.path) == [5, 6]


def steps_in_names(path):
    return [p.name for p in find_checkpoints(path)]


def test_what_a_kill_left_unfinished_is_cleared_away(folder):
    (folder.path / "partial-checkpoint").mkdir()
    (folder.path / "partial-checkpoint" / "model.safetensors").write_bytes(b"half")
    (folder.path / "discarded-checkpoint-checkpoint-000001").mkdir()
    assert open_run(folder.path).state["step"] == 2
    folder.write(state(3))
    assert steps_in(folder.path) == [2, 3]
    assert len(list(folder.path.iterdir())) == 2


@pytest.mark.parametrize("where", range(1, 12))
def test_a_full_disk_leaves_what_was_there(folder, monkeypatch, where):
    """Whichever call of the system says so."""
    calls = {"n": 0}

    def failing(function):
        def call(*args, **kwargs):
            calls["n"] += 1
            if calls["n"] == where:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "replace"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    failure = None
    try:
        folder.write(state(3))
    except ArchiveError as error:
        failure = str(error)
    monkeypatch.undo()
    assert calls["n"] >= where
    assert failure is None or "No space left on device" in failure
    assert open_run(folder.path).state["step"] in ((2, 3) if failure else (3,))
    folder.newest = find_checkpoints(folder.path)[-1]
    folder.write(state(4))
    assert steps_in(folder.path)[-1] == 4
    assert len(list(folder.path.iterdir())) == 2


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArchiveError, match="file"):
        CheckpointFolder(tmp_path / "file" / "run").write(state(0))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ArchiveError, match=r"Permission denied|Read-only"):
        CheckpointFolder(tmp_path / "locked" / "run").write(state(0))


def test_two_runs_in_one_folder_are_noticed(folder):
    other = CheckpointFolder(folder.path, folder.newest)
    other.write(state(3))
    with pytest.raises(ArchiveError, match="Another run"):
        folder.write(state(3))


def test_numbers_are_exact(tmp_path):
    """Infinities, NaN, the smallest numbers, and a generator's state come back bit for bit."""
    odd = np.array([np.inf, -np.inf, 5e-324, 0.1, -0.0])
    generator = torch.Generator().manual_seed(5)
    kept = {
        "floats": odd.tolist(),
        "tensor": torch.tensor([float("nan"), float("inf"), 1e-45]),
        "generator": generator.get_state(),
        "nested": {3: [(1, 2.5), {"a": torch.zeros(0)}]},
        "identity": {},
    }
    CheckpointFolder(tmp_path).write(kept)
    back = open_run(tmp_path).state
    assert np.array(back["floats"]).tobytes() == odd.tobytes()
    assert back["tensor"].numpy().tobytes() == kept["tensor"].numpy().tobytes()
    assert torch.equal(back["generator"], kept["generator"])
    assert back["nested"][3][0] == (1, 2.5)
    assert back["nested"][3][1]["a"].shape == (0,)
