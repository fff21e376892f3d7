"""The command lines of the README work as typed, on the file that its Python writes."""

import re
import shlex
from pathlib import Path

from celbo.data import simulate_counts

README = Path(__file__).resolve().parents[2] / "README.md"


def test_command_lines(celbo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate_counts(n_cells=120, n_genes=40, seed=0).write_h5ad("counts.h5ad")
    lines = re.findall(r"^celbo (.+)$", README.read_text(), re.MULTILINE)
    lines = [line for line in lines if line.split()[0] in ("train", "info", "embed")]
    assert [line.split()[0] for line in lines] == ["train", "info", "embed"]
    for line in lines:
        shorter = ["--max-epochs", "1"] if line.startswith("train") else []
        done = celbo(*shlex.split(line), *shorter)
        assert done.exit_code == 0, done.stderr
    assert {"counts.h5ad", "run", "embedded.h5ad"} == {path.name for path in tmp_path.iterdir()}
