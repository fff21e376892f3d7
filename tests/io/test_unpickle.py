"""What the reader of pickles builds, and everything it refuses."""

import builtins
import collections
import datetime
import importlib
import io
import os
import pathlib
import pickle
import subprocess
import time
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from celbo.io import ArchiveError, Constraint
from celbo.io.torch_file import read_pickle_file, read_torch_file

from .hostile import Reduced, body, call, text, torch_zip
from .test_codec import assert_same

HONEST = [
    *(
        None,
        True,
        5,
        2**200,
        1.5,
        "é",
        b"ab",
        bytearray(b"cd"),
        (1, (2,)),
        [1, [2]],
        {"a": {1: 2}},
        {1, 2},
        frozenset({3}),
        slice(1, 2),
        2j,
    ),
    *(
        OrderedDict(a=1),
        defaultdict(dict, a={}),
        defaultdict(list),
        Counter("aab"),
        pathlib.PurePosixPath("a/b"),
        pathlib.PureWindowsPath("c"),
    ),
    *(
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3)),
        np.array(2),
        np.array([1], ">i4"),
    ),
    *(
        np.array(["a", None, 1.5], dtype=object),
        np.array([(1, 2), [3]], dtype=object),
        np.array(["ab"]),
        np.array([b"x"]),
        np.array([True]),
    ),
    *(
        np.array(["2024-01-01", "NaT"], "M8[us]"),
        np.array([5], "m8[3h]"),
        np.float32(1.5),
        np.int64(3),
        np.bool_(True),
        np.str_("x"),
        np.dtype("f4"),
    ),
    *(np.dtype("O"), np.dtype("U7"), np.float32, torch.float16, torch.device("cuda:1"), torch.Size([1, 2])),
    pd.DataFrame({"elbo": np.array([1.0, 2.0], dtype=object)}, index=pd.Index([0, 1], name="epoch")),
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [1.0, 2.0], "d": pd.Categorical(["p", "q"]), "e": [3, 4]}),
    *(
        pd.DataFrame({"a": pd.array([1, None], "Int64")}),
        pd.DataFrame(),
        pd.DataFrame(index=["a"]),
        pd.DataFrame([[1, 2.5]], columns=["x", "x"]),
    ),
    *(
        pd.Series([1, 2], name="s"),
        pd.Series(["a", None], dtype="string"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([1.5, None], dtype="Float64"),
    ),
    *(
        pd.Series(pd.to_datetime(["2024-01-01", None])),
        pd.Index(["a"], name="n"),
        pd.Index([1.5]),
        pd.RangeIndex(2, 8, 3, name="r"),
    ),
    *(
        pd.CategoricalIndex(["a"], name="c"),
        pd.DatetimeIndex(["2024-01-01"]),
        pd.MultiIndex.from_tuples([(1, "a")], names=["x", "y"]),
    ),
    *(pd.Categorical(["a", None], categories=["b", "a"], ordered=True), pd.NA),
]


def load(tmp_path, raw):
    path = tmp_path / "attr.pkl"
    path.write_bytes(raw)
    return read_pickle_file(path)


def refuse(tmp_path, raw, says=""):
    """The bytes are refused within moments, as a pickle and inside a torch file, and the message names the file."""
    start = time.monotonic()
    with pytest.raises(ArchiveError, match=rf"attr\.pkl.*{says}"):
        load(tmp_path, raw)
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(raw))
    with pytest.raises(ArchiveError, match=rf"model\.pt.*{says}"):
        read_torch_file(path)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("protocol", [0, 1])
