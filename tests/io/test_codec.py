"""Every kind of value that a document may hold comes back as it went in, through real JSON text."""

import json
import math
from collections import Counter, OrderedDict, defaultdict
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from celbo.io import ArchiveError, codec_numpy, codec_pandas
from celbo.io.codec import DECODERS, ENCODERS, INLINE_BYTES, decode, encode

assert codec_numpy
assert codec_pandas


def round_trip(value):
    encoded, arrays = encode(value)
    return decode(json.loads(json.dumps(encoded, allow_nan=False)), arrays)


def assert_same(a, b):
    """Equality that also wants equal types, all the way down, and takes NaN for equal to NaN."""
    assert type(a) is type(b)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True, check_index_type="exact", check_column_type="exact")
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b, check_exact=True, check_index_type="exact")
    elif isinstance(a, pd.Index):
        pd.testing.assert_index_equal(a, b, exact=True)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert_same(a.ravel().tolist(), b.ravel().tolist()) if a.dtype == object else np.testing.assert_array_equal(
            a, b
        )
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert len(a) == len(b)
        for (ka, va), (kb, vb) in zip(a.items(), b.items(), strict=True):
            assert_same(ka, kb)
            assert_same(va, vb)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for va, vb in zip(a, b, strict=True):
            assert_same(va, vb)
    elif a is pd.NA:
        assert b is pd.NA
    elif isinstance(a, pd.Categorical):
        assert_same(a.categories, b.categories)
        assert (a.codes.tolist(), a.ordered) == (b.codes.tolist(), b.ordered)
    elif a != a:  # NaN and not-a-time, real or complex
        assert repr(a) == repr(b)
    else:
        assert a == b


PLAIN = [
    *(
        None,
        True,
        False,
        0,
        -7,
        2**63,
        -(2**200),
        0.1,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        2 + 3j,
        complex(math.nan, -0.0),
    ),
    *("", "gene", "é\u2028\x00", "\ud800", b"", b"\x00\xff"),
    *([], [1, [2, [None]]], (), (1, (2,)), {1, 2}, frozenset({"a"}), {}, {"a": {"b": (1, None)}}),
    *({"$": "tuple", "v": [1]}, {1: "a", (1, "b"): "c", None: 0, True + 1: 3, 2.5: 4, math.inf: 5}),
    *(OrderedDict([("z", 1), ("a", 2)]), defaultdict(dict, {"X": {"n": 1}}), defaultdict(None, a=1), Counter("abca")),
    *(slice(1, None, 2), date(2024, 2, 29), datetime(2024, 2, 29, 1, 2, 3, 4), timedelta(-1, 5, 6)),
    *(
        PurePosixPath("/a/b"),
        PureWindowsPath("c:\\x"),
        torch.float32,
        torch.bfloat16,
        torch.device("cpu"),
        torch.device("cuda:1"),
        torch.Size([2, 3]),
    ),
]
NUMPY = [
    *(
        np.float32(0.1),
        np.float64(np.nan),
        np.float16(2),
        np.int64(-3),
        np.uint8(255),
        np.bool_(True),
        np.complex64(1j),
        np.str_("x"),
        np.str_(""),
    ),
    *(np.bytes_(b"ab"), np.datetime64("2024-01-01", "us"), np.timedelta64(5, "ns"), np.datetime64("NaT", "s")),
    *(np.dtype("f4"), np.dtype(">i2"), np.dtype(object), np.dtype("U5"), np.dtype("M8[ns]"), np.dtype(bool)),
    *(
        np.arange(5),
        np.zeros((0, 3)),
        np.array(2.5),
        np.ones((2, 3), order="F"),
        np.array([1.5, np.nan, -0.0]),
        np.array([True, False]),
    ),
    *(
        np.array(["a", "bcd"]),
        np.array([b"a"]),
        np.array([], dtype="U3"),
        np.array([1, 2], ">u4"),
        np.array(["2024", "NaT"], "M8[D]"),
    ),
    *(
        np.array(["g1", None, 3, np.float32(2), (1, 2)], dtype=object),
        np.array([], dtype=object),
        np.array([["a", "b"]], dtype=object),
    ),
    *(
        np.arange(1000.0).reshape(10, 100),
        np.arange(2000, dtype=">i8"),
        np.full(999, 1j),
        np.arange(500).astype("M8[s]"),
        np.ones(4000, bool),
    ),
]
PANDAS = [
    pd.DataFrame({"elbo_train": np.array([1.5, np.nan], dtype=object)}, index=pd.Index([0, 1], name="epoch")),
    pd.DataFrame(
        {"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["p", "q"]), "d": [True, False]}, index=["r", "s"]
    ),
    pd.DataFrame([[1, 2.0]], columns=["same", "same"]),
    *(pd.DataFrame(), pd.DataFrame(index=pd.RangeIndex(3)), pd.DataFrame({2: [1.0], "x": [2]})),
    pd.DataFrame(
        {
            "t": pd.to_datetime(["2024-01-01", None]),
            "n": pd.array([1, None], "Int64"),
            "f": pd.array([True, None], "boolean"),
        }
    ),
    *(
        pd.Series([1, 2], name="s"),
        pd.Series(["a", None], dtype="string"),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series([], dtype=object),
    ),
    *(
        pd.Index(["a", "b"], name="genes"),
        pd.Index([1.5]),
        pd.RangeIndex(2, 9, 3, name="r"),
        pd.CategoricalIndex(["a", "b"], ordered=True),
    ),
    *(pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["x", None]), pd.DatetimeIndex(["2024-01-01"], name="d")),
    *(
        pd.Categorical(["a", None, "b"], categories=["b", "a"], ordered=True),
        pd.CategoricalDtype(["b", "a"], ordered=True),
    ),
    *(pd.Timestamp("2024-01-01T01:02:03.000000004"), pd.NA, pd.NaT),
    *(pd.Timedelta(-3, "D"), pd.Timedelta(5, "ns"), pd.Period("2020-02", "M"), pd.Period("2019-12-31", "D")),
    *(pd.Interval(0.5, 2.5), pd.Interval(pd.Timestamp("2020"), pd.Timestamp("2021"), closed="neither")),
]


