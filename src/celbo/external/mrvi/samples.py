"""What is known of samples: a row of ``obs`` for each, and a design matrix of columns that are the same in all of a
sample's cells.

Dims: n cells, s samples, q covariates.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...core import ArgumentError, settings, unknown_name

__all__ = ["Design", "code_of", "covariate", "design_of", "sample_table", "selected"]


def sample_table(obs: pd.DataFrame, code_n: np.ndarray) -> pd.DataFrame:
    """The first row of each sample, by its code."""
    first = ~pd.Series(code_n).duplicated().to_numpy()
    return obs.loc[first].set_index(pd.Index(code_n[first], name="_scvi_sample")).sort_index()


def covariate(info: pd.DataFrame, obs: pd.DataFrame | None, code_n: np.ndarray, key: str) -> pd.Series:
    """A column of the samples' table; of one that differs between cells of a sample the mean, or the commonest value.

    Raises
    ------
    ArgumentError
        No column of that name, or one with missing values.

    Warns
    -----
    UserWarning
        It is not the same in all cells of a sample: scvi-tools takes the first cell's value.
    """
    if key not in info:
        raise ArgumentError(unknown_name("column of the samples (sample_cov_keys)", key, map(str, info)))
    values = info[key]
    if values.isna().any():
        raise ArgumentError(f"{key!r} is missing in some samples: leave these out (sample_subset), or fill it in.")
    if obs is not None and key in obs:
        varies = obs[key].groupby(code_n, observed=True).nunique(dropna=False).gt(1)
        if varies.any():
            is_number = pd.api.types.is_numeric_dtype(obs[key]) and not pd.api.types.is_bool_dtype(obs[key])
            taken = "mean" if is_number else "commonest value"
            warnings.warn(
                f"{key!r} varies within {int(varies.sum())} samples, and a covariate of samples has one value in each: "
                f"the {taken} is taken. Better name a column that is the same in all cells of a sample.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
            groups = obs[key].groupby(code_n, observed=True)
            of_sample = groups.mean() if is_number else groups.agg(lambda one: one.mode().iloc[0])
            values = of_sample.reindex(values.index).astype(float if is_number else values.dtype)
    return values


def code_of(names: np.ndarray, sample: str | int) -> int:
    """Code of a sample by name; a number that is not a name is taken as the code.

    Raises an ``ArgumentError`` where there is no such sample; the nearest is named.
    """
    known = [str(name) for name in names]
    if str(sample) in known:
        return known.index(str(sample))
    if isinstance(sample, int) and 0 <= sample < len(known):
        return sample
    raise ArgumentError(unknown_name("sample", str(sample), known))


def selected(names: np.ndarray, subset: Sequence[str] | None) -> np.ndarray:
    """Codes of the samples asked for; None: all.

    Raises
    ------
    ArgumentError
        A name that no sample has, or fewer than two samples.
    """
    if subset is None:
        return np.arange(len(names))
    codes = np.unique([code_of(names, name) for name in subset])
    if len(codes) < 2:
        raise ArgumentError("sample_subset leaves one sample, and samples are compared: name two or more.")
    return codes


@dataclass(frozen=True)
class Design:
    """Covariates of samples.

    Attributes
    ----------
    matrix_sq
        A row for each sample.
    names
        Of the columns: the name of a number, or ``column_category`` for each category but the first.
    keys
        The column of ``obs`` that each is of; None for the offset of a batch.
    """

    matrix_sq: np.ndarray
    names: list[str]
    keys: list[str | None]


def design_of(columns: dict[str, pd.Series], batch_s: np.ndarray | None, normalize: bool) -> Design:
    """Design matrix: numbers as they are, categories but the first as 0 and 1, and a column for each batch.

    Parameters
    ----------
    columns
        Covariates by name, ``(s,)`` each.
    batch_s
        Batch of each sample, for offsets of batches; None: no offsets.
    normalize
        Whether columns are moved and scaled to 0 to 1.

    Raises
    ------
    ArgumentError
        A column that is the same in all samples.
    """
    parts: list[np.ndarray] = []
    names: list[str] = []
    keys: list[str | None] = []
    for key, values in columns.items():
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        table = values.to_frame(key) if is_number else _indicators(key, values)
        parts.append(table.to_numpy(dtype=float))
        names += map(str, table.columns)
        keys += [key] * table.shape[1]
        if not table.shape[1] or any(len(set(values)) < 2 for values in table.to_numpy().T):
            raise ArgumentError(f"{key!r} is the same in all samples: nothing depends on it. Leave it out.")
    matrix_sq = np.concatenate(parts, axis=1)
    if normalize:
        low, high = matrix_sq.min(0), matrix_sq.max(0)
        matrix_sq = (matrix_sq - low) / (high - low)
    if batch_s is not None:
        batches = np.unique(batch_s)
        matrix_sq = np.concatenate([(batch_s[:, None] == batches).astype(float), matrix_sq], axis=1)
        names = [f"offset_batch_{batch}" for batch in batches] + names
        keys = [*(None for _ in batches), *keys]
    return Design(matrix_sq, names, keys)


def _indicators(key: str, values: pd.Series) -> pd.DataFrame:
    categories = sorted(map(str, values.unique()))
    return pd.DataFrame({f"{key}_{one}": (values.astype(str) == one).astype(float) for one in categories[1:]})
