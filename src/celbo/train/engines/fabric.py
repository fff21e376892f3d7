"""Devices, precision and processes, through Lightning Fabric, which is imported only where a run needs it."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...module.base import LossOutput
from ..plans.base import Plan
from .cuda import CudaEngine
from .engine import Engine

__all__ = ["FabricEngine", "asks_for_several", "make_engine"]

_FULL_PRECISION = ("32-true", "32")


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
    alone = devices in ("auto", None, 1) and num_nodes == 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1
    plain = strategy == "auto" and str(precision) in _FULL_PRECISION
    on_cpu = accelerator == "cpu" or (accelerator in ("auto", None) and not torch.accelerator.is_available())
    if alone and plain and on_cpu:
        return Engine()
    if alone and plain and accelerator in ("auto", None, "gpu", "cuda") and torch.cuda.is_available():
        return CudaEngine()
    return FabricEngine(accelerator, devices, strategy, precision, num_nodes)


def asks_for_several(devices: Any, num_nodes: int) -> bool:
    """Whether these arguments ask for more than one process."""
    many = len(devices) > 1 if isinstance(devices, list | tuple) else devices not in (None, "auto", 1, "1")
    return many or num_nodes > 1


def _as_launched(devices: Any, num_nodes: int, strategy: str) -> tuple[Any, int, str]:
    """What ``"auto"`` is where there are several processes, and in one that torchrun started."""
    if strategy == "auto" and asks_for_several(devices, num_nodes):
        strategy = "ddp"
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices, num_nodes, strategy
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return (
        here if devices in ("auto", None) else devices,
        n // here if num_nodes == 1 else num_nodes,
        "ddp" if strategy == "auto" else strategy,
    )


class FabricEngine(Engine):
    """A launched Fabric.

    Parameters
    ----------
    accelerator
        ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` or ``"tpu"``.
    devices
        ``"auto"`` (one device), a number, or a list of indices.
    strategy, precision, num_nodes
        As in Fabric: ``"auto"``, ``"ddp"``, ``"fsdp"``; ``"32-true"``, ``"bf16-mixed"``, ``"16-mixed"``.
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
            self.fabric.launch()
        # One process in full precision needs none of Fabric's wrappers, which cost a tenth of a millisecond a call.
        self.mixed = str(precision).endswith("mixed")  # the networks compute in less; counts and likelihood do not
        self._dtypes: dict[str, torch.dtype] = {}
        self._of_module: set[int] = set()
        self.plain = self.fabric.world_size == 1 and str(precision) in _FULL_PRECISION

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.fabric.device

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
            plan.module = _Placed(raw, self.fabric, seal=self.mixed)
        return raw

    def release(self, raw: torch.nn.Module) -> None:
        """Give a module back in the precision it came in."""
        for name, value in [*raw.named_parameters(), *raw.named_buffers()]:
            value.data = value.data.to(self._dtypes.get(name, value.dtype))

    def set_up_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Let strategy and precision into the optimizers, where there are several processes or a scaled gradient."""
        return optimizers if self.plain else [self.fabric.setup_optimizers(o) for o in optimizers]  # type: ignore[misc]

    def to_device(self, batch: Any) -> Any:
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
    def holds_all_weights(self) -> bool:
        """Whether each process has the whole module: not under FSDP and its like."""
        return type(self.fabric.strategy).__name__ in ("SingleDeviceStrategy", "DDPStrategy")

    def gather(self, value: Any) -> list[Any]:
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


class _Sealed:
    """What passes Fabric's wrappers as it is: they would round counts to the precision and take records apart."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _SealedModule(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, sealed: Any) -> tuple[list[Tensor], _Sealed]:
        args, kwargs = sealed.content if isinstance(sealed, _Sealed) else sealed
        outputs = self.module(*args, **kwargs)
        # The loss is shown beside: strategies follow its graph to find the parameters that take no part.
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return [part.loss for part in parts if isinstance(part, LossOutput)], _Sealed(outputs)


class _Placed(torch.nn.Module):
    """A module whose forward goes through the strategy and the precision; all else is the module's own."""

    def __init__(self, raw: torch.nn.Module, fabric: Any, seal: bool) -> None:
        super().__init__()
        self.raw, self.seal, self.fabric = raw, seal, fabric
        # Processes may have different numbers of validation minibatches: there nobody waits for the others.
        plain = fabric.strategy.precision.precision in _FULL_PRECISION
        self.alone_without_gradient = fabric.world_size > 1 and (seal or plain)
        self.wrapped = fabric.setup_module(_SealedModule(raw), move_to_device=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.alone_without_gradient and not torch.is_grad_enabled():
            with self.fabric.autocast():
                return self.raw(*args, **kwargs)
        _, sealed = self.wrapped(_Sealed((args, kwargs)) if self.seal else (args, kwargs))
        return sealed.content

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("raw"), name)


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
