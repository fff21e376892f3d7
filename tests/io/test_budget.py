"""A few bytes never make much: whatever a file declares is compared with what it holds, before it is made."""

import pickle
import struct

import numpy as np
import pandas as pd
import pytest
import torch

from celbo.io import ArchiveError, budget, codec, codec_pandas, read_archive, write_archive
from celbo.io.pickles import pickle_machine
from celbo.io.torch_file import read_pickle_file, read_torch_file

from .hostile import body, bounded, text, torch_zip
from .test_archive import forge


def refused(read, says=""):
    """It ends in an ArchiveError soon, and little memory was taken on the way."""
    with bounded(), pytest.raises(ArchiveError, match=says):
        read()


def tagged(tag, **rest):
    return {"$": tag, **rest}


ARRAY = tagged("numpy.array", dtype="<i8", shape=[1], data="AAAAAAAAAAA=")
RANGE = tagged("pandas.RangeIndex", name=None, v=[0, 20_000_000, 1])
EMPTY = tagged("pandas.Index", name=None, values=tagged("numpy.array", dtype="<i8", shape=[0], data=""))
SCALAR = tagged("numpy.scalar", dtype="<f8", data="AAAAAAAAAAA=")


@pytest.mark.parametrize(
    "value",
    [
        tagged("numpy.array", dtype="<f8", shape=[100_000_000], data=""),
        tagged("numpy.array", dtype="<f8", shape=[2**33, 2**33], data=""),
        tagged("numpy.array", dtype="<f8", shape=[-1], data="AAAAAAAAAAA="),
        tagged("numpy.array", dtype="<f8", shape=[True], data="AAAAAAAAAAA="),
        tagged("numpy.array", dtype="<f8", shape=[1.0], data="AAAAAAAAAAA="),
        tagged("numpy.array", dtype="<f8", shape=1, data="AAAAAAAAAAA="),
        tagged("numpy.array", dtype="<U0", shape=[10**9], data=""),
        tagged("numpy.array", dtype="(1000000000,)f8", shape=[], data=""),
        tagged("numpy.array", dtype="<U1", shape=[1], data="////fw=="),
        tagged("numpy.array", dtype="<M8[999999999999999999999s]", shape=[], data=""),
        tagged("numpy.objects", shape=[10**9], v=[]),
        tagged("numpy.scalar", dtype="<U999999999", data=""),
        RANGE,
        tagged("tuple", v=RANGE),
        tagged("pandas.RangeIndex", name=None, v=[0, 2**62, 1]),
        tagged(
            "pandas.Series", name=None, index=tagged("pandas.RangeIndex", name=None, v=[0, 8_000_000, 1]), values=SCALAR
        ),
        tagged("pandas.Series", name=None, index=EMPTY, values=ARRAY),
        tagged("pandas.DataFrame", columns=EMPTY, index=EMPTY, values=[ARRAY]),
        tagged("pandas.DataFrame", columns=RANGE, index=EMPTY, values=[]),
        tagged("pandas.MultiIndex", levels=[EMPTY], codes=[ARRAY], names=[None]),
        tagged("pandas.Categorical", codes=ARRAY, categories=EMPTY, ordered=False),
        tagged("pandas.Categorical", codes=ARRAY, categories=RANGE, ordered=False),
        tagged("pandas.Period", v="9" * 5000, freq="D"),
        tagged("pandas.masked", dtype="Int64", values=ARRAY, mask=ARRAY),
        tagged("int", hex="0x" + "f" * 100_000),
        tagged("dict", v=[[tagged("int", hex=hex(k * (2**61 - 1))), 0] for k in range(1, 3000)]),
        tagged("set", v=[tagged("complex", v=[-1000003.0 * i, float(i)]) for i in range(20_000)]),
        tagged("tensor", ref="nothing"),
        {"a": 2**70},
    ],
    ids=lambda value: str(value)[:60],
)
def test_json_that_declares_more_than_it_holds(tmp_path, value):
    write_archive(tmp_path, {"w": torch.ones(2)}, {})
    forge(tmp_path, lambda b: b.update(document={"part": {"odd_": value}}))
    refused(lambda: read_archive(tmp_path), r"model\.json.*\['part'\]")


def test_json_that_is_nested_without_end(tmp_path):
    write_archive(tmp_path, {}, {})
    for depth in (500, 100_000):
        deep = []
        text = "[" * depth + "]" * depth
        forge_text(tmp_path, f'{{"a": {text}}}')
        refused(lambda: read_archive(tmp_path), r"model\.json")
        assert deep == []


def forge_text(folder, document):
    """An archive with a right digest whose document is any text."""
    import hashlib

    raw = (folder / "model.json").read_text()
    rest = raw[raw.index('"celbo_archive"') : raw.index('"document"')] + f'"document": {document}}}'
    digest = hashlib.sha256(rest.encode()).hexdigest()
    (folder / "model.json").write_text(f'{{"sha256": "{digest}", {rest}')


