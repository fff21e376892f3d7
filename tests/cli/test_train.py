"""``celbo train``: what a run leaves behind."""

import json
import re
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from celbo.cli import runs
from celbo.data import top_variable_genes
from celbo.model import SCVI
from celbo.train import trainer as trainer_module

FILES = ["embedding.h5ad", "history.csv", "model", "report.html", "run.json"]


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


class TestFolder:
    def test_holds_these_files(self, trained):
        assert files_in(trained.folder) == FILES
        assert files_in(trained.folder.parent) == ["run"]

    def test_embedding_is_that_of_the_model(self, trained, small):
        embedding = anndata.read_h5ad(trained.folder / "embedding.h5ad")
        assert embedding.X is None
        assert list(embedding.obs_names) == list(small.adata.obs_names)
        pd.testing.assert_frame_equal(embedding.obs, small.adata.obs)
        model = SCVI.load(str(trained.folder / "model"), adata=False)
        expected = model.get_latent_representation(anndata.read_h5ad(small.path))
        np.testing.assert_allclose(embedding.obsm["X_celbo"], expected, rtol=1e-5, atol=1e-6)
        assert expected.shape == (150, 10)

    def test_top_genes_are_those_of_the_function(self, trained, small):
        model = SCVI.load(str(trained.folder / "model"), adata=False)
        chosen = small.adata.var_names[top_variable_genes(small.adata.X, 30)]
        assert list(model.get_var_names()) == list(chosen)

    def test_history(self, trained):
        history = pd.read_csv(trained.folder / "history.csv", index_col="epoch")
        assert list(history.index) == [0, 1]
        assert {"elbo_train", "elbo_validation", "train_loss", "kl_weight"} <= set(history.columns)
        assert trained.record["figures"]["elbo_validation"] == pytest.approx(history["elbo_validation"].min())

    def test_record(self, trained, small):
        record = trained.record
        assert record["seed"] == record["settings"]["seed"] == 5
        assert record["settings"]["input"] == str(small.path)
        assert record["settings"]["n_top_genes"] == 30
        assert record["versions"]["celbo"]
        assert record["figures"]["epochs"] == 2
        assert record["figures"]["cells_per_second"] == pytest.approx(2 * 135 / record["figures"]["seconds"], rel=0.01)
        assert not record["figures"]["interrupted"]

    def test_report(self, trained):
        text = (trained.folder / "report.html").read_text(encoding="utf-8")
        assert text.count('src="data:image/svg+xml;base64,') == 5  # curves, two scatters, KL, genes
        assert "<script" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "<h1>small.h5ad</h1>" in text
        assert not re.search(r'(src|href)="(?!data:)', text)  # nothing from elsewhere

    def test_the_verdict_is_kept_and_printed(self, trained):
        verdict = trained.record["figures"]["verdict"]
        assert f"Verdict: {verdict['sentence']}" in trained.done.stdout
        (first, *_) = verdict["answers"]
        assert (first["question"], first["grade"]) == ("Did training converge?", "amber")  # of two epochs
        assert f"  amber: {first['question']} {first['finding']}" in trained.done.stdout

    def test_figures_are_printed(self, trained):
        elbo = r"validation ELBO [\d.]+ \(epoch \d, [a-z ]+\)"
        assert re.search(rf"^2 epochs in [\d.]+ s, [\d,]+ cells/s, {elbo}$", trained.done.stdout, re.M)
        assert str(trained.folder / "report.html") in trained.done.stdout


