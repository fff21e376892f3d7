"""Splits that are drawn stretch by stretch of neighbouring cells, so that no permutation of all has to be held.

Dims: n cells, s stretches, c strata (groups of cells of which each set gets its part).
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..store import mapped as scratch
from ..store.tables.columns import column_parts
from .dataset import kept

__all__ = ["Strata", "apportion", "drawn", "sizes_of_strata", "strata_of"]


class Strata(NamedTuple):
    """Groups of cells.

    Attributes
    ----------
    codes
        Restarts the group's number of each cell, one array for each stretch of
        :data:`~celbo.store.mapped.STRETCH` cells.
    n_strata
        How many groups there are.
    """

    codes: Callable[[], Iterable[np.ndarray]]
    n_strata: int

    @classmethod
    def one(cls, n: int) -> "Strata":
        """All of ``n`` cells in one group."""
        return cls(lambda: (np.zeros(min(scratch.STRETCH, n - i), np.int8) for i in range(0, n, scratch.STRETCH)), 1)


def strata_of(column: pd.Series) -> Strata:
    """One group for each value of a column; missing values are a value of their own."""

    def parts() -> Iterator[pd.Series]:
        return (part.astype(object).where(part.notna(), np.nan) for part in column_parts(column))

    known = pd.Index(pd.concat([part.drop_duplicates() for part in parts()]).unique(), dtype=object)
    return Strata(lambda: (known.get_indexer(pd.Index(part, dtype=object)) for part in parts()), len(known))


def drawn(
    strata: Strata,
    n: int,
    sizes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    seed: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test cells, each ascending and mapped from a file.

    Each stretch gives a set its share of each group, up to rounding; which cells, a generator of (seed, stretch) says.

    Parameters
    ----------
    strata
        The groups.
    n
        Number of cells.
    sizes
        From the cells of each group, ``(c,)``, how many of them train and how many validate.
    seed
        None: fresh randomness.
    """
    key = secrets.randbits(63) if seed is None else seed
    count_sc = np.stack([np.bincount(code_m, minlength=strata.n_strata) for code_m in strata.codes()])
    train_c, validation_c = sizes(count_sc.sum(0))
    validation_sc = _over_stretches(count_sc, validation_c)
    until_train_sc = validation_sc + _over_stretches(count_sc - validation_sc, train_c)

    def between(first_sc: np.ndarray, last_sc: np.ndarray) -> np.ndarray:
        def pieces() -> Iterator[np.ndarray]:
            for s, code_m in enumerate(strata.codes()):
                order_m = np.random.default_rng([key, s]).permutation(len(code_m))
                code_m = code_m[order_m]
                rank_m = _rank_within(code_m, strata.n_strata)
                is_mine_m = (rank_m >= first_sc[s][code_m]) & (rank_m < last_sc[s][code_m])
                yield s * scratch.STRETCH + np.sort(order_m[is_mine_m])

        return kept(pieces, n)

    none_sc = np.zeros_like(count_sc)
    test_n = between(until_train_sc, count_sc) if (until_train_sc < count_sc).any() else np.empty(0, np.int64)
    return between(validation_sc, until_train_sc), between(none_sc, validation_sc), test_n


def _over_stretches(count_sc: np.ndarray, total_c: np.ndarray) -> np.ndarray:
    parts = [apportion(count_s, int(total)) for count_s, total in zip(count_sc.T, total_c)]
    return np.stack(parts, axis=1)


def _rank_within(code_m: np.ndarray, n_strata: int) -> np.ndarray:
    """How many cells of its group come before each cell, ``(m,)``."""
    if n_strata == 1:
        return np.arange(len(code_m))
    order_m = np.argsort(code_m, kind="stable")
    count_c = np.bincount(code_m, minlength=n_strata)
    rank_m = np.empty(len(code_m), np.int64)
    rank_m[order_m] = np.arange(len(code_m)) - np.repeat(np.cumsum(count_c) - count_c, count_c)
    return rank_m


def sizes_of_strata(count_c: np.ndarray, n_train: int, n_validation: int) -> tuple[np.ndarray, np.ndarray]:
    """How many cells of each group train and how many validate, so that each keeps its share up to rounding.

    Raises
    ------
    ValueError
        When there are more groups of two cells and more than training cells, of which each is to have one.
    """
    n_needed = int((count_c >= 2).sum())
    if n_train < n_needed:
        raise ValueError(
            f"stratify_by has {n_needed} values with 2 cells or more, but only {n_train} cells are to train: "
            "raise train_size."
        )
    train_c = apportion(count_c, n_train, least_c=(count_c >= 2).astype(np.int64))
    return train_c, apportion(count_c - train_c, n_validation)


def apportion(count_c: np.ndarray, total: int, least_c: np.ndarray | None = None) -> np.ndarray:
    """Whole parts of ``total``, in proportion to ``count_c`` as nearly as can be.

    Parameters
    ----------
    count_c
        Size of each category, which is also the most it can get.
    total
        Sum of the parts, at most the sum of ``count_c`` and at least that of ``least_c``.
    least_c
        Least part of each category; None is 0.

    Returns
    -------
    ``(c,)`` int64 that sums to ``total``; without ``least_c`` within 1 of the exact share.
    """
    least_c = np.zeros_like(count_c) if least_c is None else least_c
    ideal_c = count_c * (total / max(int(count_c.sum()), 1))
    part_c = np.maximum(np.floor(ideal_c).astype(np.int64), least_c)
    while (missing := total - int(part_c.sum())) != 0:
        step = 1 if missing > 0 else -1
        free_c = part_c < count_c if step > 0 else part_c > least_c
        part_c[np.argmax(np.where(free_c, step * (ideal_c - part_c), -np.inf))] += step
    return part_c
