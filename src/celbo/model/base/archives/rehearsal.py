"""A saved model built without memory first, and its weights looked at: nothing is made that the file does not hold."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ....io import ArchiveError
from ....io.errors import blaming
from ....ops.draws import initial_weights
from ....ops.random import FILLING

__all__ = ["check_weights", "on_meta", "rehearse"]

_CALLS_BESIDE, _CALLS_EACH = 5_000, 200
_NUMBERS_BESIDE, _NUMBERS_EACH = 10**6, 2
_DRAWING = (torch.randn, torch.rand)
"""Without numbers to draw, torch works out their shape in Python, for which it loads a library of algebra: 1.3 s."""

_UNSIZED = (nn.UninitializedParameter, nn.UninitializedBuffer)
_LARGEST = torch.finfo(torch.float32).max ** 0.5
"""About 1.8e19: the square of a larger number is none of float32."""


class _WithoutMemory(TorchFunctionMode):
    """Count the calls, of which so many weights need so many, and fill nothing: there is nothing to fill."""

    def __init__(self, n_tensors: int) -> None:
        super().__init__()
        self.calls_left = _CALLS_BESIDE + _CALLS_EACH * n_tensors
        self.n_tensors = n_tensors

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ArchiveError(f"the arguments ask for many more layers than the {self.n_tensors:,} weights make")
        kwargs = kwargs or {}
        if func in FILLING:
            return args[0] if args else kwargs["tensor"]
        if func in _DRAWING:
            kwargs.pop("generator", None)
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


def on_meta(value: Any) -> Any:
    """The same nest of containers with tensors that have a shape only."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, Mapping):
        return {key: on_meta(part) for key, part in value.items()}
    return type(value)(map(on_meta, value)) if type(value) in (list, tuple) else value


def rehearse(cls: type, path: Path, state_dict: Mapping[str, Tensor], build: Callable[[], Any]) -> None:
    """Build a model without memory, and refuse one that is larger than its weights.

    Parameters
    ----------
    cls
        The model's class. What fails to be built is refused where it is celbo's; a class of someone else may need
        numbers that the meta device does not have, or data.
    path
        The file, for messages.
    state_dict
        The weights that were saved.
    build
        Makes the model.

    Raises
    ------
    ArchiveError
        The saved arguments make no model, or a larger one.
    """
    own = cls.__module__.startswith(f"{__name__.partition('.')[0]}.")
    try:
        with blaming(path, "init_params"), initial_weights(0), torch.device("meta"), _WithoutMemory(len(state_dict)):
            module = build().module
    except ArchiveError as error:
        cause = error.__cause__
        needs_numbers = isinstance(cause, RuntimeError) and "meta" in str(cause)
        if (own and not needs_numbers) or cause is None or isinstance(cause, ArchiveError | MemoryError):
            raise
        return
    if isinstance(module, nn.Module):
        _check_size(path, module.state_dict(), state_dict)


def _check_size(path: Path, wanted: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    n_wanted = sum(_size(tensor) for tensor in wanted.values())
    n_saved = sum(tensor.numel() for tensor in saved.values())
    if n_wanted <= _NUMBERS_BESIDE + _NUMBERS_EACH * n_saved:
        return
    name = max(wanted, key=lambda name: _size(wanted[name]))
    there = f"is {tuple(saved[name].shape)}" if name in saved else "is not there"
    raise ArchiveError(
        f"{path}, init_params: the arguments ask for {n_wanted:,} weights, and it holds {n_saved:,}: {name!r} would be "
        f"{tuple(wanted[name].shape)} and {there}."
    )


def _size(tensor: Tensor) -> int:
    return 0 if isinstance(tensor, _UNSIZED) else tensor.numel()


def check_weights(path: Path, state_dict: Mapping[str, Tensor], module: nn.Module) -> None:
    """Refuse weights that no training ends with: another kind of number, NaN, infinite or huge.

    Parameters
    ----------
    path
        The file, for messages.
    state_dict
        The weights that were saved.
    module
        The module that is to get them. Where it has infinite or missing numbers itself (a mask), they may be saved.

    Raises
    ------
    ArchiveError
        Names the weight.
    """
    own = module.state_dict()
    for name, saved in state_dict.items():
        wanted = own.get(name)
        if wanted is None or isinstance(wanted, _UNSIZED):
            continue
        if _kind(saved.dtype) != _kind(wanted.dtype):
            raise ArchiveError(
                f"{path}: the weight {name!r} is of {_dtype(saved)}, wanted {_dtype(wanted)}. Save the model again."
            )
        if wanted.is_floating_point() and saved.numel():
            _check_numbers(path, name, saved.to(wanted.dtype), wanted)
        if name.endswith("running_var") and bool((saved < 0).any()):
            raise ArchiveError(
                f"{path}: the weight {name!r} holds {float(saved.min()):.3g}, and variances are positive."
            )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"


def _check_numbers(path: Path, name: str, saved: Tensor, wanted: Tensor) -> None:
    most = min(_LARGEST, torch.finfo(saved.dtype).max)
    low, high = (float(bound) for bound in saved.aminmax())
    if -most <= low and high <= most:  # false with NaN
        return
    bad = ~((saved >= -most) & (saved <= most))
    if saved.shape == wanted.shape:
        there = wanted.detach().to(saved.device)
        bad &= ~((saved == there) | (saved.isnan() & there.isnan()))
    if bad.any():
        first = float(saved[bad][0])
        raise ArchiveError(
            f"{path}: the weight {name!r} holds {first:.3g} ({int(bad.sum()):,} of {saved.numel():,} numbers are not "
            "finite or above 1.8e19): the training that it comes from failed, or the file was changed. Train the model "
            "again; celbo.io.read_archive gives the numbers as they are (read_scvi_archive those of scvi-tools)."
        )
