"""What a run writes: loggers, progress, nothing."""

import csv
import logging
import sys
import threading

import pytest

from celbo.train import Callback
from celbo.train.history import Bar, Lines, Silent, make_progress, speaking_at


def test_csv_logger(fit, tmp_path, series):
    trainer = fit(logger="csv", log_save_dir=tmp_path)
    (path,) = tmp_path.rglob("metrics.csv")
    with open(path) as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["elbo_train"]) for row in rows] == pytest.approx(series(trainer, "elbo_train"))


def test_logger_is_written_when_training_fails(fit, tmp_path):
    class Fails(Callback):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 2:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fit(logger=True, log_save_dir=tmp_path, callbacks=Fails())
    (path,) = tmp_path.rglob("metrics.csv")
    assert len(path.read_text().splitlines()) == 3


def test_tensorboard_logger(fit, tmp_path):
    pytest.importorskip("tensorboard", reason="extra 'tensorboard' is not installed")
    fit(logger="tensorboard", log_save_dir=tmp_path)
    assert [path for path in tmp_path.rglob("events.out.tfevents*") if path.stat().st_size > 500]


class Recorder:
    def __init__(self):
        self.rows, self.status = [], None

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def finalize(self, status):
        self.status = status


def test_loggers_of_the_users_own(fit):
    first, second = Recorder(), Recorder()
    trainer = fit(logger=[first, second], max_epochs=2)
    assert trainer.logger is first
    assert [step for step, _ in second.rows] == [0, 1]
    assert "kl_weight" in first.rows[0][1]
    assert first.status == second.status == "success"


def test_unknown_logger(fit):
    with pytest.raises(ValueError, match="tensorboard"):
        fit(logger="tensorbord")


def test_verbose_1_sums_up_in_one_line(fit, said):
    fit(verbose=1)
    (message,) = said(logging.INFO)
    assert message.startswith("Trained 3 epochs in ")
    assert message.endswith("validation ELBO 54.39 (epoch 2, the last).")


def test_verbose_0_says_nothing(fit, said):
    fit(verbose=0, keep_best=True)
    assert said(logging.DEBUG) == []


def test_silence_beside_another_training_ends_with_each(said):
    """Two that overlap and end in the order they began, each in a thread of its own."""
    logger, level = logging.getLogger("celbo"), logging.getLogger("celbo").level
    both_began, first_ended = threading.Barrier(2, timeout=20), threading.Event()

    def first():
        with speaking_at(0):
            both_began.wait()
            logger.info("a remark")
            logger.warning("a warning")
        first_ended.set()

    def second():
        with speaking_at(0):
            both_began.wait()
            first_ended.wait(20)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.info("afterwards")
    assert logger.level == level
    assert said(logging.INFO) == ["a warning", "afterwards"]


def test_verbose_2_writes_a_line_an_epoch(fit, capsys):
    fit(verbose=2)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("ELBO" in line for line in lines)
    assert captured.out == ""


def test_which_progress(monkeypatch):
    assert type(make_progress(0)) is Silent
    assert type(make_progress(2)) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(make_progress(1)) is Bar


def test_bar_on_a_terminal(capsys):
    bar = Bar()
    bar.start(2)
    bar.epoch(0, {"train_loss": 1.0})
    bar.epoch(1, {"train_loss": 0.5})
    bar.close()
    assert capsys.readouterr().out == ""
