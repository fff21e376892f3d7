"""What the parts of a saved model must be, looked at before anything is made of them.

What celbo does not know (fields and attributes of models of others) is passed over.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import ArchiveError
from .errors import blaming
from .parts import FLAG, LABEL, LIST, NAMES, SIZE, TEXT, WHOLE, Part, check, every, is_whole, listed, names, or_none

__all__ = ["MismatchError", "check_parts", "set_attributes"]


class MismatchError(ArchiveError, KeyError):
    """Data lack a column, layer or gene that a saved model asks for."""

    __str__ = Exception.__str__  # a KeyError's is the repr of its message


def _is_rows(value: object) -> bool:
    if isinstance(value, list | tuple) and any(isinstance(part, np.ndarray) for part in value):
        return all(map(_is_rows, value))  # of several data sets
    rows = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else None
    if rows is None or rows.ndim != 1:
        return False
    return not rows.size or (rows.dtype.kind in "iu" and int(rows.min()) >= 0)


def _is_curve(value: object) -> bool:
    """A number for each epoch or step, maybe an object of its own as scvi-tools has them."""
    if not isinstance(value, pd.DataFrame | pd.Series) or (value.ndim == 2 and not value.shape[1]):
        return False
    column = value.iloc[:, 0] if isinstance(value, pd.DataFrame) else value
    try:
        return len([float(number) for number in column]) == len([int(at) for at in value.index])
    except (TypeError, ValueError):
        return False


def _sizes(stats: Mapping[str, Any]) -> Iterable[tuple[str, Any, Part]]:
    return ((name, value, SIZE) for name, value in stats.items() if name.startswith("n_"))


_MAYBE_TEXT = or_none(TEXT)
_STATE = names(
    maybe={
        "n_obs": SIZE,
        "n_vars": SIZE,
        "n_cells": SIZE,
        "column_names": LIST,
        "columns": LIST,
        "categorical_mapping": LIST,
        "original_key": LABEL,
        "unlabeled_category": LABEL,
        "mappings": every(LIST),
        "field_keys": LIST,
        "n_cats_per_key": listed(SIZE),
    }
)
_FIELD = names(
    {
        "data_registry": names(maybe={"attr_name": _MAYBE_TEXT, "attr_key": LABEL, "mod_key": _MAYBE_TEXT}),
        "state_registry": _STATE,
        "summary_stats": Part(NAMES.wanted, NAMES.is_right, _sizes),
    }
)
_SETUP_METHOD = Part("the name of a setup method", lambda name: isinstance(name, str) and name.startswith("setup_"))
_REGISTRY = names(
    {"field_registries": every(_FIELD), "setup_args": NAMES},
    {"setup_method_name": or_none(_SETUP_METHOD), "model_name": _MAYBE_TEXT, "scvi_version": _MAYBE_TEXT},
)
_ARGUMENTS = names(maybe={"non_kwargs": NAMES, "kwargs": every(NAMES)})
_ROWS = or_none(Part("row numbers", _is_rows))
_ATTRIBUTES = names(
    maybe={
        "is_trained_": FLAG,
        "history_": or_none(every(Part("a table of numbers by epoch or step", _is_curve))),
        "train_indices_": _ROWS,
        "validation_indices_": _ROWS,
        "test_indices_": _ROWS,
        "seed_": or_none(WHOLE),
        "kept_epoch_": or_none(WHOLE),
        "recipe_": _MAYBE_TEXT,
        "run_name_": _MAYBE_TEXT,
        "run_id_": _MAYBE_TEXT,
        "get_normalized_function_name_": _MAYBE_TEXT,
        "unlabeled_category_": LABEL,
        "surgery_": or_none(NAMES),
    }
)

_NOT_ATTRIBUTES = ("registry_", "init_params_")
_FREE_NUMBERS = ("seed", "random")
_ALWAYS_ALLOWED = 10**6


def check_parts(
    path: Path, registry: Any, init_params: object, attributes: Any, n_weights: int, *, own_format: bool = False
) -> None:
    """Refuse a saved model whose parts are not what they must be.

    Parameters
    ----------
    path
        The file, for messages.
    registry, init_params, attributes
        Its parts.
    n_weights
        Numbers that its weights have in all: no size is larger than that.
    own_format
        Whether celbo wrote it, which puts the registry and the arguments apart from the attributes.

    Raises
    ------
    ArchiveError
        Names the part, what came and what was wanted.
    """
    check(path, "registry", registry, _REGISTRY)
    check(path, "init_params", init_params, _ARGUMENTS)
    check(path, "attributes", attributes, _ATTRIBUTES)
    with blaming(path, "registry"):
        for key, field in registry["field_registries"].items():
            _check_lengths(key, field["state_registry"], field["summary_stats"])
            _check_numbers(key, _sizes_of_weights(field["summary_stats"]), n_weights)
    with blaming(path, "init_params"):
        _check_numbers("init_params", init_params, n_weights)
    apart = [name for name in _NOT_ATTRIBUTES if name in attributes]
    if own_format and apart:
        raise ArchiveError(f"{path}, attributes: {apart[0]!r} stands among them.")


def _sizes_of_weights(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stats[name] for name in stats if name.startswith("n_") and name not in ("n_cells", "n_obs")}


def _check_lengths(key: str, state: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
    for name, listing in ((f"n_{key}", "categorical_mapping"), ("n_vars", "column_names")):
        if name in stats and listing in state and stats[name] != len(state[listing]):
            raise ArchiveError(f"the field {key!r}: {name!r} is {stats[name]}, {listing!r} lists {len(state[listing])}")


def _check_numbers(name: str, value: Any, n_weights: int) -> None:
    """No whole number is larger than all weights together have numbers: nothing of that size was ever built."""
    if any(part in name for part in _FREE_NUMBERS):
        return
    if is_whole(value) and abs(int(value)) > max(_ALWAYS_ALLOWED, n_weights):
        raise ArchiveError(f"{name!r} is {float(value):.4g}, and the weights have {n_weights:,} numbers in all")
    if isinstance(value, Mapping):
        for key, element in value.items():
            _check_numbers(str(key), element, n_weights)
    elif isinstance(value, list | tuple):
        for element in value:
            _check_numbers(name, element, n_weights)


def set_attributes(model: object, attributes: Mapping[str, Any], path: Path) -> None:
    """Give a model its saved attributes: state under names that end in ``_``, never methods or what Python keeps.

    Parameters
    ----------
    model
        A model of the class that was saved.
    attributes
        Values by name.
    path
        The file, for messages.

    Raises
    ------
    ArchiveError
        A name is not one of the model's state.
    """
    for name, value in attributes.items():
        if not _is_state(type(model), name):
            raise ArchiveError(
                f"{path}, attributes: {name[:60]!r} is no name of a {type(model).__name__}'s state. Names of state end "
                "in '_', do not begin with it, and are no method or property of the class."
            )
        setattr(model, name, value)


def _is_state(cls: type, name: str) -> bool:
    if not name.isidentifier() or name.startswith("_") or not name.endswith("_") or name in _NOT_ATTRIBUTES:
        return False
    default = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return not callable(default) and not hasattr(type(default), "__get__")
