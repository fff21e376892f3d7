"""Minibatches that a device has recorded: computed once by Python, then done again without it.

A recording holds shapes and Python numbers as they were, and on CUDA addresses, so that the minibatch is copied to
where the recorded one lay. Numbers that change (:meth:`Plan.numbers <celbo.train.Plan.numbers>`, learning rates) are
tensors, filled when they do; what else would change the operations makes another recording, or none. The operations are
those of the plan, so the results are the same, to the bit where the device repeats its own.

The first minibatches of each shape are computed as usual, one of them watched: where an operation waits for the host
nothing is recorded, and training goes on as it would without.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from ..metrics import EpochMetrics
from ..plans.base import Plan
from .graphs import CannotBeRecorded, Graphs, Recorded

__all__ = ["RecordedStage", "can_be_recorded"]

logger = logging.getLogger("celbo")

Result = TypeVar("Result")

_PLAIN = (bool, int, float, str)

_SHAPES = 8
"""Shapes of minibatches that are recorded; further ones are computed as usual."""


@dataclass
class _Recording(Generic[Result]):
    """What is left of a recorded minibatch: its tensors, overwritten at each replay."""

    recorded: Recorded[Result]
    metrics: EpochMetrics
    step_values: dict[str, Tensor | float]
    record: Any


def can_be_recorded(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer computes on the device alone: torch's fused Adam and AdamW, and celbo's."""
    own = type(optimizer).__module__.startswith((__name__.partition(".")[0] + ".", "torch.optim."))
    return own and all(group.get("fused") for group in optimizer.param_groups)


