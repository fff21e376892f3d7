"""The runner of all benchmarks: rows that exist, runs that go on, a peer that cannot be installed."""

import importlib.util
import json
import subprocess

import pytest
from benchmarks import __main__ as runner


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Commands that the runner starts, in place of running them; each answers with one figure of both tools."""
    commands = []

    def start(command, **options):
        if command[0] == "git":
            return subprocess.CompletedProcess(command, 0, stdout=b"")
        commands.append(command)
        row = {"case": "c", "figure": "training", "unit": "s", "p50": 2.0}
        rows = [row | {"tool": "scvi-tools", "ratio": ""}, row | {"tool": "celbo", "ratio": 5.5}]
        if "broken" not in command[4]:
            with open(options["env"]["CELBO_BENCH_ROWS"], "w") as file:
                json.dump(rows, file)
        return subprocess.CompletedProcess(command, int("broken" in command[4]))

    monkeypatch.setattr(runner, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(runner.subprocess, "run", start)
    monkeypatch.setattr(runner.common, "commit", lambda: "abc")
    return commands


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    runner.main()


def test_rows_are_commands_of_the_folder():
    assert all(importlib.util.find_spec(f"benchmarks.{row.command.split()[0]}") for row in runner.ROWS.values())


def test_a_run_goes_on_where_it_was(asked, monkeypatch, capsys):
    run(monkeypatch, "--peer", "python-of-the-peer", "--only", "step")
    assert asked[0][4:] == [
        "benchmarks.step",
        "--genes",
        "500",
        "2000",
        "8000",
        "--dry",
        "--peer",
        "python-of-the-peer",
    ]
    run(monkeypatch, "--peer", "python-of-the-peer", "--only", "step", "busy")
    assert [command[4] for command in asked] == ["benchmarks.step", "benchmarks.busy"]
    assert capsys.readouterr().out.count("scvi-tools 2 s, celbo 2 s  5.50x of 4x") == 2
    run(monkeypatch, "--peer", "python-of-the-peer", "--only", "step", "--afresh")
    assert len(asked) == 3


def test_a_row_that_fails_is_named_and_run_again(asked, monkeypatch):
    monkeypatch.setitem(runner.ROWS, "broken", runner.Row("broken"))
    with pytest.raises(SystemExit, match="broken"):
        run(monkeypatch, "--peer", "p", "--only", "broken", "step")
    assert len(asked) == 2
    with pytest.raises(SystemExit, match="broken"):
        run(monkeypatch, "--peer", "p", "--only", "broken", "step")
    assert len(asked) == 3


def test_without_the_peer_celbo_runs_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "PEER", tmp_path / "peer")
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="no network")
    monkeypatch.setattr(runner.subprocess, "run", lambda *args, **kwargs: failed)
    assert runner.peer_environment() is None
    assert "celbo runs alone: no network" in capsys.readouterr().out
