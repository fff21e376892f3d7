"""Damaged files end in the AnnData or in one error that names the file, soon and in little memory.

The damage and the watching are those of benchmarks/fuzz_stores.py, which does more of it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("kinds", "n"), [(("h5ad", "h5ad_gzip"), 130), (("zarr2", "zarr3"), 50)])
def test_damaged_files_end_clean(kinds, n):
    line = [sys.executable, "-m", "benchmarks.fuzz_stores", "--n", str(n), "--seed", "14", "--one-way", "--kinds"]
    done = subprocess.run([*line, *kinds], capture_output=True, text=True, cwd=REPOSITORY, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f"{kind}: {n} damaged, 0 did not end clean" in done.stdout for kind in kinds] == [True, True]