@pytest.mark.parametrize("document", ['{"a": NaN}', '{"a": Infinity}', "[]", '{"a": 1' + "0" * 5000 + "}"])
def test_json_that_no_archive_has(tmp_path, document):
    write_archive(tmp_path, {}, {})
    forge_text(tmp_path, document)
    refused(lambda: read_archive(tmp_path), r"model\.json")


def test_json_of_many_small_values(tmp_path):
    write_archive(tmp_path, {}, {})
    forge_text(tmp_path, '{"a": [' + "[]," * budget.MAX_VALUES + "[]]}")
    refused(lambda: read_archive(tmp_path), r"model\.json is larger")


def test_what_is_written_can_be_read(tmp_path, monkeypatch):
    """The writer has the reader's limits."""
    monkeypatch.setattr(codec, "MAX_TABLES", 10)
    with pytest.raises(ArchiveError, match=r"\['a'\].*10 tables"):
        write_archive(tmp_path, {}, {"a": [pd.Series([1]) for _ in range(6)]})
    with pytest.raises(ArchiveError, match=r"\['a'\] is an integer of 5,001 bits"):
        write_archive(tmp_path, {}, {"a": 2**5000})
    monkeypatch.setattr("celbo.io.archive.MAX_VALUES", 100)
    with pytest.raises(ArchiveError, match=r"values, above the limit.*\['a'\]"):
        write_archive(tmp_path, {}, {"a": list(range(100))})
    monkeypatch.setattr("celbo.io.archive.MAX_TENSORS", 2)
    with pytest.raises(ArchiveError, match="more than 2 arrays"):
        write_archive(tmp_path, {str(i): torch.ones(1) for i in range(3)}, {})


def test_long_ranges_are_written_as_numbers(tmp_path):
    write_archive(tmp_path, {}, {"short": pd.RangeIndex(5), "long": pd.RangeIndex(codec_pandas._MAX_RANGE + 1)})
    document = read_archive(tmp_path).document
    assert isinstance(document["short"], pd.RangeIndex)
    np.testing.assert_array_equal(document["long"], np.arange(codec_pandas._MAX_RANGE + 1))


def name(module, qualname):
    return b"c" + module.encode() + b"\n" + qualname.encode() + b"\n"


def kept(code, index=0):
    """Code of a value that goes to the memo and off the stack."""
    return code + b"q" + bytes([index]) + b"0"


def many(code, n):
    return b"](" + code * n + b"e."


MEGABYTE = b"\x96" + struct.pack("<Q", 1_000_000) + b"x" * 1_000_000
PAIRS = b"](" + b"".join(b"(J" + struct.pack("<i", i) + b"Nt" for i in range(20_000)) + b"e"
NUMBERS = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(20_000)) + b"e"


def numpy_array(dtype, shape, raw):
    """Code of an array: what it declares and what it holds may differ."""
    return (
        name("numpy.core.multiarray", "_reconstruct")
        + b"("
        + name("numpy", "ndarray")
        + b"K\x00\x85C\x01btR(K\x01"
        + shape
        + name("numpy", "dtype")
        + b"("
        + text(dtype)
        + b"\x89\x88tR(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + raw
        + b"tb"
    )


