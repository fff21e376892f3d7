"""Damage to bytes and to nested values, in ways that a seed fixes; for the fuzzers and for tests."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["BYTES", "ODD", "damage_bytes", "damage_value", "places"]

Rng = np.random.Generator
Bytes = np.ndarray

ODD: tuple[Any, ...] = (None, -1, 0, 10**18, 2**70, 1.5, "x", "", [], [1, 2], {}, [10**12], True, "<U1000000000", "|O")
"""Values of JSON that few places expect."""


def flip(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """Bits here and there."""
    at = rng.integers(max(1, len(raw)), size=rng.integers(1, 9))
    if len(raw):
        raw[at] ^= (1 << rng.integers(8, size=len(at))).astype(np.uint8)
    return raw, f"flip {at.tolist()}"


def cut(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """An end that is missing."""
    length = int(rng.integers(len(raw) + 1))
    return raw[:length], f"cut to {length}"


def overwrite(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """A stretch of one value."""
    start, length = int(rng.integers(len(raw) + 1)), int(2 ** rng.integers(1, 10))
    with_what = [np.uint8(0), np.uint8(255), rng.integers(256, dtype=np.uint8)][rng.integers(3)]
    raw[start : start + length] = with_what
    return raw, f"bytes {start} to {start + length} are {with_what}"


def swap(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """Two stretches in each other's place."""
    length = int(2 ** rng.integers(2, 10))
    a, b = sorted(rng.integers(max(1, len(raw) - length), size=2).tolist())
    raw[a : a + length], raw[b : b + length] = raw[b : b + length].copy(), raw[a : a + length].copy()
    return raw, f"{length} bytes at {a} and {b} swapped"


def insert(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """A few bytes too many."""
    at, new = int(rng.integers(len(raw) + 1)), rng.integers(256, size=rng.integers(1, 9), dtype=np.uint8)
    return np.insert(raw, at, new), f"{new.tolist()} put in at {at}"


def delete(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """A stretch that is missing."""
    at, length = int(rng.integers(len(raw) + 1)), int(2 ** rng.integers(8))
    return np.delete(raw, slice(at, at + length)), f"{length} bytes at {at} taken out"


def repeat(raw: Bytes, rng: Rng) -> tuple[Bytes, str]:
    """A stretch that comes twice."""
    first, last = sorted(rng.integers(len(raw) + 1, size=2).tolist())
    return np.concatenate([raw[:last], raw[first:]]), f"bytes {first} to {last} twice"


BYTES: tuple[Callable[[Bytes, Rng], tuple[Bytes, str]], ...] = (flip, flip, cut, overwrite, swap)
_MORE = (*BYTES, insert, delete, repeat)


def damage_bytes(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Other bytes, and how they came about."""
    damaged, how = _MORE[rng.integers(len(_MORE))](np.frombuffer(raw, np.uint8).copy(), rng)
    return damaged.tobytes(), how


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a nest of dictionaries and lists, as what holds it and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damage_value(document: Any, rng: Rng, odd: tuple[Any, ...] = ODD) -> str:
    """Change a nest of dictionaries and lists in one place; says how."""
    found = list(places(document))
    holder, key = found[rng.integers(len(found))]
    other, there = found[rng.integers(len(found))]
    way = rng.integers(8)
    if way == 0:
        del holder[key]
        return f"{key!r} is gone"
    if way == 1 and isinstance(holder, dict):
        keys = list(holder)
        one = keys[rng.integers(len(keys))]
        holder[key], holder[one] = holder[one], holder[key]
        return f"{key!r} and {one!r} swapped"
    if way == 2 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
        return f"{key!r} has another name"
    if way in (3, 4):
        holder[key] = _turned(holder[key], rng)
    elif way == 5:
        holder[key] = copy.deepcopy(other[there])
    else:
        holder[key] = copy.deepcopy(odd[rng.integers(len(odd))])
    return f"{key!r} is {str(holder[key])[:100]!r}"


def _turned(value: Any, rng: Rng) -> Any:
    """The value as another type, or another value of its type."""
    if isinstance(value, bool):
        ways = [not value, int(value), str(value)]
    elif isinstance(value, int | float):
        ways = [-value, value + 1, 2 * value, float(value), str(value), 10**6 * value, bool(value)]
    elif isinstance(value, str):
        ways = [value[1:], value.upper(), value + "x", list(value), 3]
    elif isinstance(value, list):
        ways = [value[1:], value[::-1], value + value, dict(enumerate(map(str, value)))]
    elif isinstance(value, dict):
        ways = [list(value), list(value.values()), [list(pair) for pair in value.items()]]
    else:
        ways = [[value], str(value)]
    return [*ways, [value], {"x": value}][rng.integers(len(ways) + 2)]
