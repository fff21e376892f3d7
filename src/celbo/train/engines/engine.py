"""Where a run computes: one process on the CPU or CUDA needs nothing but torch, all else goes through Fabric."""

import atexit
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...core.process import n_processes
from ..plans.base import Plan
from .graphs import CudaGraphs, Graphs
from .placed import FULL_PRECISION, Placed
from .tape import Tapes

__all__ = ["CudaEngine", "Engine", "FabricEngine", "asks_for_several", "make_engine", "several_processes"]


class Engine:
    """One process on the CPU in full precision, and what the loop asks of any engine."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return True

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return 1

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0

    def place(self, plan: Plan) -> torch.nn.Module:
        """Put a plan on the device, wrap its module where needed, and return the bare module."""
        plan.to(self.device)
        return plan.module

    def computing(self) -> AbstractContextManager[None]:
        """The block in which a run computes."""
        return nullcontext()

    def graphs(self) -> Graphs | None:
        """What records minibatches on the device, where something does."""
        return Tapes()

    def release(self, raw: torch.nn.Module) -> None:
        """Give a module back as it came."""

    def set_up_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Let strategy and precision into the optimizers."""
        return optimizers

    def given(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """An optimizer as the plan made it."""
        return optimizer

    def to_device(self, batch: object) -> Any:
        """Move a minibatch."""
        return batch

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass."""
        loss.backward(**kwargs)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average over the processes the gradients that no strategy averages: of parameters beside the module."""

    @property
    def room_for_data(self) -> int:
        """Bytes that data may take on the device: none on the CPU, where they are already."""
        return 0

    @property
    def holds_all_weights(self) -> bool:
        """Whether each process has the whole module."""
        return True

    def gather(self, value: object) -> list[Any]:
        """What each process has, by rank; in all processes."""
        return [value]

    def any_process(self, flag: bool) -> bool:
        """Whether a flag is set in one process at least; in all processes."""
        return flag

    def agree_on_buffers(self, raw: torch.nn.Module) -> None:
        """Give all processes the first one's running means, before they look at validation data."""

    def precision_state(self) -> dict[str, Any]:
        """What reduced precision keeps from step to step (the loss scale)."""
        return {}

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Put it back."""


_SHARE_FOR_DATA = 0.5


def make_engine(
    accelerator: str = "auto",
    devices: int | Sequence[int] | str = "auto",
    strategy: str = "auto",
    precision: str | int = "32-true",
    num_nodes: int = 1,
) -> Engine:
    """The engine for a run.

    Parameters
    ----------
    accelerator
        ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` or ``"tpu"``.
    devices
        ``"auto"`` (one device), a number, or a list of indices.
    strategy, precision, num_nodes
        As in Fabric: ``"auto"``, ``"ddp"``, ``"fsdp"``; ``"32-true"``, ``"bf16-mixed"``, ``"16-mixed"``.

    Notes
    -----
    Under ``torchrun`` with several processes, ``"auto"`` is all of them, with the strategy ``"ddp"``. That strategy
    finds unused parameters: a VAE that takes the library size from the data carries an encoder of it all the same.
    """
    devices, num_nodes, strategy = _as_launched(devices, num_nodes, strategy)
    alone = devices in ("auto", None, 1) and num_nodes == 1 and n_processes() == 1
    plain = strategy == "auto" and str(precision) in FULL_PRECISION
    on_cpu = accelerator == "cpu" or (accelerator in ("auto", None) and not torch.accelerator.is_available())
    if alone and plain and on_cpu:
        return Engine()
    if alone and plain and accelerator in ("auto", None, "gpu", "cuda") and torch.cuda.is_available():
        return CudaEngine()
    return FabricEngine(accelerator, devices, strategy, precision, num_nodes)


def asks_for_several(devices: object, num_nodes: int) -> bool:
    """Whether these arguments ask for more than one process."""
    many = len(devices) > 1 if isinstance(devices, list | tuple) else devices not in (None, "auto", 1, "1")
    return many or num_nodes > 1


def _as_launched(devices: object, num_nodes: int, strategy: str) -> tuple[Any, int, str]:
    """What ``"auto"`` is where there are several processes, and in one that torchrun started."""
    if strategy == "auto" and asks_for_several(devices, num_nodes):
        strategy = "ddp"
    n = n_processes()
    if n == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices, num_nodes, strategy
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return (
        here if devices in ("auto", None) else devices,
        n // here if num_nodes == 1 else num_nodes,
        "ddp" if strategy == "auto" else strategy,
    )


class CudaEngine(Engine):
    """One process on the first CUDA device in full precision, without Fabric, whose import takes seconds.

    Its steps can be recorded.
    """

    def __init__(self) -> None:
        self._graphs = CudaGraphs(torch.device("cuda", 0))

    @property
    def device(self) -> torch.device:
        """The first CUDA device."""
        return self._graphs.device

    @property
    def room_for_data(self) -> int:
        """Bytes that data may take on the device."""
        return _room_on(self.device)

    def computing(self) -> AbstractContextManager[None]:
        """A stream of the run's own."""
        return self._graphs.on_stream()

    def graphs(self) -> CudaGraphs | None:
        """CUDA's graphs; devices of other makers that torch calls by that name record nothing: nobody has tried."""
        return None if torch.version.cuda is None else self._graphs

    def to_device(self, batch: object) -> Any:
        """Move a minibatch: its tensors, and whatever else can be moved."""
        device = self.device
        return tree_map(lambda leaf: leaf.to(device, non_blocking=True) if hasattr(leaf, "to") else leaf, batch)


def _room_on(device: torch.device) -> int:
    return int(_SHARE_FOR_DATA * torch.cuda.mem_get_info(device)[0])


def _in_a_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Close the connections to other processes that Fabric opened, which it does itself for NCCL only.

    The threads of gloo that are left at the interpreter's end abort the process now and then.
    """
    if _in_a_group():
        torch.distributed.destroy_process_group()


class FabricEngine(Engine):
    """A launched Fabric.

    Parameters
    ----------
    accelerator, devices, strategy, precision, num_nodes
        As of :func:`make_engine`.
    """

    def __init__(
        self,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        strategy: str = "auto",
        precision: str | int = "32-true",
        num_nodes: int = 1,
    ) -> None:
        with _quiet():
            from lightning_fabric import Fabric  # sets its own logger's level, hence a block of its own
        with _quiet():
            self.fabric = Fabric(
                accelerator=accelerator or "auto",
                devices=1 if devices in ("auto", None) and strategy == "auto" else devices,  # type: ignore[arg-type]
                strategy="ddp_find_unused_parameters_true" if strategy == "ddp" else strategy,
                precision=precision,  # type: ignore[arg-type]
                num_nodes=num_nodes,
            )
            ours = not _in_a_group()
            self.fabric.launch()
            if ours and _in_a_group():
                atexit.register(_leave_group)
        # One process in full precision needs none of Fabric's wrappers, which cost a tenth of a millisecond a call.
        self.mixed = str(precision).endswith("mixed")  # the networks compute in less; counts and likelihood do not
        self._dtypes: dict[str, torch.dtype] = {}
        self._of_module: set[int] = set()
        self.plain = self.fabric.world_size == 1 and str(precision) in FULL_PRECISION

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.fabric.device

    def graphs(self) -> Graphs | None:
        """None: strategies and reduced precision do more than torch's operations."""
        return None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.fabric.is_global_zero

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.fabric.world_size

    def place(self, plan: Plan) -> torch.nn.Module:
        """Put a plan on the device, wrap its module where needed, and return the bare module."""
        raw = plan.module
        plan.to(self.device)
        if not self.plain:
            self._dtypes = {name: value.dtype for name, value in raw.state_dict().items()}
            self._of_module = {id(parameter) for parameter in raw.parameters()}
            plan.module = Placed(raw, self.fabric, seal=self.mixed)
        return raw

    def release(self, raw: torch.nn.Module) -> None:
        """Give a module back in the precision it came in."""
        for name, value in [*raw.named_parameters(), *raw.named_buffers()]:
            value.data = value.data.to(self._dtypes.get(name, value.dtype))

    def set_up_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Let strategy and precision into the optimizers, where there are several processes or a scaled gradient."""
        return optimizers if self.plain else [self.fabric.setup_optimizers(o) for o in optimizers]  # type: ignore[misc]

    def given(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """An optimizer as the plan made it: Fabric's wrapper holds it."""
        return optimizer if self.plain else optimizer.optimizer  # type: ignore[attr-defined]

    def to_device(self, batch: object) -> Any:
        """Move a minibatch."""
        return batch if self.device.type == "cpu" else self.fabric.to_device(batch)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass."""
        if self.plain:
            loss.backward(**kwargs)
        else:
            self.fabric.backward(loss, **kwargs)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average over the processes the gradients that no strategy averages: of parameters beside the module."""
        if self.world_size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None and id(parameter) not in self._of_module:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.world_size

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.fabric.global_rank

    @property
    def room_for_data(self) -> int:
        """Bytes that data may take on the device: weights, activations and other programs want the rest."""
        return _room_on(self.device) if self.device.type == "cuda" else 0

    @property
    def holds_all_weights(self) -> bool:
        """Whether each process has the whole module: not under FSDP and its like."""
        return type(self.fabric.strategy).__name__ in ("SingleDeviceStrategy", "DDPStrategy")

    def gather(self, value: object) -> list[Any]:
        """What each process has, by rank; in all processes."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def any_process(self, flag: bool) -> bool:
        """Whether a flag is set in one process at least; in all processes."""
        if self.world_size == 1:
            return flag
        raised = torch.tensor([float(flag)], device=self.device)
        torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
        return bool(raised.item())

    def agree_on_buffers(self, raw: torch.nn.Module) -> None:
        """Give all processes the first one's running means, before they look at validation data."""
        if self.world_size > 1:
            for buffer in raw.buffers():
                torch.distributed.broadcast(buffer, 0)

    def precision_state(self) -> dict[str, Any]:
        """What reduced precision keeps from step to step (the loss scale)."""
        return dict(self.fabric.strategy.precision.state_dict())

    def load_precision_state(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.fabric.strategy.precision.load_state_dict(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Fabric's tips and device adverts do not reach the user; its errors do."""
    loggers = [logging.getLogger(name) for name in ("lightning_fabric", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def several_processes(trainer_kwargs: dict[str, Any]) -> bool:
    """Whether a run with these arguments of the trainer will have several processes, before any is started."""
    asked = asks_for_several(trainer_kwargs.get("devices"), trainer_kwargs.get("num_nodes", 1))
    return asked or n_processes() > 1
