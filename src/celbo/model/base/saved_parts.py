"""What the parts of a saved model must be, looked at before anything is made of them.

A file may hold anything where a name of the right kind stands: a part that is not what it must be is named here, not
where a verb stumbles over it. What celbo does not know (fields and attributes of models of others) is passed over.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...io import ArchiveError
from ...io.errors import blaming

__all__ = ["MismatchError", "check_parts", "set_attributes"]

_SEVERAL = (list, tuple, np.ndarray, pd.Index)
_NUMBERS = (int, np.integer)
_LABELS = (str, int, float, np.generic)


class MismatchError(ArchiveError, KeyError):
    """Data lack a column, layer or gene that a saved model asks for."""

    __str__ = Exception.__str__  # a KeyError's is the repr of its message


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


_NESTED = (Mapping, np.ndarray, list, tuple, set)


def _is_size(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and 0 <= int(value) < 2**53


def _is_integer_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, _NUMBERS) and not isinstance(value, bool))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_label(value: Any) -> bool:
    return value is None or isinstance(value, _LABELS)


def _is_list(value: Any) -> bool:
    """A list of anything that is not nested: texts, numbers, times, intervals; missing ones as pandas had them once."""
    if not isinstance(value, _SEVERAL) or (isinstance(value, np.ndarray) and value.ndim != 1):
        return False
    return not any(issubclass(kind, _NESTED) for kind in set(map(type, value)))


def _is_list_of_sizes(value: Any) -> bool:
    return isinstance(value, _SEVERAL) and all(map(_is_size, value))


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_dict_of_lists(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_list, value.values()))


def _is_rows(value: Any) -> bool:
    """Row numbers, or None."""
    if value is None:
        return True
    rows = np.asarray(value) if isinstance(value, _SEVERAL) else None
    if rows is None or rows.ndim != 1:
        return False
    return not rows.size or (rows.dtype.kind in "iu" and int(rows.min()) >= 0)


def _is_history(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_curve(v) for k, v in value.items())


def _is_curve(value: Any) -> bool:
    """A number for each epoch or step, maybe an object of its own as scvi-tools has them."""
    if not isinstance(value, pd.DataFrame | pd.Series) or (value.ndim == 2 and not value.shape[1]):
        return False
    column = value.iloc[:, 0] if isinstance(value, pd.DataFrame) else value
    try:
        return len([float(number) for number in column]) == len([int(at) for at in value.index])
    except (TypeError, ValueError):
        return False


Check = tuple[Callable[[Any], bool], str]

_TEXT: Check = (_is_text, "a text")
_TEXT_OR_NONE: Check = (_is_text_or_none, "a text or None")
_SIZE: Check = (_is_size, "a whole number from 0")
_LABEL: Check = (_is_label, "a text or number")
_LIST: Check = (_is_list, "a list of texts or numbers")
_DICT: Check = (_is_dict, "a dictionary of names")

_OF_REGISTRY: dict[str, Check] = {
    "field_registries": _DICT,
    "setup_args": _DICT,
    "setup_method_name": _TEXT_OR_NONE,
    "model_name": _TEXT_OR_NONE,
    "scvi_version": _TEXT_OR_NONE,
}
_OF_STATE: dict[str, Check] = {
    "n_obs": _SIZE,
    "n_vars": _SIZE,
    "n_cells": _SIZE,
    "column_names": _LIST,
    "columns": _LIST,
    "categorical_mapping": _LIST,
    "original_key": _LABEL,
    "unlabeled_category": _LABEL,
    "mappings": (_is_dict_of_lists, "a dictionary of lists"),
    "field_keys": _LIST,
    "n_cats_per_key": (_is_list_of_sizes, "a list of whole numbers"),
}
_OF_DATA: dict[str, Check] = {"attr_name": _TEXT_OR_NONE, "attr_key": _LABEL, "mod_key": _TEXT_OR_NONE}
_OF_MODEL: dict[str, Check] = {
    "is_trained_": (_is_flag, "true or false"),
    "history_": (_is_history, "a table of numbers by epoch for each name"),
    "train_indices_": (_is_rows, "row numbers"),
    "validation_indices_": (_is_rows, "row numbers"),
    "test_indices_": (_is_rows, "row numbers"),
    "seed_": (_is_integer_or_none, "a whole number"),
    "recipe_": _TEXT_OR_NONE,
    "run_name_": _TEXT_OR_NONE,
    "run_id_": _TEXT_OR_NONE,
    "get_normalized_function_name_": _TEXT_OR_NONE,
    "unlabeled_category_": _LABEL,
    "surgery_": (lambda value: value is None or _is_dict(value), "a dictionary"),
}
"""What stands under a name -> what it must be. Other names may hold what they like."""

_NOT_ATTRIBUTES = ("registry_", "init_params_")
_FREE_NUMBERS = ("seed", "random")
_ALWAYS_ALLOWED = 10**6


def check_parts(
    path: Path, registry: Any, init_params: Any, attributes: Any, n_weights: int, *, own_format: bool = False
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
    with blaming(path, "registry"):
        _check_registry(registry, n_weights)
    with blaming(path, "init_params"):
        _check_arguments(init_params, n_weights)
    with blaming(path, "attributes"):
        _require(_is_dict(attributes), "attributes", attributes, "a dictionary of names")
        _each(attributes, _OF_MODEL)
        apart = [name for name in _NOT_ATTRIBUTES if name in attributes]
        if own_format and apart:
            raise ArchiveError(f"{apart[0]!r} stands among the attributes")


def _require(is_right: bool, name: str, value: Any, wanted: str) -> None:
    if not is_right:
        raise ArchiveError(f"{name!r} is {_short(value)}, wanted {wanted}")


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | type(None)) else f"a {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:57]}..."


def _each(values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    for name, (is_right, wanted) in checks.items():
        if name in values:
            _require(is_right(values[name]), name, values[name], wanted)


def _check_registry(registry: Any, n_weights: int) -> None:
    _require(_is_dict(registry), "registry", registry, "a dictionary of names")
    for name in ("field_registries", "setup_args"):
        _require(name in registry, name, None, "a dictionary of names")
    _each(registry, _OF_REGISTRY)
    method = registry.get("setup_method_name")
    _require(not method or method.startswith("setup_"), "setup_method_name", method, "the name of a setup method")
    for key, field in registry["field_registries"].items():
        try:
            _check_field(key, field, n_weights)
        except ArchiveError as error:
            raise ArchiveError(f"the field {key!r}: {error}") from error


def _check_field(key: str, field: Any, n_weights: int) -> None:
    _require(_is_dict(field), key, field, "a dictionary of names")
    for part in ("data_registry", "state_registry", "summary_stats"):
        _require(_is_dict(field.get(part)), part, field.get(part), "a dictionary of names")
    _each(field["data_registry"], _OF_DATA)
    state, stats = field["state_registry"], field["summary_stats"]
    _each(state, _OF_STATE)
    for name, value in stats.items():
        if name.startswith("n_"):
            _require(_is_size(value), name, value, "a whole number from 0")
            if name not in ("n_cells", "n_obs"):
                _check_numbers(name, value, n_weights)
    for name, listed in ((f"n_{key}", "categorical_mapping"), ("n_vars", "column_names")):
        if name in stats and listed in state and stats[name] != len(state[listed]):
            raise ArchiveError(f"{name!r} is {stats[name]}, and {listed!r} lists {len(state[listed])}")


def _check_arguments(init_params: Any, n_weights: int) -> None:
    _require(_is_dict(init_params), "init_params", init_params, "a dictionary of names")
    named, stars = init_params.get("non_kwargs", {}), init_params.get("kwargs", {})
    _require(_is_dict(named), "non_kwargs", named, "a dictionary of names")
    _require(_is_dict(stars), "kwargs", stars, "a dictionary of names")
    for star, values in stars.items():
        _require(_is_dict(values), star, values, "a dictionary of names")
    for name, value in (*named.items(), *(item for values in stars.values() for item in values.items())):
        _check_numbers(name, value, n_weights)


def _check_numbers(name: str, value: Any, n_weights: int) -> None:
    """No whole number is larger than all weights together have numbers: nothing of that size was ever built."""
    if any(part in name for part in _FREE_NUMBERS):
        return
    if isinstance(value, _NUMBERS) and abs(int(value)) > max(_ALWAYS_ALLOWED, n_weights):
        raise ArchiveError(f"{name!r} is {_short(int(value))}, and the weights have {n_weights:,} numbers in all")
    if isinstance(value, Mapping):
        for key, element in value.items():
            _check_numbers(str(key), element, n_weights)
    elif isinstance(value, list | tuple):
        for element in value:
            _check_numbers(name, element, n_weights)


def set_attributes(model: Any, attributes: Mapping[str, Any], path: Path) -> None:
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