def test_plain_values_of_the_oldest_protocols(tmp_path, protocol):
    """Protocols 0 and 1 write objects through ``copyreg``, which no archive uses; plain values have opcodes."""
    value = [None, True, 5, -(2**40), 2**200, 1.5, "é\n", (1, (2,)), {"a": {1: [2]}}]
    assert_same(load(tmp_path, pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", HONEST, ids=lambda v: type(v).__name__)
def test_honest_values_come_back(tmp_path, value, protocol):
    expected = bytes(value) if isinstance(value, bytearray) and protocol < 5 else value
    assert_same(load(tmp_path, pickle.dumps(value, protocol)), expected)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_matrix_is_an_array(tmp_path, protocol):
    """So scvi-tools' registry has which of sparse proteins were measured."""
    found = load(tmp_path, pickle.dumps(np.array([[True, False]]).view(np.matrix), protocol))
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, [[True, False]])


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_tensors_of_plain_pickles_and_torch_files(tmp_path, protocol, dtype):
    base = torch.arange(24).reshape(2, 3, 4).to(dtype)
    values = {
        "a": base,
        "t": base.transpose(0, 2),
        "part": base[1, :, ::2],
        "scalar": base[1, 1, 1],
        "none": base[:, :0],
        "e": base[:, :1].expand(2, 9, 4),
    }
    assert_same(load(tmp_path, pickle.dumps(values, protocol)), values)
    for new_format in (True, False):
        torch.save(values, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
        assert_same(read_torch_file(tmp_path / "x.pt"), values)


def test_parameters_become_plain_tensors_and_state_dicts_dicts(tmp_path):
    layer = torch.nn.Linear(2, 3)
    torch.save({"state": layer.state_dict(), "p": layer.weight}, tmp_path / "x.pt")
    back = read_torch_file(tmp_path / "x.pt")
    assert type(back["p"]) is torch.Tensor
    assert not back["p"].requires_grad
    assert isinstance(back["state"], dict)
    assert torch.equal(back["state"]["bias"], layer.bias)


def test_pyro_constraints_become_data(tmp_path):
    from torch.distributions import constraints

    torch.save({"a": constraints.real, "b": constraints.greater_than(0.5)}, tmp_path / "x.pt")
    assert read_torch_file(tmp_path / "x.pt") == {
        "a": Constraint("_Real"),
        "b": Constraint("_GreaterThan", {"lower_bound": 0.5}),
    }


def test_shared_parts_stay_shared(tmp_path):
    part = [1]
    back = load(tmp_path, pickle.dumps([part, part]))
    assert back[0] is back[1]


@pytest.fixture
def bait(tmp_path, monkeypatch):
    """A file that any executed code would make, and alarms on the usual ways to run some."""
    mark = tmp_path / "executed"

    def alarm(*args, **kwargs):
        mark.write_text("executed")

    for owner, name in (
        (os, "system"),
        (subprocess, "Popen"),
        (os, "popen"),
        (builtins, "eval"),
        (importlib, "import_module"),
    ):
        monkeypatch.setattr(owner, name, alarm)
    return mark


class Evil:
    """Its state would be set by a trusting unpickler."""

    def __setstate__(self, state):
        raise AssertionError("code ran")


ATTACKS = {
    "os.system": call(b"os", b"system", b"(" + text("touch executed") + b"t"),
    "posix.system": call(b"posix", b"system", b"(" + text("touch executed") + b"t"),
    "builtins.eval": call(b"builtins", b"eval", b"(" + text("1/0") + b"t"),
    "builtins.exec": call(b"__builtin__", b"exec", b"(" + text("1/0") + b"t"),
    "builtins.getattr": call(b"builtins", b"getattr", b"(cos\nsystem\n" + text("__call__") + b"t"),
    "builtins.__import__": call(b"builtins", b"__import__", b"(" + text("os") + b"t"),
    "operator.attrgetter": call(b"operator", b"attrgetter", b"(" + text("system") + b"t"),
    "functools.partial": call(b"functools", b"partial", b"(cos\nsystem\n" + text("x") + b"t"),
    "numpy.load": call(b"numpy", b"load", b"(" + text("x.npy") + b"t"),
    "numpy.f2py.run": call(b"numpy.testing._private.utils", b"runstring", b"(" + text("1/0") + b"}t"),
    "pandas.read_pickle": call(b"pandas", b"read_pickle", b"(" + text("x.pkl") + b"t"),
    "torch.load": call(b"torch", b"load", b"(" + text("x.pt") + b"t"),
    "torch.hub.load": call(b"torch.hub", b"load", b"(" + text("x") + text("y") + b"t"),
    "dotted name": b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.",
    "dotted builtins": b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93.",
    "call of a call": b"\x80\x02ccollections\nOrderedDict\n)R(" + text("x") + b"tR.",
    "call of text": b"\x80\x02" + text("os.system") + b"(" + text("x") + b"tR.",
    "class instance": b"\x80\x02" + body(Reduced(Evil)) + b"}b.",
    "inst": b"(S'touch executed'\nios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\n" + text("x") + b"o.",
    "extension": b"\x80\x02\x82\x01.",
    "buffer": b"\x80\x05\x97.",
    "default factory": call(b"collections", b"defaultdict", b"(cos\nsystem\nt"),
    "bare name": b"\x80\x02cos\nsystem\n.",
    "hidden in an array": pickle.dumps(np.array([Reduced(print, "x")], dtype=object), 2),
    "hidden in a frame": pickle.dumps(pd.DataFrame({"a": [Reduced(print, "x")]}), 2),
    "hidden in a key": pickle.dumps({(1, Reduced(print)): 1}, 2),
    "sklearn": call(b"sklearn.mixture._gaussian_mixture", b"GaussianMixture", b")"),
    "scipy": call(b"scipy.sparse._csr", b"csr_matrix", b")"),
    "jax": call(b"jax._src.core", b"ShapedArray", b")"),
    "scvi": call(b"scvi.model._scvi", b"SCVI", b")"),
    "timezone": pickle.dumps(datetime.UTC, 2),
    "random generator": pickle.dumps(np.random.default_rng(0), 2),
    "masked array": pickle.dumps(np.ma.array([1]), 2),
    "recarray": pickle.dumps(np.zeros(2, dtype=[("a", "i4")]), 2),
    "ndarray subclass": pickle.dumps(np.zeros(2).view(np.recarray), 2),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_code_runs(tmp_path, bait, attack):
    refuse(tmp_path, attack)
    assert not bait.exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("os.system", "'os.system', which is refused"),
        ("sklearn", "scikit-learn"),
        ("scipy", "scipy object"),
        ("jax", "JAX model"),
    ],
)
def test_the_refusal_names_what_was_asked_for(tmp_path, name, says):
    refuse(tmp_path, ATTACKS[name], says)


def test_a_state_cannot_be_set_on_plain_values(tmp_path):
    for target in (b"}", b"]", b"N", b"K\x01", text("x"), b"cnumpy\nndarray\n"):
        refuse(tmp_path, b"\x80\x02" + target + b"}" + text("__class__") + text("x") + b"sb.")


def test_an_ordered_dict_gets_no_attributes(tmp_path):
    raw = b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + text("x") + b"sb."
    assert callable(load(tmp_path, raw).items)


def array_state(shape, dtype=b"f8", raw=b"\x00" * 8):
    """A pickled array whose declared shape is ours to choose."""
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + body(b"b") + b"tR"
    dtype_code = (
        b"cnumpy\ndtype\n("
        + text(dtype.decode())
        + b"\x89\x88tR(K\x03"
        + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    return head + b"(K\x01" + body(shape) + dtype_code + b"\x89" + body(raw) + b"tb."


@pytest.mark.parametrize("shape", [(2,), (2**40,), (2**62, 4), (-1,), (1,) * 40, (1, "a"), (True,), (0, 2**62), (1.0,)])
def test_arrays_with_impossible_shapes(tmp_path, shape):
    refuse(tmp_path, array_state(shape))


@pytest.mark.parametrize("dtype", [b"V8", b"O8", b"f16", b"U99999999", b"U0", b"(2,)f4", b"f4,f4", b"x", b"U" * 500])
def test_dtypes_that_do_not_fit(tmp_path, dtype):
    refuse(tmp_path, array_state((1,), dtype))


def test_object_arrays_with_the_wrong_number_of_elements(tmp_path):
    refuse(tmp_path, array_state((2**50,), b"O8", [1]), "as many objects|far larger")
    refuse(tmp_path, array_state((2,), b"O8", [1]), "as many objects")


def tensor_zip(size, stride, offset=0, declared=4, stored=16, kind="FloatStorage", key="0"):
    code = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
    )
    code += body(declared) + b"tQ" + body(offset) + body(size) + body(stride) + b"\x89ccollections\nOrderedDict\n)RtR."
    return torch_zip(code, {"0": b"\x00" * stored})


def test_a_forged_tensor_that_is_right_reads(tmp_path):
    (tmp_path / "x.pt").write_bytes(tensor_zip((2, 2), (2, 1)))
    assert torch.equal(read_torch_file(tmp_path / "x.pt"), torch.zeros(2, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (5,), "stride": (1,)},
        {"size": (2,), "stride": (4,)},
        {"size": (2,), "stride": (1,), "offset": 3},
        {"size": (2,), "stride": (1,), "offset": -1},
        {"size": (2,), "stride": (-1,), "offset": 1},
        {"size": (-2,), "stride": (1,)},
        {"size": (2,), "stride": (1, 1)},
        {"size": (2**62,), "stride": (2**62,)},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2**20, 2**20), "stride": (0, 0)},
        {"size": (2**30, 0), "stride": (1, 2**70)} | {"offset": 2**70, "key": "1"},
        {"size": (2.0,), "stride": (1,)},
        {"size": (1,) * 60, "stride": (1,) * 60},
        {"size": (4,), "stride": (1,), "declared": 5},
        {"size": (4,), "stride": (1,), "declared": 2**60},
        {"size": (4,), "stride": (1,), "declared": -1},
        {"size": (4,), "stride": (1,), "stored": 12},
        {"size": (4,), "stride": (1,), "kind": "QInt8Storage"},
        {"size": (4,), "stride": (1,), "kind": "DoubleStorage"},
        {"size": (4,), "stride": (1,), "key": "../data.pkl"},
    ],
    ids=str,
)
def test_tensors_outside_of_their_storage(tmp_path, arguments):
    (tmp_path / "x.pt").write_bytes(tensor_zip(**arguments))
    with pytest.raises(ArchiveError, match=r"x\.pt"):
        read_torch_file(tmp_path / "x.pt")


