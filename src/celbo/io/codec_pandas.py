"""pandas in documents: frames, series, indices, categoricals and their missing values."""

from typing import Any

import numpy as np
import pandas as pd

from .budget import labels
from .codec import Reader, Writer, decodes, encodes, text_of
from .errors import ArchiveError

__all__ = ["encode_values"]

_MASKED_DTYPES: dict[str, Any] = {
    str(dtype): dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype(), pd.Float32Dtype(), pd.Float64Dtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype(), pd.BooleanDtype()),
    )
}


_MAX_RANGE = 2**20
"""Longer ranges are written as their numbers: a reader asks that the file holds what it makes of it."""


def encode_values(w: Writer, values: Any) -> Any:
    """JSON form of a column's or an index's array: numpy, categorical, masked or text; else an ``ArchiveError``."""
    w.count_tables()
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return w.encode(np.asarray(values))
    if isinstance(dtype, pd.CategoricalDtype):
        return w.encode(pd.Categorical(values))
    if str(dtype) in _MASKED_DTYPES:
        series, numpy_dtype = pd.Series(values), _MASKED_DTYPES[str(dtype)].numpy_dtype
        filled = series.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0))
        return {
            "$": "pandas.masked",
            "dtype": str(dtype),
            "values": w.encode(filled),
            "mask": w.encode(series.isna().to_numpy()),
        }
    if isinstance(dtype, pd.StringDtype):
        texts = [None if missing else str(text) for text, missing in zip(values, pd.isna(values), strict=True)]
        return {"$": "pandas.text", "dtype": str(dtype), "v": texts}
    raise ArchiveError(
        f"{w.place} has the pandas dtype {str(dtype)!r}, which archives do not hold. Convert it to numbers, "
        "text or categories."
    )


@decodes("pandas.masked")
def _read_masked(r: Reader, node: dict[str, Any]) -> Any:
    dtype = _MASKED_DTYPES[node["dtype"]]
    values, mask = r.of(node["values"], np.ndarray), r.of(node["mask"], np.ndarray)
    if values.ndim != 1 or values.dtype != dtype.numpy_dtype or mask.dtype != bool or mask.shape != values.shape:
        raise ArchiveError("a pandas array with missing values does not fit its mask or dtype")
    filled: Any = pd.array(values, dtype=dtype)
    filled[mask] = pd.NA
    return filled


@decodes("pandas.text")
def _read_text(r: Reader, node: dict[str, Any]) -> Any:
    if node["dtype"] not in ("string", "str"):
        raise ArchiveError(f"it holds text of the unknown dtype {str(node['dtype'])[:60]!r}")
    if not isinstance(node["v"], list) or any(text is not None and not isinstance(text, str) for text in node["v"]):
        raise ArchiveError("a column of text holds something else")
    return pd.array(node["v"], dtype=node["dtype"])


@encodes(pd.Categorical)
def _categorical(w: Writer, value: pd.Categorical) -> Any:
    w.count_tables()
    return {
        "$": "pandas.Categorical",
        "codes": w.encode(np.asarray(value.codes)),
        "categories": w.encode(value.categories, ".categories"),
        "ordered": bool(value.ordered),
    }


@decodes("pandas.Categorical")
def _read_categorical(r: Reader, node: dict[str, Any]) -> pd.Categorical:
    codes = r.of(node["codes"], np.ndarray)
    r.budget.charge(codes.nbytes)
    return pd.Categorical.from_codes(codes, dtype=_read_categorical_dtype(r, node))  # type: ignore[return-value]


@encodes(pd.CategoricalDtype)
def _categorical_dtype(w: Writer, value: pd.CategoricalDtype) -> Any:
    w.count_tables()
    return {
        "$": "pandas.CategoricalDtype",
        "categories": w.encode(value.categories, ".categories"),
        "ordered": value.ordered,
    }


@decodes("pandas.CategoricalDtype")
def _read_categorical_dtype(r: Reader, node: dict[str, Any]) -> pd.CategoricalDtype:
    r.budget.tables()
    ordered = node["ordered"]
    if ordered not in (True, False, None):
        raise ArchiveError("categories are neither ordered nor not")
    return pd.CategoricalDtype(r.of(node["categories"], pd.Index), ordered=ordered)


@encodes(pd.Index, pd.CategoricalIndex, pd.DatetimeIndex, pd.TimedeltaIndex)
def _index(w: Writer, value: pd.Index) -> Any:
    return {"$": "pandas.Index", "name": w.encode(value.name, ".name"), "values": encode_values(w, value)}


@decodes("pandas.Index")
def _read_index(r: Reader, node: dict[str, Any]) -> pd.Index:
    values = labels(_column(r, node["values"]))
    return pd.Index(values, dtype=values.dtype, name=_name(r, node))


def _column(r: Reader, node: object, index: pd.Index | None = None) -> Any:
    """One array with a place for each row of the index: pandas would make as many of a single number."""
    r.budget.tables()
    values = r.of(node, np.ndarray, pd.api.extensions.ExtensionArray)
    if values.ndim != 1 or (index is not None and len(values) != len(index)):
        raise ArchiveError("the values of a table do not fit its index")
    return values


def _name(r: Reader, node: dict[str, Any]) -> Any:
    name = r.decode(node["name"], "name")
    hash(name)
    return name


@encodes(pd.RangeIndex)
def _range_index(w: Writer, value: pd.RangeIndex) -> Any:
    w.count_tables()
    if len(value) > _MAX_RANGE:
        return _index(w, value)
    return {"$": "pandas.RangeIndex", "name": w.encode(value.name, ".name"), "v": [value.start, value.stop, value.step]}


