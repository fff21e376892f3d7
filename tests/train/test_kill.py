"""``kill -9`` at moments of chance while a model trains: see benchmarks/kills.py, which does fifty of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_runs_end_with_the_same_weights():
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "3", "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"^(\d+) kills, 0 runs that differ$", done.stdout, re.M)
    assert said is not None
    assert int(said[1]) >= 3
