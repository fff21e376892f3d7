"""Devices that record what they are given to compute, and do it again at once: on CUDA, graphs.

A training step is some hundreds of small operations. A GPU does each of them in a few microseconds, less than Python
needs to ask for it; a recorded step is asked for once.
"""

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...ops.random import generator_for, renew_generator
from ..nonfinite import copied

__all__ = ["CannotBeRecorded", "CudaGraphs", "Graphs", "Recorded", "Watch"]

Result = TypeVar("Result")

_BOUND_TO_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = ("aten::_to_copy", "aten::copy_")


class CannotBeRecorded(RuntimeError):
    """Why a minibatch cannot be done again without Python."""


@dataclass(frozen=True)
class Recorded(Generic[Result]):
    """A minibatch that was recorded.

    Attributes
    ----------
    result
        What computing it returned; its tensors are overwritten at each replay.
    replay
        Does all of it again with the tensors of another minibatch, and with the values that the other tensors from
        before have by then, into the same tensors, gradients apart. None: it cannot be done, by this device.
    is_done
        Whether this minibatch has been computed; if not, its tensors have no values yet.
    why_not
        Why there is no replay.
    """

    result: Result
    replay: Callable[[Sequence[Tensor]], None] | None
    is_done: bool
    why_not: str = ""


class Graphs(Protocol):
    """What records operations on one device.

    Attributes
    ----------
    device
        The device.
    moves
        Whether the steps of optimizers are recorded, too; if not, a minibatch ends with its gradients.
    """

    device: torch.device
    moves: bool

    def place(self, batch: Result) -> Result:
        """The minibatch to be recorded, where it may stay."""

    def record(
        self, compute: Callable[[], Result], given: Sequence[Tensor], parameters: Iterable[Tensor] = ()
    ) -> Recorded[Result]:
        """Record what ``compute`` asks the device for.

        Parameters
        ----------
        compute
            What is to be recorded.
        given
            The tensors of the minibatch, from :meth:`place`.
        parameters
            Those whose gradients ``compute`` leaves.

        Raises
        ------
        CannotBeRecorded
            The device refuses, and nothing was computed.
        """

    def watching(self) -> AbstractContextManager[list[str]]:
        """A block after which the list says what was done in it that cannot be recorded."""


class Watch(TorchDispatchMode):
    """Notes operations that cannot be recorded: those that wait for a value, and copies from another device.

    Parameters
    ----------
    found
        Where to.
    """

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds, to tell it to leave this class alone

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at one operation."""
        result = func(*args, **(kwargs or {}))
        if _is_bound_to_values(func, args) or (func.name().split(".")[0] in _COPIES and _crosses(args, result)):
            self.found.append(func.name())
        return result


def _is_bound_to_values(func: Any, args: tuple[Any, ...]) -> bool:
    if func is torch.ops.aten.index.Tensor:  # by a mask it is, by numbers not
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return any(tag in _BOUND_TO_VALUES for tag in func.tags)


def _crosses(args: tuple[Any, ...], result: object) -> bool:
    return len({leaf.device.type for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)}) > 1


class CudaGraphs:
    """Graphs on one CUDA device, all of one stream that is not the usual one.

    Parameters
    ----------
    device
        The device.
    """

    moves = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self._pool: Any = None

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Let a whole run compute on this stream: of two streams neither waits for the other by itself."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def place(self, batch: Result) -> Result:
        """A copy: a graph holds addresses."""
        made: Result = copied(batch)
        return made

    def record(
        self, compute: Callable[[], Result], given: Sequence[Tensor], parameters: Iterable[Tensor] = ()
    ) -> Recorded[Result]:
        """See :class:`Graphs`. Nothing is computed; draws from the generator of the block go on at each replay.

        Raises
        ------
        CannotBeRecorded
            CUDA refuses an operation, or another stream's work gets in the way.
        """
        graph = torch.cuda.CUDAGraph()
        generator = generator_for(self.device)
        state = None if generator is None else generator.get_state()
        if generator is not None:
            graph.register_generator_state(generator)
        self._pool = torch.cuda.graph_pool_handle() if self._pool is None else self._pool
        torch.cuda.synchronize(self.device)
        with _no_collection():  # what is freed meanwhile must not call the driver
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = compute()
                graph.capture_end()
            except BaseException as error:
                with suppress(RuntimeError):
                    graph.capture_end()
                self._recover(state)
                if isinstance(error, RuntimeError):
                    raise CannotBeRecorded(str(error).partition("\n")[0]) from error
                raise

        places = list(given)

        def replay(other: Sequence[Tensor]) -> None:
            with torch.no_grad():
                torch._foreach_copy_(places, list(other))
            graph.replay()

        return Recorded(result, replay, is_done=False)

    def _recover(self, state: Tensor | None) -> None:
        if state is not None:
            renew_generator(self.device, state)
        with suppress(RuntimeError):  # the error of the capture itself, which CUDA keeps until it is asked
            torch.cuda.synchronize(self.device)

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """See :class:`Graphs`; CUDA itself says where the host waits."""
        found: list[str] = []
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with Watch(found):
                    yield found
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for warning in heard:
            if "synchroniz" in str(warning.message):
                waits = "called a synchronizing" in str(warning.message)
                found += [f"a wait at {Path(warning.filename).name}:{warning.lineno}"] if waits else []
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
