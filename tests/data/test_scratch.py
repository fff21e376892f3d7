"""Arrays in a temporary file."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from celbo.store import mapped as scratch
from celbo.store.mapped import forget, is_mapped, put, put_together, stretches, taken, zeros


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


def test_arrays_whose_pieces_come_together():
    first, second = put_together(lambda: ((np.arange(i), [i]) for i in range(4)), [np.int32, np.int64])
    np.testing.assert_array_equal(first, [0, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(second, [0, 1, 2, 3])
    assert is_mapped(first[2:].reshape(-1, 2))
    assert not is_mapped(np.arange(3))


def test_no_room_for_arrays_that_come_together(tmp_path, monkeypatch, log):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    first, second = put_together(lambda: ((np.arange(i), [i]) for i in range(4)), [np.int32, np.int64])
    np.testing.assert_array_equal(first, [0, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(second, [0, 1, 2, 3])
    assert len(log) == 1


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101])
def test_zeros_to_write_to(n, monkeypatch):
    monkeypatch.setattr(scratch, "STRETCH", 100)
    values = zeros(n, np.int32)
    assert values.dtype == np.int32
    assert values.tolist() == [0] * n
    values[:] = np.arange(n)
    forget(values)
    np.testing.assert_array_equal(values, np.arange(n))


@pytest.mark.parametrize("regions", [1, 3, 128])
@pytest.mark.parametrize("shape", [(50_000,), (25_000, 2)])
def test_entries_of_many_places(rng, monkeypatch, regions, shape):
    monkeypatch.setattr(scratch, "_REGIONS", regions)
    mapped = put(lambda: [np.arange(50_000)], np.int64).reshape(shape)
    for places in (rng.integers(5, shape[0], 300), np.arange(5, shape[0])[::-1], np.empty(0, np.int64)):
        np.testing.assert_array_equal(taken(mapped[5:], places - 5), np.array(mapped)[places])


def test_an_array_in_stretches(monkeypatch):
    monkeypatch.setattr(scratch, "STRETCH", 4)
    first, second = put(lambda: [np.arange(10)], np.int64), np.arange(10) * 2
    together = list(stretches(first, second))
    assert [len(some) for some, _ in together] == [4, 4, 2]
    assert np.concatenate([2 * some - other for some, other in together]).tolist() == [0] * 10


def test_an_array_of_others_is_not_touched(tmp_path):
    """What was changed in a file that somebody mapped privately is nowhere else."""
    np.zeros(5000).tofile(tmp_path / "theirs")
    theirs = np.memmap(tmp_path / "theirs", np.float64, mode="c")
    theirs[7] = 1
    forget(theirs)
    assert theirs[7] == 1


def test_objects_of_pythons_are_refused():
    with pytest.raises(TypeError, match="objects"):
        put(lambda: [np.array(["a", None], object)], object)
