"""Columns, and values in them, that settings name."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from ..core import misspelt, unknown_name
from ..data.modalities import gathered_obs
from .counts import counts_of
from .errors import UserError
from .multimodal import modality_of_counts
from .options import TrainOptions, spelt

__all__ = ["value_of", "with_values_of"]

_OF_ONE_COLUMN = ("batch_key", "labels_key", "size_factor_key", "sample_key", "background_key")
_VALUES = {
    "unlabeled_category": "labels_key",
    "restrict_to_batch": "batch_key",
    "background_category": "background_key",
}
"""Setting that is a value -> setting that names its column."""

_MAY_BE_NEW = ("unlabeled_category",)
"""Settings that may also be a value that no cell has: every cell is labelled then."""


def with_values_of(data: Any, options: TrainOptions) -> TrainOptions:
    """Settings whose values are those of the data (AnnData or MuData), in their type: what is typed is text.

    Raises
    ------
    UserError
        No such column, layer or value, with the nearest one that there is.
    """
    obs, adata = gathered_obs(data), modality_of_counts(data, options)
    given = [getattr(options, name) for name in _OF_ONE_COLUMN]
    for key in (*given, *options.categorical_covariates, *options.continuous_covariates):
        if key is not None and key not in obs:
            raise UserError(unknown_name("column of obs", key, obs.columns))
    for name in (*options.continuous_covariates, options.size_factor_key):
        if name is not None and not pd.api.types.is_numeric_dtype(obs[name]):
            option = "--size-factor-key" if name == options.size_factor_key else spelt("continuous_covariates")
            raise UserError(
                f"{option} {name}: numbers are wanted, and this column of obs is of type {obs[name].dtype}."
            )
    for layer in options.layers:
        if layer not in adata.layers:
            raise UserError(unknown_name("layer", layer, adata.layers))
    if options.raw:
        counts_of(adata, None, raw=True)
    chosen = {name: getattr(options, name) for name in _VALUES if getattr(options, name) is not None}
    values = {
        name: value_of(obs, getattr(options, _VALUES[name]), given, spelt(name), name in _MAY_BE_NEW)
        for name, given in chosen.items()
    }
    return dataclasses.replace(options, **values)


def value_of(obs: pd.DataFrame, key: str, given: object, option: str, may_be_new: bool = False) -> Any:
    """A value of a column, in its type, that an option names; a :class:`UserError` with the nearest for another one.

    Where the value may be a new one, only one that reads as a slip of the keys is refused.
    """
    known = pd.unique(obs[key].dropna())
    for value in known:
        if str(value) == str(given):
            return value.item() if isinstance(value, np.generic) else value
    if may_be_new and misspelt(given, known) is None:
        return given
    raise UserError(unknown_name(f"value of {key!r}, which {option} names,", given, known))
