"""Damaged archives and checkpoints end in a model that works, or in one error that names the file and the part.

The damage and what counts as an end are those of benchmarks/fuzz.py, which does more of it. ``CELBO_FUZZ`` sets the
number of damaged files.
"""

import logging
import os

import pytest
from benchmarks import fuzz
from tests.io.hostile import bounded

N = int(os.environ.get("CELBO_FUZZ", "250"))


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_sound_files_are_taken(kind, tmp_path):
    for name, raw in fuzz.sound(kind).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    for case in range(2):
        fuzz.KINDS[kind].use(tmp_path, case)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_files_end_clean(kind, tmp_path):
    with bounded(seconds=60, megabytes=1000):
        faults = [fuzz.fault(kind, case, 11, tmp_path / str(case)) for case in range(N)]
    assert [one for one in faults if one is not None] == []
