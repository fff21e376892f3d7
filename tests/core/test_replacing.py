"""Whatever moment a process is killed at, the place holds the whole old thing or the whole new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celbo.core import replacing
from celbo.core.replacing import BusyError, building, printable

KILLED = """
import os, shutil, sys
from pathlib import Path
from celbo.core import replacing

target, kind, moment, exchanges = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "exchange"
calls = 0

def deadly(owner, name):
    function = getattr(owner, name)
    def call(*args, **kwargs):
        global calls
        if calls == moment:
            os._exit(9)
        calls += 1
        done = function(*args, **kwargs)
        if calls == moment:
            os._exit(9)
        calls += 1
        return done
    setattr(owner, name, call)

for name in ("rename", "replace", "unlink", "rmdir"):
    deadly(os, name)
deadly(replacing, "_exchange")
deadly(Path, "unlink")
if not exchanges:
    replacing._exchange = lambda one, other: False
with replacing.building(target) as partial:
    if kind == "folder":
        partial.mkdir()
    for name in "ab":
        ((partial / name) if kind == "folder" else partial).write_text("new")
"""


def content(target):
    return {path.name: path.read_text() for path in target.iterdir()} if target.is_dir() else target.read_text()


def make(target, kind, text):
    if kind == "file":
        target.write_text(text)
    else:
        target.mkdir()
        (target / "a").write_text(text)
        (target / "b").write_text(text)


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_at_every_moment(tmp_path, kind, exchanges):
    if exchanges and not replacing._exchange(*_two_folders(tmp_path)):
        pytest.skip("this system cannot swap two names")
    for moment in range(40):
        place = tmp_path / str(moment)
        place.mkdir()
        target = place / "run"
        make(target, kind, "old")
        arguments = [target, kind, moment, "exchange" if exchanges else "no"]
        code = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)]).returncode
        assert code in (0, 9)
        whole = [{"a": text, "b": text} if kind == "folder" else text for text in ("old", "new")]
        if exchanges or kind == "file":
            assert content(target) in whole
        with building(target) as partial:  # the next start mends and clears
            assert content(target) in whole
            make(partial, kind, "third")
        assert [path.name for path in place.iterdir()] == ["run"]
        if code == 0:
            return
    raise AssertionError("no moment was left over")


def _two_folders(tmp_path):
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    return folders


def test_leftovers_of_the_dead_are_removed(tmp_path):
    for name in (".run.partial-999999", ".run.old-999999"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("left")
    (tmp_path / ".runner.partial-1").mkdir()  # of another place
    with building(tmp_path / "run") as partial:
        partial.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".runner.partial-1", "run"]


def test_a_second_start_is_refused_and_the_first_unharmed(tmp_path):
    target = tmp_path / "run"
    with building(target) as partial:
        partial.mkdir()
        (partial / "a").write_text("first")
        code = (
            "import sys; from pathlib import Path; from celbo.core.replacing import building\n"
            "with building(Path(sys.argv[1])): pass"
        )
        second = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True)
        assert "BusyError: Another process is writing to" in second.stderr
        with pytest.raises(BusyError), building(target):
            pass
    assert content(target) == {"a": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_after_an_error_nothing_is_left(tmp_path):
    def fail():
        with building(tmp_path / "a.h5ad") as partial:
            assert partial.suffix == ".h5ad"
            partial.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_long_and_odd_names(tmp_path):
    for name in ("x" * 250, os.fsdecode(b"n\xff.zarr")):
        with building(tmp_path / name) as partial:
            partial.write_text("")
        assert (tmp_path / name).exists()
    assert printable(Path(os.fsdecode(b"n\xff"))) == "n\\udcff"
