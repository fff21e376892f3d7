"""Running scripts written for scvi-tools, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OUTSIDE = Path(__file__).with_name("outside")


@pytest.fixture
def run_on_celbo(tmp_path):
    """Run a script of tests/compat/outside under `python -m celbo.compat`; any warning is an error."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "error", "-m", "celbo.compat", str(OUTSIDE / script), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    return run