class RecordedStage(Generic[Result]):
    """The minibatches of training, or those of validation.

    Parameters
    ----------
    graphs
        What records.
    plan
        The plan, of celbo's own classes throughout: state of others that changes in Python would be missed.
    stage
        ``"train"`` or ``"validation"``.
    compute
        ``(batch, batch_idx) -> result``: all that is done with a minibatch.
    optimizers
        Those that ``compute`` steps, see :func:`can_be_recorded`, or that are to step by the gradients it leaves.
    """

    def __init__(
        self,
        graphs: Graphs,
        plan: Plan,
        stage: Literal["train", "validation"],
        compute: Callable[[Any, int], Result],
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        self._graphs, self._plan, self._stage, self._compute = graphs, plan, stage, compute
        self._optimizers = optimizers
        self._tensors: dict[str, Tensor] = {}
        self._values: dict[str, float] = {}
        self._has_begun = False
        self._watched: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording[Result]] = {}
        self._built: Hashable = None
        self.why_not = ""

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    @property
    def _moved(self) -> list[dict[str, Any]]:
        """The groups of parameters whose steps are recorded."""
        return self._groups if self._graphs.moves else []

    @property
    def moves(self) -> bool:
        """Whether ``compute`` steps the optimizers, too."""
        return self._graphs.moves

    @property
    def n_recordings(self) -> int:
        """Shapes of minibatches recorded so far."""
        return len(self._recordings)

    def look(self) -> None:
        """Forget what was recorded if a callback has changed what is trained, or how, since the last look."""
        plan, changing = self._plan, self._plan.numbers()
        built = (
            tuple((p.data_ptr(), p.requires_grad) for p in plan.parameters()),
            tuple(buffer.data_ptr() for buffer in plan.buffers()),
            tuple(_settings(module, changing) for module in plan.modules()),
            tuple(repr({k: v for k, v in group.items() if k not in ("params", "lr")}) for group in self._groups),
        )
        if built != self._built:
            self._recordings.clear()
            self._watched.clear()
        self._built = built

    def __call__(self, batch: object, batch_idx: int) -> Result:
        """Do with a minibatch what ``compute`` does; the tensors of the result are overwritten by the next one."""
        self._renew_numbers()
        key, leaves = self._shape_of(batch)
        if key in self._recordings:
            return self._replay(self._recordings[key], leaves)
        if key in self._watched:
            try:
                return self._record(key, batch, batch_idx)
            except CannotBeRecorded as error:
                self._give_up(str(error))
        # The very first minibatch waits wherever a library sets itself up: another one is watched.
        if key is not None and self._has_begun and not self.why_not and len(self._watched) < _SHAPES:
            return self._compute_watched(key, batch, batch_idx)
        self._has_begun = True
        with self._taking_numbers():
            return self._compute(batch, batch_idx)

    def _shape_of(self, batch: object) -> tuple[Hashable | None, list[Tensor]]:
        """What minibatches must share to be done by one recording, None for one that cannot be; and its tensors."""
        form, leaves = self._plan.form(), [(path, leaf) for path, leaf in _leaves(batch) if leaf is not None]
        if form is None or any(not isinstance(leaf, Tensor) or leaf.layout != torch.strided for _, leaf in leaves):
            return None, []
        forms = ((path, leaf.shape, leaf.stride(), leaf.dtype) for path, leaf in leaves)
        return (form, *forms), [leaf for _, leaf in leaves]

    def _compute_watched(self, key: Hashable, batch: object, batch_idx: int) -> Result:
        with self._taking_numbers(), self._graphs.watching() as found:
            result = self._compute(batch, batch_idx)
        self._watched.add(key)
        if found:
            self._give_up(", ".join(sorted(set(found))))
        return result

    def _record(self, key: Hashable, batch: object, batch_idx: int) -> Result:
        plan, name = self._plan, f"{self._stage}_epoch_metrics"
        sums, values, record = getattr(plan, name), plan.step_values, plan.last_loss_output
        own, plan.step_values, plan.last_loss_output = type(sums)(self._stage), {}, None
        setattr(plan, name, own)
        placed = self._graphs.place(batch)
        given = [leaf for _, leaf in _leaves(placed) if leaf is not None]
        parameters = [parameter for group in self._groups for parameter in group["params"]]
        try:
            with self._taking_numbers():
                recorded = self._graphs.record(lambda: self._compute(placed, batch_idx), given, parameters)
            recording = _Recording(recorded, own, plan.step_values, plan.last_loss_output)
        except CannotBeRecorded:
            plan.last_loss_output = record
            raise
        finally:
            setattr(plan, name, sums)
            plan.step_values = values
        if recorded.replay is None:
            self._give_up(recorded.why_not)
        else:
            self._recordings[key] = recording
        return self._collect(recording) if recorded.is_done else self._replay(recording, self._shape_of(batch)[1])

    def _replay(self, recording: _Recording[Result], leaves: list[Tensor]) -> Result:
        assert recording.recorded.replay is not None
        recording.recorded.replay(leaves)
        return self._collect(recording)

    def _collect(self, recording: _Recording[Result]) -> Result:
        plan = self._plan
        getattr(plan, f"{self._stage}_epoch_metrics").add(recording.metrics)
        plan.step_values |= recording.step_values
        plan.last_loss_output = recording.record
        return recording.recorded.result

    def _give_up(self, why: str) -> None:
        self.why_not = why
        self._recordings.clear()
        self._watched.clear()
        logger.debug("Minibatches of %s are not recorded: %s.", self._stage, why)

    def _renew_numbers(self) -> None:
        """Fill the tensors of the numbers that have changed."""
        if self._stage == "train":
            self._plan.begin_step()
        rates = {f"lr of group {i}": group["lr"] for i, group in enumerate(self._moved)}
        for name, value in (self._plan.numbers() | rates).items():
            if name not in self._tensors:
                self._tensors[name] = torch.full((), value, dtype=torch.float32, device=self._graphs.device)
            elif self._values[name] != value:
                self._tensors[name].fill_(value)
            self._values[name] = value

    @contextmanager
    def _taking_numbers(self) -> Iterator[None]:
        """Let plan and optimizers take tensors for numbers. Around it nobody sees them: schedules, checkpoints."""
        groups = self._moved
        own = [(group["lr"], group["capturable"]) for group in groups]
        self._plan.on_device = {name: self._tensors[name] for name in self._plan.numbers()}
        for i, group in enumerate(groups):
            group["lr"], group["capturable"] = self._tensors[f"lr of group {i}"], True
        try:
            yield
        finally:
            self._plan.on_device = {}
            for group, (rate, capturable) in zip(groups, own, strict=True):
                group["lr"], group["capturable"] = rate, capturable


def _settings(module: torch.nn.Module, changing: Mapping[str, float]) -> tuple[Any, ...]:
    """Plain values that a module or a plan has, and those of its dicts, but for numbers that change by themselves."""
    found: list[Any] = []
    for name, value in vars(module).items():
        if isinstance(value, dict) and not name.startswith("_"):
            found += [
                (name, key, part) for key, part in value.items() if isinstance(part, _PLAIN) and key not in changing
            ]
        elif isinstance(value, _PLAIN) and name not in changing:
            found.append((name, value))
    return tuple(found)


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """What a nest of mappings, tuples and lists holds, each under where it lies."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{path}/{key}")
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}/{i}")
    else:
        yield path, value
