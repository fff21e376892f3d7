"""numpy's part of what an unpickled archive may hold: dtypes, arrays and scalars, rebuilt from their bytes.

JAX pickles an array as the numpy one that it becomes.
"""

import math
import re
from typing import Any

import numpy as np

from ..codec_numpy import has_letters
from ..errors import ArchiveError
from .pickle_machine import Call, Name
from .unpickle import Grant, Rebuilder, plain

__all__ = ["NUMPY_CONSTANTS", "NUMPY_GRANTS"]

_DTYPE_NAME = re.compile(r"O8?|O4|b1|[iu][1248]|f[248]|c(8|16)|[SU][0-9]{1,7}|[Mm]8")
_TIME_UNIT = re.compile(r"Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as")
_SCALAR_NAMES = (
    *("bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "str_", "bytes_"),
)
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_KINDS = ("numpy.ndarray", "numpy.matrix")
"""Classes of arrays. Sums of sparse counts are matrices, and scvi-tools' registry of sparse proteins holds such."""
_SIMPLE = (str, int, float, bool, type(None))


def _dtype(r: Rebuilder, call: Call) -> np.dtype[Any]:
    name = call.args[0] if call.args else None
    if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name) or len(call.states) != 1:
        raise ArchiveError(
            f"it holds a numpy dtype {name!r}, which is not read: only numbers, text, times and objects are"
        )
    state = call.states[0]
    if not isinstance(state, tuple) or len(state) < 8 or any(part is not None for part in state[2:5]):
        raise ArchiveError("it holds a structured numpy dtype, which is not read")
    if name[0] in "Mm":
        return _time_dtype(r, name[0], state)
    if name[0] == "O":
        return np.dtype(object)
    order = state[1] if state[1] in ("<", ">") else "="
    return np.dtype(order + name)


def _time_dtype(r: Rebuilder, letter: str, state: tuple[Any, ...]) -> np.dtype[Any]:
    if len(state) != 9 or not isinstance(state[8], tuple) or len(state[8]) != 2:
        raise ArchiveError("it holds a numpy time dtype without its unit")
    unit, number, *_ = r.values(state[8][1], 4)
    if not isinstance(unit, bytes) or not _TIME_UNIT.fullmatch(unit.decode("latin1")) or type(number) is not int:
        raise ArchiveError("it holds a numpy time dtype of an unknown unit")
    return np.dtype(f"{letter}8[{number}{unit.decode()}]").newbyteorder(state[1] if state[1] in ("<", ">") else "=")


def _shape(r: Rebuilder, node: object, itemsize: int) -> tuple[int, ...]:
    return r.budget.shape(r.of(node, tuple), itemsize)


def _from_bytes(r: Rebuilder, raw: object, dtype: np.dtype[Any], shape_node: object, fortran: bool) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray) or dtype.hasobject:
        raise ArchiveError("an array's numbers are not written as bytes")
    shape = _shape(r, shape_node, dtype.itemsize)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ArchiveError(f"an array of shape {shape} and dtype {dtype} comes with {len(raw)} bytes")
    flat = np.zeros(math.prod(shape), dtype) if not len(raw) else np.frombuffer(raw, dtype)
    if not has_letters(flat):
        raise ArchiveError("an array of text holds what is no text")
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _object_array(r: Rebuilder, elements: object, shape_node: object, fortran: bool) -> np.ndarray:
    shape = _shape(r, shape_node, 8)
    if not isinstance(elements, list) or len(elements) != math.prod(shape):
        raise ArchiveError(f"an array of shape {shape} does not come with as many objects")
    flat = np.empty(len(elements), dtype=object)
    if all(type(element) in _SIMPLE for element in elements):
        r.budget.count(len(elements))
        flat[:] = elements
    else:
        for i, element in enumerate(elements):
            flat[i] = r.value(element)
    return flat.reshape(shape, order="F" if fortran else "C")


def _array(r: Rebuilder, call: Call) -> np.ndarray:
    kind = call.args[0] if call.args else None
    if not isinstance(kind, Name) or str(kind) not in _KINDS or len(call.states) != 1:
        raise ArchiveError(f"it holds a numpy array of the kind {str(kind)[:80]!r}, which is not read")
    return _of_state(r, call.states[0])


def _of_state(r: Rebuilder, state: object) -> np.ndarray:
    _, shape, dtype_node, fortran, raw = _five(state)
    dtype = r.value(dtype_node)
    if not isinstance(dtype, np.dtype):
        raise ArchiveError("an array has no dtype")
    if dtype.hasobject:
        return _object_array(r, raw, shape, bool(fortran))
    return _from_bytes(r, r.value(raw), dtype, shape, bool(fortran))


def _jax_array(r: Rebuilder, call: Call) -> np.ndarray:
    function, _, state, _ = plain(call, 4)
    if not isinstance(function, Name) or str(function) not in _RECONSTRUCT:
        raise ArchiveError("an array of JAX is written in an unknown way")
    return _of_state(r, state)


def _five(state: object) -> tuple[Any, Any, Any, Any, Any]:
    if not isinstance(state, tuple) or len(state) != 5:
        raise ArchiveError("an array's state is not the five values it must be")
    return state


def _array_from_buffer(r: Rebuilder, call: Call) -> np.ndarray:
    raw, dtype_node, shape, order = plain(call, 4)
    dtype = r.value(dtype_node)
    if not isinstance(dtype, np.dtype):
        raise ArchiveError("an array has no dtype")
    return _from_bytes(r, r.value(raw), dtype, shape, order == "F")


def _scalar(r: Rebuilder, call: Call) -> Any:
    dtype_node, raw = plain(call, 2)
    dtype = r.value(dtype_node)
    if not isinstance(dtype, np.dtype):
        raise ArchiveError("a numpy number has no dtype")
    return _from_bytes(r, r.value(raw), dtype, (1,), fortran=False)[0]


NUMPY_GRANTS: dict[str, Grant] = {
    "numpy.dtype": _dtype,
    **dict.fromkeys(_RECONSTRUCT, _array),
    "jax._src.array._reconstruct_array": _jax_array,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_from_buffer for core in ("core", "_core")},
}
NUMPY_CONSTANTS: dict[str, Any] = {f"numpy.{name}": getattr(np, name) for name in _SCALAR_NAMES} | {
    "numpy.bool": np.bool_
}