@decodes("pandas.RangeIndex")
def _read_range_index(r: Reader, node: dict[str, Any]) -> pd.RangeIndex:
    bounds = node["v"]
    if not isinstance(bounds, list) or len(bounds) != 3 or any(type(bound) is not int for bound in bounds):
        raise ArchiveError("a range is not made of three integers")
    index = pd.RangeIndex(bounds[0], bounds[1], bounds[2], name=_name(r, node))
    r.budget.tables()
    r.budget.charge(8 * len(index))
    return index


@encodes(pd.MultiIndex)
def _multi_index(w: Writer, value: pd.MultiIndex) -> Any:
    w.count_tables(1 + value.nlevels)
    return {
        "$": "pandas.MultiIndex",
        "levels": [w.encode(level, f".levels[{i}]") for i, level in enumerate(value.levels)],
        "codes": [w.encode(np.asarray(codes)) for codes in value.codes],
        "names": w.encode(list(value.names), ".names"),
    }


@decodes("pandas.MultiIndex")
def _read_multi_index(r: Reader, node: dict[str, Any]) -> pd.MultiIndex:
    levels, codes, names = (r.of(node[part], list) for part in ("levels", "codes", "names"))
    r.budget.tables(1 + len(levels))
    if not all(isinstance(level, pd.Index) for level in levels) or not len(levels) == len(codes) == len(names):
        raise ArchiveError("an index of several levels lacks a level")
    for values in codes:
        if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
            raise ArchiveError("an index of several levels lacks its codes")
        r.budget.charge(8 * len(values))
    return pd.MultiIndex(levels, codes, names=names)


@encodes(pd.Series)
def _series(w: Writer, value: pd.Series) -> Any:
    return {
        "$": "pandas.Series",
        "name": w.encode(value.name, ".name"),
        "index": w.encode(value.index, ".index"),
        "values": encode_values(
            w, value.array if isinstance(value.dtype, pd.api.extensions.ExtensionDtype) else value.to_numpy()
        ),
    }


@decodes("pandas.Series")
def _read_series(r: Reader, node: dict[str, Any]) -> pd.Series:
    index = r.of(node["index"], pd.Index)
    values = _column(r, node["values"], index)
    return pd.Series(values, index=index, dtype=values.dtype, name=_name(r, node))


@encodes(pd.DataFrame)
def _frame(w: Writer, value: pd.DataFrame) -> Any:
    columns = [value.iloc[:, i] for i in range(value.shape[1])]
    return {
        "$": "pandas.DataFrame",
        "columns": w.encode(value.columns, ".columns"),
        "index": w.encode(value.index, ".index"),
        "values": [
            encode_values(w, c.array if isinstance(c.dtype, pd.api.extensions.ExtensionDtype) else c.to_numpy())
            for c in columns
        ],
    }


@decodes("pandas.DataFrame")
def _read_frame(r: Reader, node: dict[str, Any]) -> pd.DataFrame:
    index, columns = r.of(node["index"], pd.Index), r.of(node["columns"], pd.Index)
    r.budget.tables()
    if not isinstance(node["values"], list) or len(node["values"]) != len(columns):
        raise ArchiveError("a table does not have as many columns as names of them")
    values = [_column(r, column, index) for column in node["values"]]
    frame = pd.DataFrame({i: pd.Series(v, index=index, dtype=v.dtype) for i, v in enumerate(values)}, index=index)
    frame.columns = columns
    return frame


@encodes(pd.Timestamp)
def _timestamp(w: Writer, value: pd.Timestamp) -> Any:
    if value.tz is not None:
        raise ArchiveError(
            f"{w.place} is a time with a time zone, which archives do not hold. Convert it to UTC without a zone."
        )
    return {"$": "pandas.Timestamp", "v": value.isoformat(), "unit": value.unit}


@decodes("pandas.Timestamp")
def _read_timestamp(r: Reader, node: dict[str, Any]) -> pd.Timestamp:
    return pd.Timestamp(text_of(node["v"])).as_unit(node["unit"])


@encodes(pd.Timedelta)
def _timedelta(w: Writer, value: pd.Timedelta) -> Any:
    return {"$": "pandas.Timedelta", "v": value.isoformat(), "unit": value.unit}


@decodes("pandas.Timedelta")
def _read_timedelta(r: Reader, node: dict[str, Any]) -> pd.Timedelta:
    return pd.Timedelta(text_of(node["v"])).as_unit(node["unit"])


@encodes(pd.Interval)
def _interval(w: Writer, value: pd.Interval) -> Any:
    bounds = [w.encode(value.left, ".left"), w.encode(value.right, ".right")]
    return {"$": "pandas.Interval", "v": bounds, "closed": value.closed}


@decodes("pandas.Interval")
def _read_interval(r: Reader, node: dict[str, Any]) -> pd.Interval:
    left, right = r.elements(node, 2)
    return pd.Interval(left, right, closed=node["closed"])


@encodes(pd.Period)
def _period(w: Writer, value: pd.Period) -> Any:
    return {"$": "pandas.Period", "v": value.ordinal, "freq": value.freqstr}


@decodes("pandas.Period")
def _read_period(r: Reader, node: dict[str, Any]) -> pd.Period:
    if type(node["v"]) is not int:
        raise ArchiveError("a period is not made of an integer")
    return pd.Period(ordinal=node["v"], freq=text_of(node["freq"]))


@encodes(type(pd.NA))
def _missing(w: Writer, value: object) -> Any:
    return {"$": "pandas.NA"}


@decodes("pandas.NA")
def _read_missing(r: Reader, node: dict[str, Any]) -> Any:
    return pd.NA


@encodes(type(pd.NaT))
def _not_a_time(w: Writer, value: object) -> Any:
    return {"$": "pandas.NaT"}


@decodes("pandas.NaT")
def _read_not_a_time(r: Reader, node: dict[str, Any]) -> Any:
    return pd.NaT
