"""Freed blocks are kept for the next step, and given back when asked."""

import subprocess
import sys

import pytest

from celbo.core.process import give_back_free_blocks

_SCRIPT = """
import numpy as np
from pathlib import Path
from celbo.core.process import give_back_free_blocks, keep_large_blocks

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

keep_large_blocks()
blocks = [np.ones(2**17) for _ in range(128)]  # 1 MiB each
barrier = np.ones(2**10)                       # lies above them, so that freeing does not shrink the heap by itself
del blocks
kept = resident_mb()
was_given = give_back_free_blocks()
print(was_given, kept - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_freed_blocks_are_given_back_when_asked():
    run = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    was_given, megabytes = run.stdout.split()
    assert was_given == "True"
    assert float(megabytes) > 100


def test_nothing_is_asked_of_other_c_libraries(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert give_back_free_blocks() is False
