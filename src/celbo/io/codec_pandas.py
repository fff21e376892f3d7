"""pandas in documents: frames, series, indices, categoricals and their missing values."""

from typing import Any

import numpy as np
import pandas as pd

from .codec import Reader, Writer, decodes, encodes
from .errors import ArchiveError

__all__ = ["encode_values"]

_MASKED_DTYPES: dict[str, Any] = {
    str(dtype): dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype(), pd.Float32Dtype(), pd.Float64Dtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype(), pd.BooleanDtype()),
    )
}


def encode_values(w: Writer, values: Any) -> Any:
    """JSON form of a column's or an index's array: numpy, categorical, masked or text."""
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
    values: Any = pd.array(r.decode(node["values"]), dtype=_MASKED_DTYPES[node["dtype"]])
    values[r.decode(node["mask"])] = pd.NA
    return values


@decodes("pandas.text")
def _read_text(r: Reader, node: dict[str, Any]) -> Any:
    if node["dtype"] not in ("string", "str"):
        raise ArchiveError(f"it holds text of the unknown dtype {node['dtype']!r}")
    return pd.array(node["v"], dtype=node["dtype"])


@encodes(pd.Categorical)
def _categorical(w: Writer, value: pd.Categorical) -> Any:
    return {
        "$": "pandas.Categorical",
        "codes": w.encode(np.asarray(value.codes)),
        "categories": w.encode(value.categories, ".categories"),
        "ordered": bool(value.ordered),
    }


@decodes("pandas.Categorical")
def _read_categorical(r: Reader, node: dict[str, Any]) -> pd.Categorical:
    dtype = pd.CategoricalDtype(r.decode(node["categories"]), ordered=node["ordered"])
    return pd.Categorical.from_codes(r.decode(node["codes"]), dtype=dtype)


@encodes(pd.CategoricalDtype)
def _categorical_dtype(w: Writer, value: pd.CategoricalDtype) -> Any:
    return {
        "$": "pandas.CategoricalDtype",
        "categories": w.encode(value.categories, ".categories"),
        "ordered": value.ordered,
    }


@decodes("pandas.CategoricalDtype")
def _read_categorical_dtype(r: Reader, node: dict[str, Any]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(r.decode(node["categories"]), ordered=node["ordered"])


@encodes(pd.Index, pd.CategoricalIndex, pd.DatetimeIndex, pd.TimedeltaIndex)
def _index(w: Writer, value: pd.Index) -> Any:
    return {"$": "pandas.Index", "name": w.encode(value.name, ".name"), "values": encode_values(w, value)}


@decodes("pandas.Index")
def _read_index(r: Reader, node: dict[str, Any]) -> pd.Index:
    values = r.decode(node["values"])
    return pd.Index(values, dtype=values.dtype, name=r.decode(node["name"]))


@encodes(pd.RangeIndex)
def _range_index(w: Writer, value: pd.RangeIndex) -> Any:
    return {"$": "pandas.RangeIndex", "name": w.encode(value.name, ".name"), "v": [value.start, value.stop, value.step]}


@decodes("pandas.RangeIndex")
def _read_range_index(r: Reader, node: dict[str, Any]) -> pd.RangeIndex:
    start, stop, step = node["v"]
    return pd.RangeIndex(start, stop, step, name=r.decode(node["name"]))


@encodes(pd.MultiIndex)
def _multi_index(w: Writer, value: pd.MultiIndex) -> Any:
    return {
        "$": "pandas.MultiIndex",
        "levels": [w.encode(level, f".levels[{i}]") for i, level in enumerate(value.levels)],
        "codes": [w.encode(np.asarray(codes)) for codes in value.codes],
        "names": w.encode(list(value.names), ".names"),
    }


@decodes("pandas.MultiIndex")
def _read_multi_index(r: Reader, node: dict[str, Any]) -> pd.MultiIndex:
    return pd.MultiIndex(r.decode(node["levels"]), r.decode(node["codes"]), names=r.decode(node["names"]))


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
    values = r.decode(node["values"])
    return pd.Series(values, index=r.decode(node["index"]), dtype=values.dtype, name=r.decode(node["name"]))


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
    index = r.decode(node["index"])
    values = r.decode(node["values"])
    frame = pd.DataFrame({i: pd.Series(v, index=index, dtype=v.dtype) for i, v in enumerate(values)}, index=index)
    frame.columns = r.decode(node["columns"])
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
    return pd.Timestamp(node["v"]).as_unit(node["unit"])


@encodes(pd.Timedelta)
def _timedelta(w: Writer, value: pd.Timedelta) -> Any:
    return {"$": "pandas.Timedelta", "v": value.isoformat(), "unit": value.unit}


@decodes("pandas.Timedelta")
def _read_timedelta(r: Reader, node: dict[str, Any]) -> pd.Timedelta:
    return pd.Timedelta(node["v"]).as_unit(node["unit"])


@encodes(pd.Interval)
def _interval(w: Writer, value: pd.Interval) -> Any:
    bounds = [w.encode(value.left, ".left"), w.encode(value.right, ".right")]
    return {"$": "pandas.Interval", "v": bounds, "closed": value.closed}


@decodes("pandas.Interval")
def _read_interval(r: Reader, node: dict[str, Any]) -> pd.Interval:
    left, right = (r.decode(bound) for bound in node["v"])
    return pd.Interval(left, right, closed=node["closed"])


@encodes(pd.Period)
def _period(w: Writer, value: pd.Period) -> Any:
    return {"$": "pandas.Period", "v": value.ordinal, "freq": value.freqstr}


@decodes("pandas.Period")
def _read_period(r: Reader, node: dict[str, Any]) -> pd.Period:
    return pd.Period(ordinal=int(node["v"]), freq=node["freq"])


@encodes(type(pd.NA))
def _missing(w: Writer, value: Any) -> Any:
    return {"$": "pandas.NA"}


@decodes("pandas.NA")
def _read_missing(r: Reader, node: dict[str, Any]) -> Any:
    return pd.NA


@encodes(type(pd.NaT))
def _not_a_time(w: Writer, value: Any) -> Any:
    return {"$": "pandas.NaT"}


@decodes("pandas.NaT")
def _read_not_a_time(r: Reader, node: dict[str, Any]) -> Any:
    return pd.NaT
