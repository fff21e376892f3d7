"""torch's part of what an unpickled archive may hold: tensors, rebuilt as checked views of their storages."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..budget import Budget
from ..errors import ArchiveError
from .pickle_machine import Call, Name
from .unpickle import Grant, Rebuilder, plain

__all__ = ["STORAGE_DTYPES", "TORCH_CONSTANTS", "TORCH_GRANTS", "Constraint", "Storage", "storage_dtype"]

_DTYPE_NAMES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("uint8", "int8", "int16", "int32", "int64", "bool"),
)
STORAGE_DTYPES: dict[str, torch.dtype] = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class Storage:
    """Bytes of a storage and the type its elements have.

    Attributes
    ----------
    raw_b
        The bytes, a one-dimensional ``uint8`` tensor.
    dtype
        Type of the elements.
    """

    raw_b: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class Constraint:
    """A constraint of a Pyro parameter, by the name of torch's class, with its bounds. Only data.

    Attributes
    ----------
    name
        Class in ``torch.distributions.constraints``, for example ``"_GreaterThan"``.
    state
        Its attributes, for example ``{"lower_bound": 0.0}``.
    """

    name: str
    state: dict[str, Any] = field(default_factory=dict)


def storage_dtype(node: object) -> torch.dtype:
    """Element type that a storage class in a persistent id stands for; an ``ArchiveError`` for an unknown class."""
    dtype = STORAGE_DTYPES.get(str(node)) if isinstance(node, Name) else None
    if dtype is None:
        raise ArchiveError(f"it holds a torch storage of the kind {str(node)[:80]!r}, which is not read")
    return dtype


def _sizes(r: Rebuilder, node: object, what: str) -> tuple[int, ...]:
    sizes = r.value(node)
    if (
        not isinstance(sizes, tuple)
        or len(sizes) > 32
        or any(type(size) is not int or not 0 <= size < 2**63 for size in sizes)
    ):
        raise ArchiveError(f"a tensor has an impossible {what}")
    return sizes


def _view(r: Rebuilder, storage: Storage, offset: object, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The strided view of a storage, after making sure that it lies inside."""
    if type(offset) is not int or offset < 0 or len(size) != len(stride):
        raise ArchiveError("a tensor has an impossible offset or stride")
    n_stored = storage.raw_b.numel() // storage.dtype.itemsize
    n_elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if n_elements and last >= n_stored:
        raise ArchiveError(f"a tensor of shape {size} reaches beyond its storage of {n_stored} elements")
    r.budget.charge(n_elements * storage.dtype.itemsize)
    if not n_elements:
        return torch.empty(size, dtype=storage.dtype)
    flat = storage.raw_b[: n_stored * storage.dtype.itemsize].view(storage.dtype)
    return flat.as_strided(size, stride, offset).contiguous()


def _storage(r: Rebuilder, node: object) -> Storage:
    storage = r.value(node)
    if not isinstance(storage, Storage):
        raise ArchiveError("a tensor is not made of a storage")
    return storage


def _tensor(r: Rebuilder, call: Call) -> Tensor:
    if not 4 <= len(call.args) <= 7:
        raise ArchiveError("a tensor is written in an unknown way")
    node, offset, size, stride = call.args[:4]
    return _view(r, _storage(r, node), offset, _sizes(r, size, "shape"), _sizes(r, stride, "stride"))


def _tensor_with_dtype(r: Rebuilder, call: Call) -> Tensor:
    """As :func:`_tensor`, of an untyped storage; the seventh argument is the element type."""
    if not 7 <= len(call.args) <= 8:
        raise ArchiveError("a tensor is written in an unknown way")
    node, offset, size, stride = call.args[:4]
    storage = Storage(_storage(r, node).raw_b, r.of(call.args[6], torch.dtype))
    return _view(r, storage, offset, _sizes(r, size, "shape"), _sizes(r, stride, "stride"))


def _parameter(r: Rebuilder, call: Call) -> Tensor:
    # A parameter becomes a plain tensor: whether it is trained is the module's business.
    if not call.args:
        raise ArchiveError("a parameter is written in an unknown way")
    tensor = r.value(call.args[0])
    if not isinstance(tensor, Tensor):
        raise ArchiveError("a parameter is not made of a tensor")
    return tensor


def _size(r: Rebuilder, call: Call) -> torch.Size:
    return torch.Size(_sizes(r, plain(call, 1)[0], "shape"))


def _device(r: Rebuilder, call: Call) -> torch.device:
    parts = call.args
    if not 1 <= len(parts) <= 2 or type(parts[0]) is not str or any(type(part) is not int for part in parts[1:]):
        raise ArchiveError("a device is written in an unknown way")
    return torch.device(*parts)


def _constraint(name: str) -> Grant:
    def make(r: Rebuilder, call: Call) -> Constraint:
        state: dict[Any, Any] = {}
        for node in call.states:
            state |= r.of(node, dict)
        if call.args or any(not isinstance(bound, int | float | Tensor) for bound in state.values()):
            raise ArchiveError("a constraint is written in an unknown way")
        return Constraint(name, state)

    return make


def storage_bytes_grant(load: Callable[[bytes, Budget], Storage]) -> dict[str, Grant]:
    """Grant for storages that plain ``pickle`` embeds as a torch file of their own."""

    def make(r: Rebuilder, call: Call) -> Storage:
        raw = r.value(plain(call, 1)[0])
        if not isinstance(raw, bytes):
            raise ArchiveError("an embedded storage is no bytes")
        r.budget.charge(len(raw))
        return load(raw, r.budget)

    return {"torch.storage._load_from_bytes": make}


_CONSTRAINTS = (
    *("_Real", "_GreaterThan", "_GreaterThanEq", "_LessThan", "_Interval", "_HalfOpenInterval", "_Simplex"),
    *("_LowerCholesky", "_PositiveDefinite", "_CorrCholesky", "_Boolean", "_IntegerInterval", "_IntegerGreaterThan"),
)
TORCH_GRANTS: dict[str, Grant] = {
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _tensor),
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    **dict.fromkeys(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"), _parameter),
    "torch.Size": _size,
    "torch.device": _device,
    **{f"torch.distributions.constraints.{name}": _constraint(name) for name in _CONSTRAINTS},
}
TORCH_CONSTANTS: dict[str, Any] = {f"torch.{name}": getattr(torch, name) for name in _DTYPE_NAMES}
