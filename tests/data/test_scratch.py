"""Arrays in a temporary file."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from celbo.data.scratch import forget, put


def test_arrays_come_back():
    first = put(lambda: (np.arange(i, i + 3) for i in (0, 3, 6)), np.int16)
    second = put(lambda: [np.array([0.5, np.nan])], ">f8")
    empty = put(lambda: [], bool)
    assert (first.dtype, second.dtype, empty.dtype) == (np.int16, np.dtype(">f8"), np.dtype(bool))
    np.testing.assert_array_equal(first, np.arange(9))
    np.testing.assert_array_equal(second, [0.5, np.nan])
    forget(first)
    np.testing.assert_array_equal(first, np.arange(9))


def test_a_change_is_kept_and_is_not_forgotten():
    values = put(lambda: [np.zeros(2000)], np.float64)
    values[3] = 7
    forget(values)
    assert values[3] == 7


def test_forgetting_plain_arrays_does_nothing():
    plain = np.arange(3)
    forget(plain)
    forget(plain[1:])
    np.testing.assert_array_equal(plain, np.arange(3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the memory of this process")
def test_forgetting_gives_memory_back():
    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    values = put(lambda: [np.ones(2**22)], np.float64)
    before = resident()
    assert values.sum() == 2**22
    assert resident() > before + 2**24
    forget(values)
    assert resident() < before + 2**22


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values = put(lambda: [np.arange(4)], np.int64)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(values, np.arange(4))


def test_no_room_for_a_file(tmp_path, monkeypatch, log):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    values = put(lambda: (np.arange(3) + 3 * i for i in range(2)), np.int32)
    np.testing.assert_array_equal(values, np.arange(6))
    assert "kept in memory" in log[0]


def test_faults_of_the_data_are_no_lack_of_room():
    def pieces():
        yield np.zeros(1)
        raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        put(pieces, np.float64)
