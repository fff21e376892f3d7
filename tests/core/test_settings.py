"""Settings: checked values, a quiet logger, private to the process."""

import logging
from pathlib import Path

import pytest
import torch

import celbo
from celbo.core import Settings, settings


@pytest.fixture
def fresh():
    """Settings of the test's own; the logger they share is put back."""
    level = settings.verbosity
    yield Settings()
    settings.verbosity = level


def test_the_root_shows_the_same_object():
    assert celbo.settings is settings


def test_defaults(fresh):
    assert fresh.batch_size == 128
    assert fresh.seed is None
    assert fresh.verbosity == logging.INFO
    assert fresh.num_threads is None
    assert fresh.logging_dir == Path("./scvi_log/")


@pytest.mark.parametrize("value", [0, -1])
def test_batch_size_must_be_positive(fresh, value):
    with pytest.raises(ValueError, match=f"at least 1, got {value}"):
        fresh.batch_size = value
    assert fresh.batch_size == 128


@pytest.mark.parametrize("value", [-1, 2**32])
def test_seed_must_fit(fresh, value):
    with pytest.raises(ValueError, match=str(value)):
        fresh.seed = value


def test_seed_touches_no_global_generator(fresh, global_rng_untouched):
    fresh.seed = 3
    assert fresh.seed == 3
    fresh.seed = None
    assert fresh.seed is None


def test_logging_dir_makes_no_folder(fresh, tmp_path):
    fresh.logging_dir = str(tmp_path / "logs")
    assert fresh.logging_dir == tmp_path / "logs"
    assert not fresh.logging_dir.exists()


@pytest.mark.parametrize(("given", "level"), [("warning", 30), ("DEBUG", 10), (40, 40)])
def test_verbosity(fresh, given, level):
    fresh.verbosity = given
    assert fresh.verbosity == logging.getLogger("celbo").level == level


def test_messages_go_to_stderr_plainly(fresh, capsys):
    fresh.verbosity = "info"
    logging.getLogger("celbo").info("hello")
    logging.getLogger("celbo").debug("not shown")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hello\n"


def test_resetting_the_handler_leaves_one(fresh):
    fresh.reset_logging_handler()
    fresh.reset_logging_handler()
    logger = logging.getLogger("celbo")
    assert len(logger.handlers) == 1
    assert not logger.propagate


def test_num_threads(fresh):
    before = torch.get_num_threads()
    try:
        fresh.num_threads = 1
        assert torch.get_num_threads() == fresh.num_threads == 1
    finally:
        torch.set_num_threads(before)
