"""Row pointers kept as lengths give the pointers that were stored."""

import numpy as np
import pytest

from celbo.store.matrices import row_pointers
from celbo.store.matrices.row_pointers import RowPointers


def made(lengths_n):
    indptr = np.concatenate([[0], np.cumsum(lengths_n)]).astype(np.int64)
    return RowPointers(lambda start, stop: indptr[start:stop], len(lengths_n)), indptr


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize("most", [1, 300, 70_000])
def test_any_stretch_is_that_of_the_pointers(monkeypatch, rng, n, most):
    monkeypatch.setattr(row_pointers, "PIECE", 1024)
    pointers, indptr = made(rng.integers(0, most + 1, n))
    assert pointers.n_entries == indptr[-1]
    assert pointers.longest == np.diff(indptr).max(initial=0)
    for start, stop in [(0, n), (0, 0), (n, n), *np.sort(rng.integers(0, n + 1, (50, 2)), axis=1)]:
        np.testing.assert_array_equal(pointers.between(start, stop), indptr[start : stop + 1])


def test_row_of_an_entry(rng):
    lengths_n = rng.integers(0, 4, 3000)
    pointers, _ = made(lengths_n)
    row_of_entry = np.repeat(np.arange(3000), lengths_n)
    for entry in rng.integers(0, len(row_of_entry), 200):
        assert pointers.row_of(entry) == row_of_entry[entry]


def test_two_bytes_a_row(rng):
    pointers, _ = made(rng.integers(0, 60_000, 100_000))
    assert pointers._lengths.nbytes + pointers._starts.nbytes < 2.1 * 100_000


@pytest.mark.parametrize("indptr", [[1, 2, 3], [0, 5, 3]])
def test_pointers_that_do_not_ascend(indptr):
    with pytest.raises(ValueError, match="do not ascend"):
        RowPointers(lambda start, stop: np.array(indptr)[start:stop], 2)
