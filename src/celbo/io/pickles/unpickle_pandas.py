"""pandas' part of what an unpickled archive may hold: frames, series, indices and their arrays, rebuilt from columns.

pandas itself unpickles through its private block manager, whose layout differs between its versions. Here the pickled
layout (pandas 1, 2 and 3) is read as data, and the frame is made with the public constructors of whichever pandas is
installed. Text columns of pandas 3 (``str``) become object columns of ``str`` with NaN for missing ones.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ..budget import labels
from ..errors import ArchiveError
from .pickle_machine import Call, DictItems, Name
from .unpickle import Grant, Rebuilder, plain

__all__ = ["PANDAS_CONSTANTS", "PANDAS_GRANTS"]


_Block = tuple[Any, Any]
"""Values and where they lie among the columns."""


def _fields(node: object) -> dict[str, Any]:
    """Nodes by name of a state that must be a dict with text keys."""
    if not isinstance(node, DictItems) or any(not isinstance(key, str) for key, _ in node.items):
        raise ArchiveError("a pandas object has a state that is no dictionary")
    return dict(node.items)


def _state(call: Call) -> dict[str, Any]:
    if len(call.states) != 1:
        raise ArchiveError(f"{call.function} comes without its state")
    return _fields(call.states[0])


def _need(fields: dict[str, Any], *names: str) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    raise ArchiveError(f"a pandas object lacks its {names[0]!r}")


def _last(name: object) -> str:
    if not isinstance(name, Name) or name.module.partition(".")[0] != "pandas":
        raise ArchiveError("a pandas object is of a kind that is no pandas class")
    return name.qualname


def _one_dimensional(value: object) -> Any:
    if not isinstance(value, np.ndarray | pd.api.extensions.ExtensionArray) or value.ndim != 1:
        raise ArchiveError("pandas values are no one-dimensional array")
    return value


def _new_index(r: Rebuilder, call: Call) -> pd.Index:
    kind, state = plain(call, 2)
    name, fields = _last(kind), _fields(state)
    if name == "RangeIndex":
        return _range_index(r, fields)
    if name == "MultiIndex":
        return _multi_index(r, fields)
    if name not in ("Index", "Int64Index", "UInt64Index", "Float64Index", "CategoricalIndex", "DatetimeIndex"):
        raise ArchiveError(f"it holds a pandas index of the kind {name[:60]!r}, which is not read")
    data = labels(_one_dimensional(r.value(_need(fields, "data"))))
    r.budget.tables()
    r.budget.charge(8 * len(data))
    return pd.Index(data, name=_label(r.value(fields.get("name"))), dtype=data.dtype)


def _label(name: object) -> Any:
    hash(name)
    return name


def _range_index(r: Rebuilder, fields: dict[str, Any]) -> pd.RangeIndex:
    start, stop, step = (r.of(_need(fields, part), int) for part in ("start", "stop", "step"))
    index = pd.RangeIndex(start, stop, step, name=_label(r.value(fields.get("name"))))
    r.budget.tables()
    r.budget.charge(8 * len(index))
    return index


def _multi_index(r: Rebuilder, fields: dict[str, Any]) -> pd.MultiIndex:
    levels = r.values(_need(fields, "levels"))
    codes = r.values(_need(fields, "codes", "labels"), len(levels))
    if not all(isinstance(level, pd.Index) for level in levels) or not all(
        isinstance(code, np.ndarray) for code in codes
    ):
        raise ArchiveError("a pandas index of several levels lacks a level")
    r.budget.tables(1 + len(levels))
    r.budget.charge(8 * sum(code.size for code in codes))
    return pd.MultiIndex(levels, codes, names=r.values(_need(fields, "names"), len(levels)), verify_integrity=True)


def _block(r: Rebuilder, call: Call) -> _Block:
    values, placement, _ = plain(call, 3)
    return _checked_block(r.value(values), r.value(placement))


def _checked_block(values: object, placement: object) -> _Block:
    """A block that is an array, and lies at no more places than it has; a series' lies at its rows."""
    if not isinstance(values, np.ndarray | pd.api.extensions.ExtensionArray) or values.ndim not in (1, 2):
        raise ArchiveError("a pandas block is no array")
    if len(_places(placement)) not in (1, len(values)):
        raise ArchiveError(f"a pandas block of {len(values):,} rows lies at {len(_places(placement)):,} places")
    return values, placement


