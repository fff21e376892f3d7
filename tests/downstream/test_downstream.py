"""Packages that others wrote on scvi-tools, as they are in the package registry, run on celbo.

They are not installed with celbo's tests. To run these, make an environment with celbo and without scvi-tools, and
`pip install --no-deps` the package and what it imports:

- drvi: drvi-py 0.2.8, scanpy, lightning
- velovi: velovi 0.3.1, scvelo, lightning
- scCausalVI: sccausalvi 0.0.12, lightning
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {"drvi": "run_drvi.py", "velovi": "run_velovi.py", "scCausalVI": "run_sccausalvi.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_runs_on_celbo(package, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: see the top of this file")
    script = Path(__file__).with_name(PACKAGES[package])
    command = [sys.executable, "-m", "celbo.compat", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
