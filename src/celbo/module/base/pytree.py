"""Teach PyTorch and JAX that a dataclass record is a tree of arrays, each only once it is loaded.

Registering happens when a record is made, with the frameworks found in ``sys.modules``: who never imports JAX never
pays for it. A record made before JAX was imported is one opaque leaf to JAX until the next record of its class is made.
Unflattening skips ``__post_init__``: inside a transformation leaves may be tracers, ``None`` or placeholder objects.
"""

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["register_with_loaded_frameworks"]

_STATIC = ("n_obs_minibatch", "_n_obs_inferred")

_registered: dict[str, set[type]] = {"torch": set(), "jax": set()}


def register_with_loaded_frameworks(cls: type) -> None:
    """Register ``cls`` as a pytree node with torch and with jax, where they are loaded and do not know it yet."""
    # A module set to None in sys.modules is blocked, not loaded.
    if cls not in _registered["torch"] and sys.modules.get("torch.utils._pytree") is not None:
        _registered["torch"].add(cls)
        _register_torch(cls)
    if cls not in _registered["jax"] and sys.modules.get("jax") is not None:
        _registered["jax"].add(cls)
        _register_jax(cls)


def _leaf_names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if field.name not in _STATIC)


def _static(record: object) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in _STATIC)


def _rebuild(cls: type, leaves: dict[str, Any], static: tuple[Any, ...]) -> Any:
    record: Any = object.__new__(cls)
    for name in _leaf_names(cls):
        object.__setattr__(record, name, leaves.get(name))
    for name, value in zip(_STATIC, static, strict=True):
        object.__setattr__(record, name, value)
    return record


def _register_torch(cls: type) -> None:
    from torch.utils import _pytree

    def flatten(record: object) -> tuple[list[Any], tuple[Any, ...]]:
        # torch takes None for a leaf, JAX does not; left out here, `tree_map(lambda t: 2 * t, record)` works in both.
        present = tuple(name for name in _leaf_names(cls) if getattr(record, name) is not None)
        return [getattr(record, name) for name in present], (present, _static(record))

    def flatten_with_keys(record: object) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children, context = flatten(record)
        return [(_pytree.GetAttrKey(name), child) for name, child in zip(context[0], children, strict=True)], context

    def unflatten(children: Iterable[Any], context: tuple[Any, ...]) -> Any:
        present, static = context
        return _rebuild(cls, dict(zip(present, children, strict=True)), static)

    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )


def _register_jax(cls: type) -> None:
    from jax import tree_util

    names = _leaf_names(cls)

    def flatten(record: object) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(record, name) for name in names], _static(record)

    def flatten_with_keys(record: object) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children, static = flatten(record)
        return [(tree_util.GetAttrKey(name), child) for name, child in zip(names, children, strict=True)], static

    def unflatten(static: tuple[Any, ...], children: Iterable[Any]) -> Any:
        return _rebuild(cls, dict(zip(names, children, strict=True)), static)

    tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