def _places(placement: object) -> Any:
    """Where a block lies, as a range or an array."""
    if isinstance(placement, slice) and None not in (placement.start, placement.stop):
        return range(placement.start, placement.stop, placement.step or 1)
    if isinstance(placement, np.ndarray) and placement.dtype.kind in "iu" and placement.ndim == 1:
        return placement
    raise ArchiveError("a pandas block does not say where its columns lie")


def _positions(placement: object, n: int) -> list[int]:
    """The same, for ``n`` columns."""
    where = _places(placement)
    if len(where) != n:
        raise ArchiveError(f"a pandas block of {n:,} columns lies at {len(where):,} places")
    return [int(i) for i in where]


_Manager = tuple[list[pd.Index], list[_Block]]


def _manager(r: Rebuilder, call: Call) -> _Manager:
    """Axes (columns first) and blocks ``(values, positions)``, from either of pandas' two layouts."""
    if call.args:
        blocks, axes = r.values(call.args[0]), r.values(call.args[1])
    else:
        axes, blocks = _old_manager(r, call)
    if not axes or not all(isinstance(axis, pd.Index) for axis in axes):
        raise ArchiveError("a pandas table has no axes")
    return axes, blocks


def _old_manager(r: Rebuilder, call: Call) -> _Manager:
    state = call.states[0] if len(call.states) == 1 else None
    if not isinstance(state, tuple) or len(state) != 4:
        raise ArchiveError("a pandas table is laid out in an unknown way")
    layout = _fields(_need(_fields(state[3]), "0.14.1"))
    nodes = _need(layout, "blocks")
    if not isinstance(nodes, list):
        raise ArchiveError("a pandas table has no blocks")
    fields = [_fields(node) for node in nodes]
    blocks = [_checked_block(r.value(_need(f, "values")), r.value(_need(f, "mgr_locs"))) for f in fields]
    return r.values(_need(layout, "axes")), blocks


