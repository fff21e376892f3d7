"""Columns in pieces are the columns."""

import numpy as np
import pandas as pd
import pytest

from celbo.store import mapped as scratch
from celbo.store.mapped import is_mapped, put
from celbo.store.tables.columns import column_parts, put_column, true_places, worked_out
from celbo.store.tables.names import CellNames

COLUMNS = {
    "numbers": np.arange(10) / 3,
    "categories": pd.Categorical(list("abcabcabca")),
    "text": np.array(list("abcabcabca"), object),
    "nullable": pd.array([1, None] * 5, dtype="Int64"),
    "times": pd.date_range("2026-01-01", periods=10),
}


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    monkeypatch.setattr(scratch, "STRETCH", 4)


@pytest.fixture
def index():
    return pd.Index(CellNames.from_pieces(lambda: [[f"cell_{i}" for i in range(10)]]))


@pytest.mark.parametrize("kind", COLUMNS)
def test_pieces_are_the_column(kind):
    column = pd.Series(COLUMNS[kind])
    parts = list(column_parts(column))
    assert [len(part) for part in parts] == [4, 4, 2]
    pd.testing.assert_series_equal(pd.concat(parts, ignore_index=True), column)


def test_values_that_are_worked_out(index):
    def doubled(part):
        return part.to_numpy() * 2

    plain = worked_out(pd.Series(np.arange(10)), doubled, np.int16)
    compact = worked_out(pd.Series(np.arange(10), index=index), doubled, np.int16)
    assert (is_mapped(plain), is_mapped(compact)) == (False, True)
    assert plain.dtype == compact.dtype == np.int16
    np.testing.assert_array_equal(plain, 2 * np.arange(10))
    np.testing.assert_array_equal(compact, plain)


def test_a_mapped_column_is_not_copied(index):
    frame, values = pd.DataFrame(index=index), put(lambda: [np.arange(10)], np.int8)
    put_column(frame, "codes", values)
    assert np.shares_memory(frame["codes"].to_numpy(), values)
    put_column(frame, "plain", np.arange(10))
    assert frame["plain"].tolist() == frame["codes"].tolist() == list(range(10))


@pytest.mark.parametrize("most", [0, 2, 100])
def test_places_of_flags(rng, most):
    flags_n = rng.random(50) < 0.3
    count, first = true_places((flags_n[start : start + 7] for start in range(0, 50, 7)), most)
    assert count == flags_n.sum()
    np.testing.assert_array_equal(first, np.flatnonzero(flags_n)[:most])
