"""Cells into training, validation and test sets: pure functions of sizes, seeds and columns."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd

from ..core import checked, noted, settings, unknown_name
from ..core.kinds import Whole
from ..core.rules import rules
from ..store.tables.columns import column_parts
from .dataset import MANY, all_rows, kept
from .row_sources.source import as_indices
from .stratified import Strata, apportion, drawn, sizes_of_strata, strata_of

__all__ = [
    "IndexingError",
    "Split",
    "apportion",
    "split_by_column",
    "split_indices",
    "split_sizes",
    "split_with_indexing",
]

SETS = ("train", "validation", "test")
_SHORT = {"train": "train", "validation": "valid", "test": "test"}
DEFAULT_TRAIN_SIZE = 0.9


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of cells.

    Attributes
    ----------
    train, validation, test
        Row numbers, int64, in the order in which the split drew them; of 4,194,304 cells and more ascending, int32
        (int64 from 2**31 cells on), mapped from a temporary file and read-only.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_sizes(n: int, train_size: float | None = None, validation_size: float | None = None) -> tuple[int, int]:
    """Numbers of training and validation cells among ``n``.

    ``ceil(train_size * n)`` train; ``floor(validation_size * n)`` validate, or all others when it is not given.

    Parameters
    ----------
    n
        Number of cells.
    train_size
        Fraction in (0, 1]; None is 0.9.
    validation_size
        Fraction in [0, 1), at most ``1 - train_size``; None is the rest.

    Raises
    ------
    ValueError
        For fractions out of range, or no cells at all.
    """
    train_size = DEFAULT_TRAIN_SIZE if train_size is None else float(train_size)
    if n < 1:
        raise ValueError("There are no cells to split.")
    if not 0 < train_size <= 1:
        raise noted(
            ValueError("Invalid train_size. Must be: 0 < train_size <= 1"),
            f"It is the fraction of cells to train on; got {train_size}.",
        )
    if validation_size is None:
        n_train = math.ceil(train_size * n)
        return n_train, n - n_train
    if not 0 <= validation_size < 1:
        raise noted(
            ValueError("Invalid validation_size. Must be 0 <= validation_size < 1"),
            f"It is the fraction of cells to validate on; got {validation_size}.",
        )
    if train_size + validation_size > 1 + 1e-12:
        raise noted(
            ValueError("train_size + validation_size must be between 0 and 1"),
            f"Got {train_size} + {validation_size} = {train_size + validation_size}.",
        )
    n_validation = math.floor(n * validation_size)
    return min(math.ceil(train_size * n), n - n_validation), n_validation  # 0.55 * 100 rounds up to 56 in binary


@checked
def split_indices(
    n: Annotated[int, Whole(0)],
    train_size: float | None = None,
    validation_size: float | None = None,
    shuffle: bool = True,
    seed: Annotated[int, Whole(0, 2**32 - 1)] | None = None,  # as numpy takes it
    stratify_by: Any = None,
) -> Split:
    """Split ``n`` cells at random, or in the order they lie.

    Parameters
    ----------
    n
        Number of cells.
    train_size, validation_size
        See :func:`split_sizes`; the rest is the test set.
    shuffle
        Draw at random; otherwise the first cells validate, the next train, the last test.
    seed
        Same seed, same split. None: fresh randomness. Global generators stay untouched.
    stratify_by
        One value a cell, ``(n,)``. Every value keeps its share of each set up to rounding, and every value with
        2 cells or more has at least one in the training set. Missing values count as a value of their own.

    Returns
    -------
    Sets that partition ``0 .. n - 1`` exactly. No cell moves on account of a batch size. They are scvi-tools' for the
    same seed, but for 4,194,304 cells and more: those are split stretch by stretch of 2**20 neighbouring cells, each of
    which gives every set its share (of each value of ``stratify_by``), so that no permutation of all has to be held.

    Raises
    ------
    ValueError
        For sizes out of range, ``stratify_by`` of another length, or more values than training cells.
    """
    n_train, n_validation = split_sizes(n, train_size, validation_size)
    if stratify_by is not None and len(stratify_by) != n:
        raise ValueError(f"stratify_by has {len(stratify_by)} values for {n} cells.")
    if n >= MANY and stratify_by is None:
        return _of_many(n, n_train, n_validation, seed) if shuffle else _as_they_lie(n, n_train, n_validation)
    if n >= MANY and shuffle:
        strata = strata_of(_as_series(stratify_by))
        return Split(*drawn(strata, n, lambda count_c: sizes_of_strata(count_c, n_train, n_validation), seed))
    # the legacy generator because its stream is what scvi-tools' splits are made of
    order_n = np.random.RandomState(seed).permutation(n) if shuffle else np.arange(n)
    if stratify_by is not None:
        return _stratified(order_n, n_train, n_validation, stratify_by)
    return Split(
        train=order_n[n_validation : n_validation + n_train],
        validation=order_n[:n_validation],
        test=order_n[n_validation + n_train :],
    )


def _of_many(n: int, n_train: int, n_validation: int, seed: int | None) -> Split:
    return Split(*drawn(Strata.one(n), n, lambda _: (np.array([n_train]), np.array([n_validation])), seed))


def _as_they_lie(n: int, n_train: int, n_validation: int) -> Split:
    rows_n = all_rows(n)
    first, last = n_validation, n_validation + n_train
    return Split(train=rows_n[first:last], validation=rows_n[:first], test=rows_n[last:])


def _stratified(order_n: np.ndarray, n_train: int, n_validation: int, values: object) -> Split:
    code_n = pd.factorize(np.asarray(values), use_na_sentinel=False)[0][order_n]
    train_c, validation_c = sizes_of_strata(np.bincount(code_n), n_train, n_validation)
    rank_n = pd.Series(code_n).groupby(code_n).cumcount().to_numpy()  # how many of its value came before it
    in_validation = rank_n < validation_c[code_n]
    in_train = ~in_validation & (rank_n < (validation_c + train_c)[code_n])
    return Split(order_n[in_train], order_n[in_validation], order_n[~in_train & ~in_validation])


def split_with_indexing(n: int, external_indexing: Sequence[Any]) -> Split:
    """Split given as lists of cells.

    Parameters
    ----------
    n
        Number of cells.
    external_indexing
        Training, validation and test cells: up to three lists or arrays of row numbers, or boolean masks of length
        ``n``. Missing or None ones are empty. They are not changed.

    Raises
    ------
    ValueError
        For more than three sets, no training cell, cells that do not exist, a cell twice in a set
        (:class:`IndexingError`) or in two sets. The message is scvi-tools', a note says which cells.

    Warns
    -----
    UserWarning
        When some cells are in no set, with how many; under scvi-tools' rules an :class:`IndexingError`.
    """
    if not isinstance(external_indexing, list | tuple):
        kind = type(external_indexing).__name__
        raise noted(ValueError("External indexing is not of list type"), f"[train, validation, test], not a {kind}.")
    if len(external_indexing) > len(SETS):
        raise ValueError(f"external_indexing is [train, validation, test], got {len(external_indexing)} sets.")
    given = [*external_indexing, *[None] * (len(SETS) - len(external_indexing))]
    sets = [_checked_set(indices, n, name) for indices, name in zip(given, SETS)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        _check_overlap(sets, first, second)
    unused = n - sum(map(len, sets))
    if unused and rules().unused_cells == "error":
        raise noted(
            IndexingError("There are missing indices please fix or remove those lines"),
            f"{unused} of {n} cells are in no set.",
        )
    if not len(sets[0]):
        raise ValueError("external_indexing has no training cells: its first set is empty.")
    _warn_unused(unused, n, "external_indexing")
    return Split(*sets)


def split_by_column(values: object, name: str = "column") -> Split:
    """Split given as one of ``"train"``, ``"validation"`` and ``"test"`` for each cell.

    Parameters
    ----------
    values
        ``(n,)``; a cell with a missing value is in no set, which is warned about.
    name
        Of the column, for messages.

    Raises
    ------
    ValueError
        For another value, or no training cell.
    """
    value_n = _as_series(values)
    unused = 0
    for part in column_parts(value_n):
        given = part.dropna()
        unused += len(part) - len(given)
        for value in given.unique():
            if value not in SETS:
                raise ValueError(unknown_name(f"set of cells in {name!r}", value, SETS))
    sets = [_rows_with(value_n, which) for which in SETS]
    if not len(sets[0]):
        raise ValueError(f"{name!r} has no cell with the value 'train'.")
    _warn_unused(unused, len(value_n), repr(name))
    return Split(*sets)


def _as_series(values: object) -> pd.Series:
    return values if isinstance(values, pd.Series) else pd.Series(np.asarray(values, dtype=object))


def _rows_with(value_n: pd.Series, wanted: str) -> np.ndarray:
    def pieces() -> Iterator[np.ndarray]:
        start = 0
        for part in column_parts(value_n):
            yield start + np.flatnonzero((part == wanted).to_numpy(bool, na_value=False))
            start += len(part)

    return kept(pieces, len(value_n)) if len(value_n) >= MANY else np.concatenate([np.empty(0, np.int64), *pieces()])


class IndexingError(ValueError, UserWarning):
    """Sets of cells that cannot be meant as they are. scvi-tools raises a ``Warning`` here: hence the second base."""


def _checked_set(indices: Any, n: int, name: str) -> np.ndarray:
    if indices is not None and np.ndim(indices) != 1:
        message = "One of the given external indexing arrays is not a np.array"
        raise noted(ValueError(message), f"The {name} set has {np.ndim(indices)} dimensions: give one number a cell.")
    try:
        rows_n = as_indices([] if indices is None else indices, n, what="cell").copy()
    except (IndexError, TypeError) as error:
        raise ValueError(f"external_indexing, {name} set: {error}") from error
    value_u, count_u = np.unique(rows_n, return_counts=True)
    if len(value_u) < len(rows_n):
        message = f"There are duplicate indexing in {_SHORT[name]} set"
        raise noted(IndexingError(message), f"{_some(value_u[count_u > 1])} more than once.")
    return rows_n


def _check_overlap(sets: list[np.ndarray], first: int, second: int) -> None:
    shared = np.intersect1d(sets[first], sets[second])
    if len(shared):
        names = sorted((_SHORT[SETS[first]], _SHORT[SETS[second]]), key=("train", "test", "valid").index)
        message = f"There are overlapping indexing between {names[0]} and {names[1]} sets"
        raise noted(ValueError(message), f"{_some(shared)} in both.")


def _some(cells: np.ndarray) -> str:
    more = f" and {len(cells) - 5} more" if len(cells) > 5 else ""
    return f"Cell {', '.join(map(str, cells[:5]))}{more} is there"


def _warn_unused(unused: int, n: int, what: str) -> None:
    if unused:
        message = f"{unused} of {n} cells are in no set of {what}: they take no part in training, validation or test."
        warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel + 1)