@pytest.mark.parametrize("value", PLAIN + NUMPY + PANDAS, ids=lambda v: f"{type(v).__name__}")
def test_round_trip(value):
    assert_same(round_trip(value), value)
    assert_same(round_trip({"deep": [(value,)]}), {"deep": [(value,)]})


def test_negative_zero_keeps_its_sign():
    assert math.copysign(1, round_trip(-0.0)) == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_leave_the_document(dtype):
    value = torch.ones(3, 2).to(dtype)
    encoded, arrays = encode({"t": value})
    assert list(arrays) == [encoded["t"]["ref"]]
    assert_same(round_trip(value), value)


def test_large_arrays_leave_the_document_and_small_ones_stay():
    small, large = np.arange(INLINE_BYTES // 8), np.arange(INLINE_BYTES // 8 + 1)
    assert not encode(small)[1]
    assert [a.tolist() for a in encode(large)[1].values()] == [large.tolist()]


def test_a_read_only_or_strided_array_comes_back_contiguous_and_writable():
    source = np.arange(4000.0)[::2]
    source.flags.writeable = False
    for value in (source, source[:5]):
        back = round_trip(value)
        assert_same(back, value)
        if value.nbytes <= INLINE_BYTES:
            back[0] = 5


def a_function():
    """Something that no archive may hold."""


class Point(NamedTuple):
    x: int


class Text(str):
    """A subclass that plain text would silently replace."""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (a_function, "function 'a_function'"),
        (len, "function 'len'"),
        (torch.nn.ReLU, "class 'ReLU'"),
        (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        (Point(1), "Point"),
        (Text("a"), "Text"),
        (object(), "builtins.object"),
        (np.zeros(2, dtype=[("a", "i4")]), "numpy dtype"),
        (np.random.default_rng(0), "Generator"),
        (np.ma.array([1]), "MaskedArray"),
        (defaultdict(lambda: 1), "defaultdict"),
        (pd.Series(pd.to_datetime(["2024-01-01"]).tz_localize("UTC")), "datetime64[ns, UTC]"),
        (pd.offsets.Day(2), "Day"),
        (torch.nn.Parameter(torch.ones(1)), "Parameter"),
    ],
)
def test_what_cannot_be_held_is_named_with_its_place(value, says):
    with pytest.raises(ArchiveError) as caught:
        encode({"init": {"non_kwargs": [0, value]}})
    assert says in str(caught.value)
    assert "['init']['non_kwargs'][1]" in str(caught.value)


def test_a_document_that_contains_itself_is_refused():
    loop = {}
    loop["again"] = [loop]
    with pytest.raises(ArchiveError, match="contains itself"):
        encode(loop)


def test_very_deep_documents_are_refused_rather_than_overflowing_the_stack():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ArchiveError, match="nested"):
        encode(deep)


def test_the_same_part_twice_is_no_cycle():
    part = {"a": 1}
    assert round_trip([part, part]) == [part, part]


def test_an_unknown_tag_is_an_error_that_names_it():
    with pytest.raises(ArchiveError, match="hologram"):
        decode({"$": "hologram"}, {})


def test_the_table_has_a_decoder_for_every_tag_it_writes():
    tags = set()

    def collect(node):
        if isinstance(node, dict):
            tags.update({node["$"]} if "$" in node else ())
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            collect(child)

    values = [v for v in PLAIN + NUMPY + PANDAS if not (isinstance(v, dict) and "$" in v)]
    for value in [*values, torch.ones(1)]:
        collect(encode(value)[0])
    assert tags == set(DECODERS)
    assert len(ENCODERS) >= len(tags)
