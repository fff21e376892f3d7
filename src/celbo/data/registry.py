"""What can be read off a registry alone, without the AnnData it came from."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import UnknownArgumentError, checked, door_of, unknown_name
from .constants import DATA_REGISTRY, FIELD_REGISTRIES, MOD_KEY, STATE_REGISTRY, SUMMARY_STATS

if TYPE_CHECKING:
    from .fields import BaseAnnDataField

__all__ = [
    "attrdict",
    "check_source",
    "data_registry_of",
    "field_registry_of",
    "names_by_modality",
    "require_known_options",
    "require_same_shape_of_setup",
    "state_registry_of",
    "summary_stats_of",
]


class attrdict(dict):
    """Dictionary with attribute access.

    Parameters
    ----------
    init_dict
        What it holds; copied (shallowly, values are shared).
    recursive
        Also turn the dictionaries inside into attrdicts.

    Raises
    ------
    AttributeError
        For a name that is no key (the nearest keys are listed), and on assignment to an attribute:
        what a manager hands out describes the registry, it does not change it.

    Examples
    --------
    >>> attrdict({"n_vars": 100}).n_vars
    100
    """

    def __init__(self, init_dict: Mapping[str, Any] | None = None, recursive: bool = False) -> None:
        items = dict(init_dict or {})
        if recursive:
            items = {
                key: attrdict(value, True) if isinstance(value, Mapping) else value for key, value in items.items()
            }
        super().__init__(items)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(unknown_name("entry", name, self)) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Cannot set {name!r}: an attrdict describes the registry, it does not change it.")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *map(str, self)})


def field_registry_of(registry: Mapping[str, Any], registry_key: str) -> dict[str, Any]:
    """The three parts (data, state, summary) that the registry holds for one field.

    Raises
    ------
    KeyError
        When no such field was registered; the registered ones are listed, nearest first.
    """
    fields = registry[FIELD_REGISTRIES]
    if registry_key not in fields:
        raise KeyError(unknown_name("registered field (registry_key)", registry_key, fields))
    return fields[registry_key]


@checked
def data_registry_of(registry: Mapping[str, Any]) -> attrdict:
    """Where each field's data lie: ``{registry key: {attr_name, attr_key[, mod_key]}}``, empty fields left out."""
    fields = registry[FIELD_REGISTRIES]
    return attrdict({key: part[DATA_REGISTRY] for key, part in fields.items() if part[DATA_REGISTRY]}, recursive=True)


@checked
def state_registry_of(registry: Mapping[str, Any], registry_key: str) -> attrdict:
    """What setup learnt about one field: categories, column names."""
    return attrdict(field_registry_of(registry, registry_key)[STATE_REGISTRY])


@checked
def summary_stats_of(registry: Mapping[str, Any]) -> attrdict:
    """The sizes of all fields together: ``n_vars``, ``n_cells``, ``n_batch``, ...

    Raises
    ------
    RuntimeError
        When two fields claim the same name.
    """
    stats: dict[str, Any] = {}
    for key, part in registry[FIELD_REGISTRIES].items():
        for name, value in part[SUMMARY_STATS].items():
            if name in stats:
                raise RuntimeError(f"Two fields give the summary statistic {name!r}; rename the registry key {key!r}.")
            stats[name] = value
    return attrdict(stats)


def names_by_modality(registry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names of the features by modality, in the model's order; nothing for the registry of an AnnData."""
    found: dict[str, np.ndarray] = {}
    for part in registry[FIELD_REGISTRIES].values():
        modality, names = part[DATA_REGISTRY].get(MOD_KEY), part[STATE_REGISTRY].get("column_names")
        if modality is not None and names is not None:
            found[modality] = np.asarray(names)
    return found


def require_same_shape_of_setup(field: "BaseAnnDataField", source: Mapping[str, Any] | None) -> None:
    """Raise a ``KeyError`` when the source has no such field, a ``ValueError`` when only one side has data for it."""
    if source is None or (field.is_empty and field.registry_key not in source[FIELD_REGISTRIES]):
        return  # registries of old archives do not list the empty fields that came later
    had_data = bool(field_registry_of(source, field.registry_key)[DATA_REGISTRY])
    if had_data == field.is_empty:
        sides = ("has data", "names none") if had_data else ("has none", "names some")
        raise ValueError(
            f"The source registry {sides[0]} for {field.registry_key!r}, this setup {sides[1]}: set both up alike."
        )


_OPTIONS = ("extend_categories", "allow_missing_labels")
"""Of a registration, whatever the fields are: one without labels may be asked to take cells that have none."""


def require_known_options(fields: "Iterable[BaseAnnDataField]", options: Mapping[str, Any]) -> None:
    """Raise an ``UnknownArgumentError`` for an option that no field's ``transfer_field`` has; a user's may take any.

    Parameters
    ----------
    fields
        Those that are registered.
    options
        Keywords for their ``transfer_field``.
    """
    known = set(_OPTIONS)
    for field in fields:
        for cls in type(vars(field).get("adata_field", field)).__mro__:
            transfer = vars(cls).get("transfer_field")
            door = None if transfer is None else door_of(transfer)
            if door is not None and door.takes_more and not cls.__module__.startswith(__name__.partition(".")[0]):
                return
            known |= set() if door is None else set(door.known)
    known -= {"state_registry", "adata_target"}
    for name in options:
        if name not in known:
            raise UnknownArgumentError.among(name, "transfer_fields", sorted(known))


def check_source(fields: "Iterable[BaseAnnDataField]", source: Mapping[str, Any]) -> None:
    """Raise when no AnnData could be registered with a registry as the source of these fields: states that are none."""
    for field in fields:
        require_same_shape_of_setup(field, source)
        if field.registry_key in source[FIELD_REGISTRIES]:
            field.check_state(state_registry_of(source, field.registry_key))