def bombs():
    """Small files that would unfold without end."""
    shared = b"\x80\x02" + text("lol")
    yield "billion laughs", shared + b"".join(b"2\x86" for _ in range(60)) + b"."
    yield "billion laughs as a key", b"\x80\x02}" + text("lol") + b"".join(b"2\x86" for _ in range(60)) + b"Ns."
    yield "billion laughs in a set", b"\x80\x04\x8f(" + text("lol") + b"".join(b"2\x86" for _ in range(60)) + b"\x90."
    yield "deep list", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    yield "deep tuple", b"\x80\x02N" + b"\x85" * 100_000 + b"."
    yield "deep calls", b"\x80\x02)" + b"\x85ccollections\nCounter\n)R" * 1 + b"\x85" * 5000 + b"."
    yield "itself", b"\x80\x02]q\x00h\x00a."
    yield "itself by key", b"\x80\x02}q\x00" + text("a") + b"h\x00s."
    yield "itself by state", b"\x80\x02ccollections\nOrderedDict\n)Rq\x00" + text("a") + b"h\x00s."
    yield "memo index", b"\x80\x02Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f."
    yield "long text", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00."
    yield "long bytes", b"\x80\x04\x8e" + b"\xff" * 8 + b"."
    yield "long bytearray", b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f."
    yield "long frame", b"\x80\x04\x95" + b"\xff" * 8 + b"]" * 10
    yield "long integer", b"\x80\x02\x8b\xff\xff\xff\x7f\x01."
    yield "decimal integer", b"I" + b"9" * 100_000 + b"\n."
    yield "colliding keys", b"\x80\x02}(" + b"".join(body(i * (2**61 - 1)) + b"N" for i in range(1, 2000)) + b"u."
    yield (
        "range index",
        call(
            b"pandas.core.indexes.base",
            b"_new_Index",
            b"cpandas.core.indexes.range\nRangeIndex\n}("
            + b"".join(text(k) + body(v) for k, v in (("start", 0), ("stop", 2**60), ("step", 1)))
            + b"u\x86",
        ),
    )
    yield "no stop", b"\x80\x02}"
    yield "empty", b""
    yield "stack", b"\x80\x020."
    yield "open group", b"\x80\x02(."
    yield "no group", b"\x80\x02t."
    yield "odd dict", b"\x80\x02(Nd."