HOSTILE = {
    "bytes of bytes": kept(MEGABYTE) + many(name("builtins", "bytes") + b"h\x00\x85R", 20_000),
    "encoded text": kept(text("x" * 1_000_000))
    + many(name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R", 20_000),
    "sets": kept(NUMBERS) + many(name("builtins", "set") + b"h\x00\x85R", 20_000),
    "ordered dicts": kept(PAIRS) + many(name("collections", "OrderedDict") + b"h\x00\x85R", 20_000),
    "arrays of no bytes": numpy_array("f8", b"K\x00J" + struct.pack("<i", 2**30) + b"\x86", b"C\x00") + b".",
    "text of no bytes": numpy_array("U0", b"J" + struct.pack("<i", 2**30) + b"\x85", b"C\x00") + b".",
    "no letters": numpy_array("U1", b"K\x01\x85", b"C\x04\xff\xff\xff\x7f") + b".",
    "many dimensions": kept(b"\x8b" + struct.pack("<i", 100_001) + b"\xff" * 100_000 + b"\0") + b"h\x00.",
    "digits": b"L" + b"9" * 100_000 + b"L\n.",
    "calls": kept(name("builtins", "set")) + many(b"h\x00)R", 60_000),
    "dicts": many(b"}", 190_000),
    "a memo": b"](" + b"N\x94" * 90_000 + b"e.",
    "instructions": b"(" + b"N" * 250_000 + b"t.",
    "laughs": kept(b"](" + b"K\x01" * 100 + b"e")
    + b"".join(kept(b"](" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 99 + b"e", i + 1) for i in range(8))
    + b"h\x08.",
    "a range": name("pandas.core.indexes.base", "_new_Index")
    + b"("
    + name("pandas.core.indexes.range", "RangeIndex")
    + b"}("
    + text("start")
    + b"K\x00"
    + text("stop")
    + b"J"
    + struct.pack("<i", 2**31 - 1)
    + text("step")
    + b"K\x01"
    + text("name")
    + b"NutR.",
    "blocks of nothing": name("builtins", "slice")
    + b"(K\x00J"
    + struct.pack("<i", 9_999_999)
    + b"K\x01tRq\x010]("
    + (name("pandas._libs.internals", "_unpickle_block") + b"(K\x05h\x01K\x02tR") * 15
    + b"e.",
    "storages of storages": kept(body(b"x" * 1_000_000))
    + many(name("torch.storage", "_load_from_bytes") + b"h\x00\x85R", 1000),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_pickles_that_ask_for_more_than_they_hold(tmp_path, which, monkeypatch):
    monkeypatch.setattr(budget, "_BYTES_BESIDE", 2**22)  # the same sooner
    monkeypatch.setattr(pickle_machine, "MAX_INSTRUCTIONS", 200_000)
    raw = b"\x80\x05" + HOSTILE[which]
    (tmp_path / "attr.pkl").write_bytes(raw)
    (tmp_path / "model.pt").write_bytes(torch_zip(raw))
    if which == "arrays of no bytes":  # numpy holds no bytes for it either
        assert read_pickle_file(tmp_path / "attr.pkl").shape == (0, 2**30)
        return
    refused(lambda: read_pickle_file(tmp_path / "attr.pkl"), r"attr\.pkl")
    refused(lambda: read_torch_file(tmp_path / "model.pt"), r"model\.pt")


def test_a_storage_larger_than_its_entry(tmp_path):
    def reference(n):
        return body("storage") + name("torch", "FloatStorage") + body("0") + body("cpu") + b"J" + struct.pack("<i", n)

    def tensor(n):
        head = name("torch._utils", "_rebuild_tensor_v2") + b"((" + reference(n) + b"tQK\x00J" + struct.pack("<i", n)
        return b"\x80\x02" + head + b"\x85K\x01\x85\x89" + name("collections", "OrderedDict") + b")RtR."

    (tmp_path / "x.pt").write_bytes(torch_zip(tensor(2), {"0": b"\0" * 8}))
    assert read_torch_file(tmp_path / "x.pt").tolist() == [0, 0]
    (tmp_path / "x.pt").write_bytes(torch_zip(tensor(2**30), {"0": b"\0" * 8}))
    refused(lambda: read_torch_file(tmp_path / "x.pt"), "larger than the file")


def test_views_that_repeat_one_number(tmp_path):
    """A stride of zero makes a view of any size; 200 of them would take 8 GB."""
    views = [torch.zeros(1).as_strided((10_000_000,), (0,)) for _ in range(200)]
    torch.save({"model_state_dict": views}, tmp_path / "x.pt")
    refused(lambda: read_torch_file(tmp_path / "x.pt"), "larger than the file")


def test_hashes_chosen_alike(tmp_path):
    alike = pickle.dumps([complex(-1000003.0 * i, i) for i in range(20_000)], 2)[2:-1]
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + name("builtins", "set") + alike + b"\x85R.")
    refused(lambda: read_pickle_file(tmp_path / "x.pkl"), "keys")


def test_a_zip_of_many_entries(tmp_path):
    raw = torch_zip(pickle.dumps(1, 2), {"0": b""})
    entry = raw[raw.index(b"PK\x01\x02") : raw.index(b"PK\x05\x06")]
    end = raw.index(b"PK\x05\x06")
    size = len(entry) * 40_000
    crowd = raw[:end] + entry * 40_000 + raw[end : end + 12] + struct.pack("<I", len(entry) + size) + raw[end + 16 :]
    (tmp_path / "x.pt").write_bytes(crowd)
    refused(lambda: read_torch_file(tmp_path / "x.pt"), r"x\.pt")


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4000000000]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"Q99","shape":[2],"data_offsets":[0,8]}}',
        b'{"w":' * 10_000,
        b"{" + b'"w":{},' * 200_000 + b"}",
    ],
    ids=range(8),
)
def test_headers_of_tensors(tmp_path, header):
    """The library compares shapes, offsets and sizes: this sees to it that it goes on doing so."""
    import hashlib

    write_archive(tmp_path, {"w": torch.ones(2)}, {})
    raw = len(header).to_bytes(8, "little") + header + b"\0" * 8
    (tmp_path / "model.safetensors").write_bytes(raw)
    forge(tmp_path, lambda b: b.update(tensors_sha256=hashlib.sha256(raw).hexdigest()))
    refused(lambda: read_archive(tmp_path), r"model\.safetensors")
