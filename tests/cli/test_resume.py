"""``celbo train --resume``: checkpoints in the output folder until the run is complete."""

import json

import anndata
import numpy as np
import pytest

from celbo.cli import runs
from celbo.io import ArchiveError
from celbo.model import SCVI
from celbo.train import trainer as trainer_module
from celbo.train.checkpoints.folder import find_checkpoints
from celbo.train.checkpoints.schedule import TerminatedError

OPTIONS = ["--max-epochs", 4, "--n-top-genes", 30, "--checkpoint-every", "1 epoch"]
FILES = ["embedding.h5ad", "history.csv", "model", "report.html", "run.json"]


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def end_in_epoch(monkeypatch):
    """Let training end with an error at the beginning of an epoch; None: no more."""
    run_epoch = trainer_module.run_epoch

    def arrange(epoch, error=None):
        def ended(trainer):
            if trainer.current_epoch == epoch:
                raise error or OSError("the machine went away")
            return run_epoch(trainer)

        monkeypatch.setattr(trainer_module, "run_epoch", ended)

    return arrange


@pytest.fixture
def failed(small, celbo, tmp_path, end_in_epoch):
    """A run that failed after two epochs."""
    end_in_epoch(2)
    done = celbo("train", small.path, *OPTIONS, "--seed", 5, "-o", tmp_path / "run")
    end_in_epoch(None)
    return done


def test_a_failed_run_keeps_its_checkpoints_and_goes_on(failed, small, celbo, tmp_path):
    run = tmp_path / "run"
    assert failed.exit_code == 2
    assert "celbo: the machine went away" in failed.stderr
    assert "the same line with --resume goes on" in failed.stderr
    assert files_in(run) == ["checkpoints"]
    done = celbo("train", small.path, *OPTIONS, "-o", run, "--resume")  # the seed is the run's
    assert done.exit_code == 0, done.stderr
    assert "Resumed from" in done.stderr
    assert files_in(run) == FILES
    assert files_in(tmp_path) == ["run"]
    whole = celbo("train", small.path, *OPTIONS, "--seed", 5, "-o", tmp_path / "whole")
    assert whole.exit_code == 0
    one, other = (anndata.read_h5ad(tmp_path / name / "embedding.h5ad") for name in ("run", "whole"))
    np.testing.assert_array_equal(one.obsm["X_celbo"], other.obsm["X_celbo"])
    assert (run / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


def test_how_far_a_killed_run_is(failed, celbo, tmp_path):
    run = tmp_path / "run"
    done = celbo("info", run)
    assert done.exit_code == 0
    assert "checkpoints of a SCVI at epoch 2 of 4: the same celbo train with --resume goes on" in " ".join(
        done.stdout.split()
    )
    assert "at epoch 2 of 4" in celbo("report", run, run, "-o", tmp_path / "r.html").stderr
    for folder in (run, run / "checkpoints", find_checkpoints(run / "checkpoints")[0]):
        with pytest.raises(ArchiveError, match=r"SCVI at epoch 2 of 4: train\(resume=.*\) goes on"):
            SCVI.load(folder, adata=False)


def test_what_the_line_leaves_out_is_that_of_the_killed_run(failed, small, celbo, tmp_path):
    done = celbo("train", small.path, "--n-top-genes", 30, "-o", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["figures"]["epochs"] == record["settings"]["max_epochs"] == 4
    assert (record["settings"]["checkpoint_every"], record["settings"]["seed"]) == ("1 epoch", 5)


def test_checkpoints_are_not_written_over(failed, small, celbo, tmp_path):
    done = celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "go on with --resume, or start again with --overwrite" in done.stderr
    assert len(find_checkpoints(tmp_path / "run" / "checkpoints")) == 2


def test_other_options_are_refused_with_the_reason(failed, small, celbo, tmp_path):
    done = celbo("train", small.path, *OPTIONS, "--n-latent", 3, "-o", tmp_path / "run", "--resume")
    assert done.exit_code == 2
    assert "n_latent of the model was 10 and is 3" in done.stderr
    assert len(find_checkpoints(tmp_path / "run" / "checkpoints")) == 2


def test_resume_begins_where_there_is_nothing_and_is_done_where_all_is(small, celbo, tmp_path):
    first = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "run", "--resume")
    assert first.exit_code == 0
    assert "no checkpoints" in first.stderr
    before = (tmp_path / "run" / "run.json").read_bytes()
    again = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "run", "--resume")
    assert (again.exit_code, again.stderr) == (0, "")
    assert "nothing to resume" in again.stdout
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_failing_write_loses_no_training(small, celbo, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_embedding", fail)
        assert celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run").exit_code == 2
    done = celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.stderr
    assert "epoch 4" in done.stderr
    assert files_in(tmp_path / "run") == FILES


def test_a_run_that_ctrl_c_ended_goes_on_to_the_same_weights(small, celbo, tmp_path, end_in_epoch):
    end_in_epoch(2, KeyboardInterrupt())
    done = celbo("train", small.path, *OPTIONS, "--seed", 5, "-o", tmp_path / "run")
    assert done.exit_code == 130
    assert done.stderr.endswith("what there is has been written. The same line with --resume goes on.\n")
    assert files_in(tmp_path / "run") == sorted([*FILES, "checkpoints"])
    assert celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run").exit_code == 2  # neither lost nor mixed up
    end_in_epoch(None)
    done = celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.stderr
    assert files_in(tmp_path / "run") == FILES
    assert celbo("train", small.path, *OPTIONS, "--seed", 5, "-o", tmp_path / "whole").exit_code == 0
    one, other = (anndata.read_h5ad(tmp_path / name / "embedding.h5ad") for name in ("run", "whole"))
    np.testing.assert_array_equal(one.obsm["X_celbo"], other.obsm["X_celbo"])


def test_an_old_run_stays_until_the_new_one_is_complete(trained, small, celbo, tmp_path, end_in_epoch):
    import shutil

    shutil.copytree(trained.folder, tmp_path / "run")
    end_in_epoch(2)
    assert celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run", "--overwrite").exit_code == 2
    assert files_in(tmp_path / "run") == sorted([*FILES, "checkpoints"])
    end_in_epoch(None)
    assert celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run", "--resume").exit_code == 0
    assert files_in(tmp_path / "run") == FILES
    assert '"checkpoint_every": "1 epoch"' in (tmp_path / "run" / "run.json").read_text()


def test_sigterm_leaves_checkpoints_and_code_143(small, celbo, tmp_path, end_in_epoch):
    end_in_epoch(1, TerminatedError("SIGTERM"))
    done = celbo("train", small.path, *OPTIONS, "-o", tmp_path / "run")
    assert done.exit_code == 143
    assert files_in(tmp_path / "run") == ["checkpoints"]
    assert files_in(tmp_path) == ["run"]


def test_never(small, celbo, tmp_path, end_in_epoch):
    end_in_epoch(2)
    done = celbo("train", small.path, "--max-epochs", 4, "--checkpoint-every", "never", "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert files_in(tmp_path) == []


def test_a_wrong_interval_is_refused_before_anything_is_read(celbo, tmp_path):
    done = celbo("train", tmp_path / "none.h5ad", "--checkpoint-every", "often", "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "'often' is no interval" in done.stderr