def _rows(r: Rebuilder, values: object) -> list[Any]:
    """The columns of one block: rows of a 2-D array, or the one array of an extension type."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        r.budget.tables(len(values))
        return list(values)
    return [_one_dimensional(values)]


def _frame(r: Rebuilder, call: Call) -> pd.DataFrame:
    manager = r.value(_need(_state(call), "_mgr", "_data"))
    if not isinstance(manager, tuple) or len(manager[0]) != 2:
        raise ArchiveError("a data frame does not have two axes")
    (columns, index), blocks = manager
    by_position: dict[int, Any] = {}
    for values, placement in blocks:
        rows = _rows(r, values)
        by_position.update(zip(_positions(placement, len(rows)), rows, strict=True))
    if sorted(by_position) != list(range(len(columns))) or any(len(v) != len(index) for v in by_position.values()):
        raise ArchiveError("a data frame's columns do not fit its axes")
    r.budget.tables(1 + len(columns))
    parts = {i: pd.Series(by_position[i], index=index, dtype=by_position[i].dtype) for i in range(len(columns))}
    frame = pd.DataFrame(parts, index=index)
    frame.columns = columns
    return frame


def _series(r: Rebuilder, call: Call) -> pd.Series:
    fields = _state(call)
    manager = r.value(_need(fields, "_mgr", "_data"))
    if not isinstance(manager, tuple) or len(manager[0]) != 1 or len(manager[1]) != 1:
        raise ArchiveError("a series does not have one axis and one array")
    index, values = manager[0][0], _one_dimensional(manager[1][0][0])
    if len(values) != len(index):
        raise ArchiveError("a series' values do not fit its index")
    r.budget.tables()
    name = fields.get("_name") if "_name" in fields else fields.get("name")
    return pd.Series(values, index=index, dtype=values.dtype, name=_label(r.value(name)))


def _backed_array(r: Rebuilder, call: Call) -> Any:
    """An extension array around one numpy array: categorical, text or times."""
    kind = _last(call.args[0]) if call.args else ""
    state = call.states[0] if len(call.states) == 1 else None
    if kind not in _BACKED or not isinstance(state, tuple) or len(state) not in (2, 3):
        raise ArchiveError(f"it holds a pandas array of the kind {kind[:60]!r}, which is not read")
    first, second = r.value(state[0]), r.value(state[1])
    dtype, values = (second, first) if isinstance(first, np.ndarray) else (first, second)
    r.budget.tables()
    r.budget.charge(8 * len(_one_dimensional(values)))
    return _BACKED[kind](dtype, _one_dimensional(values))


def _categorical(dtype: object, codes: np.ndarray) -> Any:
    if not isinstance(dtype, pd.CategoricalDtype):
        raise ArchiveError("a categorical has no categories")
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _string_array(dtype: object, values: np.ndarray) -> Any:
    if not isinstance(dtype, pd.StringDtype) and dtype is not object:
        raise ArchiveError("a text array has no text dtype")
    return values if dtype is object else pd.array(values, dtype="string")


_BACKED = {
    "Categorical": _categorical,
    "StringArray": _string_array,
    "DatetimeArray": lambda dtype, values: pd.array(values, dtype=values.dtype),
}


def _categorical_dtype(r: Rebuilder, call: Call) -> pd.CategoricalDtype:
    fields = _state(call)
    categories, ordered = r.value(_need(fields, "categories")), r.value(_need(fields, "ordered"))
    if not isinstance(categories, pd.Index) or ordered not in (True, False, None):
        raise ArchiveError("a categorical has no categories")
    r.budget.tables()
    return pd.CategoricalDtype(categories, ordered=ordered)


def _string_dtype(r: Rebuilder, call: Call) -> Any:
    # pandas 3's `str` differs from `string` in its missing value; it becomes a plain object column.
    missing = r.value(call.args[1]) if len(call.args) == 2 else pd.NA
    return pd.StringDtype("python") if missing is pd.NA else object


def _masked_array(r: Rebuilder, call: Call) -> Any:
    fields = _state(call)
    data, mask = r.value(_need(fields, "_data")), r.value(_need(fields, "_mask"))
    if (
        not isinstance(data, np.ndarray)
        or not isinstance(mask, np.ndarray)
        or mask.dtype != bool
        or data.shape != mask.shape
        or data.ndim != 1
    ):
        raise ArchiveError("a pandas array with missing values lacks its mask")
    r.budget.tables()
    r.budget.charge(9 * len(data))
    kinds = {
        "i": pd.arrays.IntegerArray,
        "u": pd.arrays.IntegerArray,
        "f": pd.arrays.FloatingArray,
        "b": pd.arrays.BooleanArray,
    }
    if data.dtype.kind not in kinds:
        raise ArchiveError(f"a pandas array with missing values has the dtype {data.dtype}")
    return kinds[data.dtype.kind](data, mask)


def _arrow_strings(r: Rebuilder, call: Call) -> Any:
    fields = _state(call)
    texts = r.of(_need(fields, "_pa_array"), list)
    dtype = r.value(_need(fields, "_dtype"))
    missing = np.nan if dtype is object else pd.NA
    r.budget.charge(16 * len(texts))
    values = np.empty(len(texts), dtype=object)
    values[:] = [missing if text is None else text for text in texts]
    return _string_array(dtype, values)


def _arrow_restore(r: Rebuilder, call: Call) -> list[str | None]:
    """Texts of an Arrow string array, from its validity bits, offsets and bytes."""
    (state,) = plain(call, 1)
    kind, length, _, offset, buffers, *_ = r.values(state, 7)
    if (
        kind not in _ARROW_OFFSETS
        or type(length) is not int
        or type(offset) is not int
        or min(length, offset) < 0
        or len(buffers) != 3
    ):
        raise ArchiveError("it holds an Arrow array that is no text")
    valid_bits, ends, text = (buffer or b"" for buffer in buffers)
    r.budget.tables()
    r.budget.charge(8 * length + len(text))
    bounds = np.frombuffer(ends, _ARROW_OFFSETS[kind])[offset : offset + length + 1].tolist()
    if len(bounds) != length + 1 or any(not 0 <= a <= b <= len(text) for a, b in pairwise(bounds)):
        raise ArchiveError("an Arrow text array's offsets are damaged")
    bits = np.frombuffer(valid_bits, np.uint8)[offset // 8 : (offset + length + 7) // 8]
    valid = np.unpackbits(bits, bitorder="little")[offset % 8 : offset % 8 + length].astype(bool)
    if buffers[0] is not None and len(valid) != length:
        raise ArchiveError("an Arrow text array's validity bits are damaged")
    texts = [bytes(text[a:b]).decode() for a, b in pairwise(bounds)]
    return [t if buffers[0] is None or valid[i] else None for i, t in enumerate(texts)]


_ARROW_OFFSETS = {"string": "<i4", "large_string": "<i8"}


def _arrow_type(r: Rebuilder, call: Call) -> str:
    return r.of(plain(call, 1)[0], str)


def _arrow_buffer(r: Rebuilder, call: Call) -> bytes:
    value = r.value(plain(call, 1)[0])
    if not isinstance(value, bytes | bytearray):
        raise ArchiveError("an Arrow buffer is no bytes")
    r.budget.charge(len(value))
    return bytes(value)


def _masked_dtype(r: Rebuilder, call: Call) -> str:
    return str(call.function)


_MASKED_DTYPES = [f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)]
PANDAS_GRANTS: dict[str, Grant] = {
    **dict.fromkeys(("pandas.core.frame.DataFrame", "pandas.DataFrame"), _frame),
    **dict.fromkeys(("pandas.core.series.Series", "pandas.Series"), _series),
    "pandas.core.internals.managers.BlockManager": _manager,
    "pandas.core.internals.managers.SingleBlockManager": _manager,
    "pandas._libs.internals._unpickle_block": _block,
    "pandas.core.indexes.base._new_Index": _new_index,
    "pandas.core.indexes.datetimes._new_DatetimeIndex": _new_index,
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _backed_array,
    **dict.fromkeys(("pandas.core.dtypes.dtypes.CategoricalDtype", "pandas.CategoricalDtype"), _categorical_dtype),
    **dict.fromkeys(("pandas.core.arrays.string_.StringDtype", "pandas.StringDtype"), _string_dtype),
    **{
        f"pandas.{home}{kind}": _masked_array
        for kind, homes in {
            "IntegerArray": ("core.arrays.integer.", "arrays."),
            "FloatingArray": ("core.arrays.floating.", "arrays."),
            "BooleanArray": ("core.arrays.boolean.", "arrays."),
        }.items()
        for home in homes
    },
    **{f"pandas.{home}{kind}": _masked_dtype for home in ("core.arrays.integer.", "") for kind in _MASKED_DTYPES},
    **{f"pandas.{home}Float{bits}Dtype": _masked_dtype for home in ("core.arrays.floating.", "") for bits in (32, 64)},
    **{f"pandas.{home}BooleanDtype": _masked_dtype for home in ("core.arrays.boolean.", "")},
    **dict.fromkeys(
        ("pandas.arrays.ArrowStringArray", "pandas.core.arrays.string_arrow.ArrowStringArray"), _arrow_strings
    ),
    "pyarrow.lib._restore_array": _arrow_restore,
    "pyarrow.lib.type_for_alias": _arrow_type,
    "pyarrow.lib.py_buffer": _arrow_buffer,
}
PANDAS_CONSTANTS: dict[str, Any] = dict.fromkeys(("pandas._libs.missing.NA", "pandas.NA"), pd.NA)
