"""Categories and codes: which values a column takes, and the integer that stands for each."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core import DataMismatchError, nearest_first, settings
from ..store.mapped import stretches
from ..store.tables.columns import column_parts, forget_column, true_places, worked_out

__all__ = ["encode", "extend_mapping", "extended", "same_text", "unknown_categories", "used_categories", "warn_if_rare"]

_FEW = 3
_SHOWN = 5


def used_categories(column: pd.Series, where: str) -> np.ndarray:
    """Distinct values of a column, in their own order: that of the categories if it has some, sorted if not.

    Categories that no cell has are left out: they would become batches or classes without data.

    Parameters
    ----------
    column
        One value a cell, of any dtype that can be compared.
    where
        How errors call it, for example ``"adata.obs['batch']"``.

    Returns
    -------
    ``(c,)`` array: numbers and booleans keep their dtype, everything else is ``object``.

    Raises
    ------
    ValueError
        When a cell has no value (NaN, None); says how many and names the first ones.
    TypeError
        When the values are of kinds that cannot be sorted, such as ``1`` and ``"1"``.
    """
    _require_complete(column, where)
    if isinstance(column.dtype, pd.CategoricalDtype):
        used = [pd.unique(part.cat.codes.to_numpy()) for part in column_parts(column)]
        categories = column.cat.categories[np.unique(np.concatenate(used))]
    else:
        categories = _sorted_unique(column, where)
    forget_column(column.array)
    array = categories.to_numpy()
    return array if array.dtype.kind in "biuf" else categories.astype(object).to_numpy()  # times stay times


def _indexable(column: pd.Series) -> pd.Series:
    """The column in a dtype that pandas can look values up in, which half floats are not; values stay what they are."""
    return column.astype(np.float32) if column.dtype == np.float16 else column


def _require_complete(column: pd.Series, where: str) -> None:
    missing, first = true_places((part.isna().to_numpy() for part in column_parts(column)), _SHOWN)
    if missing:
        rows = ", ".join(repr(str(name)) for name in column.index[first])
        more = ", ..." if missing > _SHOWN else ""
        raise ValueError(
            f"{where} has no value for {missing} of {len(column)} cells: {rows}{more}. "
            f"Give them a category of their own, for example "
            f"{where} = {where}.astype(object).fillna('unknown'), or leave these cells out."
        )


def _sorted_unique(column: pd.Series, where: str) -> pd.Index:
    found = [pd.Series(_indexable(part).unique()) for part in column_parts(column)]
    unique = pd.Index(found[0] if len(found) == 1 else pd.concat(found).unique())
    try:
        return unique.sort_values()
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in unique})
        raise TypeError(
            f"{where} mixes values of different types ({', '.join(kinds)}) that cannot be sorted. "
            f"Make them one type: {where} = {where}.astype(str)"
        ) from error


def unknown_categories(categories: np.ndarray, mapping: np.ndarray) -> list:
    """The entries of ``categories`` that are not in ``mapping``, sorted where they can be."""
    unknown = [value for value, known in zip(categories, pd.Index(categories).isin(mapping)) if not known]
    try:
        return sorted(unknown)
    except TypeError:
        return unknown


def same_text(given: object, known: Iterable[object]) -> Any:
    """The value that equals ``given``, or, of text and a number, reads like it (``"1"`` and 1); None without one."""
    values = [_plain(value) for value in known]
    if given in values:
        return given
    others = [value for value in values if isinstance(value, str) != isinstance(given, str)]
    return next((value for value in others if _readings(value) & _readings(given)), None)


def _readings(value: object) -> set[str]:
    """How a value may be written: 1 as ``"1"`` and ``"1.0"``."""
    plain = _plain(value)
    if not isinstance(plain, int | float) or isinstance(plain, bool):
        return {str(plain)}
    return {str(plain), str(float(plain))} | ({str(int(plain))} if float(plain).is_integer() else set())


def extend_mapping(mapping: np.ndarray, new: Sequence) -> np.ndarray:
    """``mapping`` with new categories behind it, so that the old codes stay what they are.

    The dtype is kept where it can hold the new values and is ``object`` otherwise (never text for numbers).
    """
    if not len(new):
        return mapping
    tail = np.asarray(new)
    if mapping.dtype.kind in "biuf" and tail.dtype.kind == mapping.dtype.kind:
        return np.concatenate([mapping, tail])
    return np.array([*mapping, *new], dtype=object)


def extended(mapping: np.ndarray, found: np.ndarray, where: str) -> np.ndarray:
    """``mapping`` with the categories behind it that were found in other data and are not in it.

    Raises
    ------
    ValueError
        For a new one that reads like a known one of another type: it would become a category without a past.
    """
    new = unknown_categories(found, mapping)
    alike = [value for value in new if same_text(value, mapping) is not None]
    if alike:
        value, known = _plain(alike[0]), same_text(alike[0], mapping)
        kinds = type(value).__name__, type(known).__name__
        raise ValueError(
            f"{where} has {value!r}, of type {kinds[0]}, the registry has {known!r}, of type {kinds[1]}. If both are "
            f"the same, convert the column: {where} = {where}.astype({kinds[1]}). If not, give them names that differ."
        )
    return extend_mapping(mapping, new)


def encode(column: pd.Series, mapping: np.ndarray, where: str) -> np.ndarray:
    """Code of each cell: the position of its value in ``mapping``.

    Parameters
    ----------
    column
        ``(n,)`` values.
    mapping
        ``(c,)`` categories, position = code.
    where
        How errors call the column.

    Returns
    -------
    ``(n,)`` integers of the smallest signed type that can hold ``c``.

    Raises
    ------
    DataMismatchError
        When a value is not in the mapping; the known ones are listed, nearest first.
    ValueError
        When a value is missing.
    """
    categories = used_categories(column, where)
    unknown = unknown_categories(categories, mapping)
    if unknown:
        raise DataMismatchError(
            _unknown_message(unknown, mapping, where), _unknown_on_command_line(unknown, mapping, where)
        )
    codes_c = pd.Index(mapping).get_indexer(pd.Index(categories)).astype(_code_dtype(len(mapping)))

    def codes_of(part: pd.Series) -> np.ndarray:
        return codes_c[pd.Categorical(_indexable(part), categories=pd.Index(categories)).codes]

    return worked_out(column, codes_of, codes_c.dtype)


def _code_dtype(n_categories: int) -> type[np.signedinteger]:
    return next(kind for kind in (np.int8, np.int16, np.int32) if n_categories <= np.iinfo(kind).max)


def _unknown_on_command_line(unknown: list, mapping: np.ndarray, where: str) -> str:
    column = where.removeprefix("adata.")
    shown = ", ".join(repr(str(value)) for value in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
    known = ", ".join(map(repr, nearest_first(unknown[0], mapping)))
    return (
        f"The input has cells with {shown} in {column}, and the model was trained with {known} only. Leave these cells "
        "out, train a model on all cells with celbo train, or have celbo map add new batches to this one."
    )


def _unknown_message(unknown: list, mapping: np.ndarray, where: str) -> str:
    known = nearest_first(unknown[0], mapping)
    more = f" and {len(mapping) - len(known)} more" if len(mapping) > len(known) else ""
    shown = ", ".join(repr(_plain(value)) for value in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
    message = (
        f"Category {shown} of {where} not found in source registry, whose categories are "
        f"{', '.join(map(repr, known))}{more}. Cannot transfer setup without `extend_categories = True`."
    )
    alike = same_text(unknown[0], mapping)
    if alike is not None:
        kinds = type(_plain(unknown[0])).__name__, type(alike).__name__
        message += (
            f" They look alike but are of type {kinds[0]} here and {kinds[1]} in the registry: convert the column."
        )
    return message


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def warn_if_rare(codes_n: np.ndarray, mapping: np.ndarray, where: str) -> None:
    """One ``UserWarning`` that names the categories with fewer than three cells, if there are any."""
    count_c = np.zeros(len(mapping), np.int64)
    for (some,) in stretches(codes_n):
        count_c += np.bincount(some, minlength=len(mapping))
    rare = [f"{_plain(mapping[code])!r} ({count_c[code]})" for code in np.flatnonzero((count_c > 0) & (count_c < _FEW))]
    if rare:
        shown = ", ".join(rare[:10]) + (f" and {len(rare) - 10} more" if len(rare) > 10 else "")
        warnings.warn(
            f"Category {shown} of {where} has fewer than {_FEW} cells. Models may not train properly.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