def test_same_seed_same_run(trained, small, celbo, tmp_path):
    args = [
        "--batch-key",
        "batch",
        "--labels-key",
        "cell_type",
        "--max-epochs",
        2,
        "--n-top-genes",
        30,
        "--seed",
        5,
        "-q",
    ]
    done = celbo("train", small.path, *args, "-o", tmp_path / "run")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")  # -q is silent
    first, second = (anndata.read_h5ad(f / "embedding.h5ad") for f in (trained.folder, tmp_path / "run"))
    np.testing.assert_array_equal(first.obsm["X_celbo"], second.obsm["X_celbo"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # of the writing here
def test_zarr_layer_and_covariates(small, celbo, tmp_path):
    pytest.importorskip("zarr")
    small.adata.write_zarr(tmp_path / "small.zarr")
    covariates = [
        "--categorical-covariate",
        "donor",
        "--categorical-covariate",
        "cell_type",
        "--continuous-covariate",
        "depth",
    ]
    options = ["--layer", "counts", "--n-latent", 3, "--max-epochs", 1, "--recipe", "classic"]
    done = celbo("train", tmp_path / "small.zarr", *covariates, *options, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    model = SCVI.load(str(tmp_path / "run" / "model"), adata=False)
    assert model.summary_stats["n_extra_categorical_covs"] == 2
    assert model.summary_stats["n_extra_continuous_covs"] == 1
    assert model.get_setup_arg("layer") == "counts"
    assert anndata.read_h5ad(tmp_path / "run" / "embedding.h5ad").obsm["X_celbo"].shape == (150, 3)


def test_linear_model(small, celbo, tmp_path):
    done = celbo("train", small.path, "--model", "linear_scvi", "--max-epochs", 1, "-o", tmp_path / "deep" / "run")
    assert done.exit_code == 0, done.stderr
    assert "model             LinearSCVI" in celbo("info", tmp_path / "deep" / "run").stdout
    assert pd.read_csv(tmp_path / "deep" / "run" / "genes.csv", index_col="gene").shape == (40, 10)  # loadings


def test_default_output_is_named_after_the_input(small, celbo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert celbo("train", small.path, "--max-epochs", 1, "-q").exit_code == 0
    assert files_in(tmp_path / "small_celbo") == FILES


class TestMessages:
    def test_fractions_are_said_once_and_trained_on(self, small, celbo, tmp_path):
        adata = small.adata.copy()
        adata.X = adata.X * 0.5
        adata.write_h5ad(tmp_path / "half.h5ad")
        done = celbo("train", tmp_path / "half.h5ad", "--max-epochs", 1, "-o", tmp_path / "run")
        assert done.exit_code == 0
        assert done.stderr.count("not whole numbers") == 1
        assert "--layer counts" not in (tmp_path / "run" / "report.html").read_text()
        assert "not whole numbers" in (tmp_path / "run" / "report.html").read_text()

    def test_settings_of_the_process_are_as_before(self, trained):
        import celbo

        assert celbo.settings.verbosity == 20


class TestInterrupt:
    @pytest.fixture
    def answers_ctrl_c(self):
        """A shell lets what it starts in the background ignore Ctrl-C."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.fixture
    def interrupt_in_epoch(self, monkeypatch):
        def arrange(epoch):
            run_epoch = trainer_module.run_epoch

            def interrupted(trainer):
                if trainer.current_epoch == epoch:
                    raise KeyboardInterrupt
                return run_epoch(trainer)

            monkeypatch.setattr(trainer_module, "run_epoch", interrupted)

        return arrange

    @pytest.mark.parametrize("epoch", [0, 2])
    def test_what_there_is_is_written(self, small, celbo, tmp_path, interrupt_in_epoch, epoch):
        interrupt_in_epoch(epoch)
        done = celbo("train", small.path, "--max-epochs", 50, "-o", tmp_path / "run")
        assert done.exit_code == 130
        assert f"interrupted after {epoch} epochs" in done.stderr
        assert files_in(tmp_path / "run") == sorted([*FILES, "checkpoints"])
        figures = json.loads((tmp_path / "run" / "run.json").read_text())["figures"]
        assert (figures["epochs"], figures["interrupted"]) == (epoch, True)

    def test_outside_of_training_nothing_is_left(self, small, celbo, tmp_path, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(runs, "findings_of", interrupted)
        done = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "run")
        assert done.exit_code == 130
        assert done.stderr.endswith("celbo: interrupted; nothing was written.\n")
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("log axes"), OSError("No space left")])
    def test_a_report_that_fails_takes_nothing_away(self, small, celbo, tmp_path, monkeypatch, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(runs, "model_report", fail)
        done = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "run")
        assert done.exit_code == 0
        assert "all else is written" in done.stderr
        assert files_in(tmp_path / "run") == sorted({*FILES} - {"report.html"})
        assert json.loads((tmp_path / "run" / "run.json").read_text())["figures"]["metrics"] == {}

    def test_an_error_after_ctrl_c_is_its_consequence(self, small, celbo, tmp_path, monkeypatch, answers_ctrl_c):
        """A library that Ctrl-C met while it loaded fails later, with whatever error."""

        def half_loaded(*args, **kwargs):
            signal.raise_signal(signal.SIGINT)

        def read(*args, **kwargs):
            try:
                half_loaded()
            except KeyboardInterrupt:
                raise AttributeError("module 'sympy' has no attribute 'S'") from None

        monkeypatch.setattr(runs, "data_to_train", read)
        done = celbo("train", small.path, "-o", tmp_path / "run")
        assert (done.exit_code, done.stderr) == (130, "celbo: interrupted; nothing was written.\n")

    def test_while_libraries_load(self):
        code = (
            "import signal\n"
            "from celbo.cli.interrupts import while_loading\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "with while_loading():\n"
            "    signal.raise_signal(signal.SIGINT)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (130, "celbo: interrupted; nothing was written.\n")


class TestAtomic:
    @pytest.fixture(params=["write_embedding", "versions"])
    def failing(self, request, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("No space left on device")

        monkeypatch.setattr(runs, request.param, fail)

    def test_a_failure_leaves_nothing(self, small, celbo, tmp_path, failing):
        done = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "new" / "run")
        assert done.exit_code == 2
        assert done.stderr.endswith("celbo: No space left on device\n")
        assert files_in(tmp_path) == []

    def test_a_failure_leaves_the_old_run_whole(self, small, trained, celbo, tmp_path, monkeypatch, failing):
        import shutil

        shutil.copytree(trained.folder, tmp_path / "run")
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        done = celbo("train", small.path, "--max-epochs", 1, "-o", tmp_path / "run", "--overwrite")
        assert done.exit_code == 2
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
        assert files_in(tmp_path) == ["run"]


def test_overwrite_replaces(small, celbo, tmp_path):
    for seed in (1, 2):
        done = celbo("train", small.path, "--max-epochs", 1, "--seed", seed, "-o", tmp_path / "run", "--overwrite")
        assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 2
    assert files_in(tmp_path) == ["run"]


class TestAsAProgram:
    def test_train_and_embed(self, small, celbo, tmp_path):
        """What one process has trained another embeds by."""
        options = ["--batch-key", "batch", "--max-epochs", "1", "-o", str(tmp_path / "run")]
        train = [sys.executable, "-m", "celbo", "train", str(small.path), *options]
        done = subprocess.run(train, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        embedded = celbo("embed", tmp_path / "run", small.path, "-o", tmp_path / "e.h5ad")
        assert embedded.exit_code == 0, embedded.stderr
        first, second = (anndata.read_h5ad(p) for p in (tmp_path / "run" / "embedding.h5ad", tmp_path / "e.h5ad"))
        np.testing.assert_allclose(first.obsm["X_celbo"], second.obsm["X_celbo"], rtol=1e-5, atol=1e-6)

    def test_ctrl_c(self, small, tmp_path):
        epochs = ["--max-epochs", "100000", "--recipe", "classic"]
        command = [
            sys.executable,
            "-c",
            STARTS_AND_SAYS_SO,
            "train",
            str(small.path),
            *epochs,
            "-o",
            str(tmp_path / "run"),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "three epochs\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            try:
                _, stderr = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 130, stderr
        assert "what there is has been written" in stderr
        assert "Traceback" not in stderr
        assert files_in(tmp_path / "run") == sorted([*FILES, "checkpoints"])


STARTS_AND_SAYS_SO = """
import signal

from celbo.cli import main, training

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it

class Clock(training.Clock):
    def on_train_epoch_end(self, trainer, plan):
        super().on_train_epoch_end(trainer, plan)
        if trainer.current_epoch == 2:
            print("three epochs", flush=True)

training.Clock = Clock
main()
"""