@pytest.mark.parametrize(("name", "raw"), list(bombs()), ids=[name for name, _ in bombs()])
def test_bombs(tmp_path, name, raw):
    refuse(tmp_path, raw)


def test_embedded_storages_do_not_nest_without_end(tmp_path):
    raw = pickle.dumps(torch.ones(1), 2)
    for _ in range(12):
        raw = call(b"torch.storage", b"_load_from_bytes", b"(" + body(raw) + b"t")
    with pytest.raises(ArchiveError):
        load(tmp_path, raw)


def test_zip_files_that_torch_never_writes(tmp_path):
    import zipfile

    honest = pickle.dumps({"a": 1}, 2)
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(honest, extra=[("../../escaped", b"x"), ("/etc/escaped", b"x")]))
    assert read_torch_file(path) == {"a": 1}
    assert not (tmp_path.parent.parent / "escaped").exists()

    path.write_bytes(torch_zip(honest, {"0": b"\x00" * 10**7}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ArchiveError, match="compressed"):
        read_torch_file(path)
    path.write_bytes(torch_zip(honest, extra=[("other/data.pkl", honest)]))
    with pytest.raises(ArchiveError, match=r"data\.pkl"):
        read_torch_file(path)
    path.write_bytes(torch_zip(honest).replace(b"little", b"bigbig"))
    with pytest.raises(ArchiveError):
        read_torch_file(path)


def test_entries_that_overlap_cannot_multiply_the_file(tmp_path):
    """Many directory entries that point at the same bytes: each is fine, together they claim more than there is."""
    import struct
    import zipfile

    raw = torch_zip(pickle.dumps({}, 2), {"0": b"\x00" * 50_000})
    end = raw.rindex(b"PK\x05\x06")
    n, size, start = struct.unpack("<HII", raw[end + 10 : end + 20])
    directory = raw[start : start + size]
    last = directory[directory.rindex(b"PK\x01\x02") :]
    copies = b"".join(last.replace(b"data/0", b"data/" + bytes([65 + i])) for i in range(20))
    counted = struct.pack("<HHII", n + 20, n + 20, size + len(copies), start)
    (tmp_path / "x.pt").write_bytes(raw[:start] + directory + copies + raw[end : end + 8] + counted + raw[end + 20 :])
    assert len(zipfile.ZipFile(tmp_path / "x.pt").namelist()) == n + 20
    with pytest.raises(ArchiveError, match=r"more bytes than the file has|damaged"):
        read_torch_file(tmp_path / "x.pt")


def test_a_stream_with_wrong_storage_sizes(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(4)}, buffer, _use_new_zipfile_serialization=False)
    raw = buffer.getvalue()
    length_at = len(raw) - 16 - 8
    for length in (-1, 3, 5, 2**40, 2**62):
        (tmp_path / "x.pt").write_bytes(
            raw[:length_at] + length.to_bytes(8, "little", signed=True) + raw[length_at + 8 :]
        )
        with pytest.raises(ArchiveError):
            read_torch_file(tmp_path / "x.pt")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ArchiveError, match="cannot be read"):
            read_torch_file(path)


def test_the_counter_of_a_dict_is_counted(tmp_path):
    assert load(tmp_path, pickle.dumps(collections.Counter({"a": 3}), 2)) == {"a": 3}
