"""What is in a checkpoint: the state of a run as one document, and back.

A run is a function of its state, so a run that goes on from a checkpoint computes what the other one would have:

========== ==========================================================================================================
progress   epoch, optimizer step, minibatches of the running epoch, why it should stop, metrics, attempt
weights    of the module, of what else the plan holds, and gradients that wait for an optimizer step
optimizers with their schedules and, under 16-bit precision, the loss scale
processes  of each process: the run's generators and the sums of the running epoch
loaders    epoch and minibatch of each; their order is a function of (seed, epoch), so no row is read again
callbacks  early stopping, best weights, checkpoints of the best
history    every row of it
start      weights and history a diverged run begins again with
identity   what the run was made of (:mod:`celbo.train.checkpoints.fingerprint`)
========== ==========================================================================================================
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core import __version__
from ...dataloaders.base import Loader
from ...io import ArchiveError
from ...io.errors import blaming
from ...ops.native.threads import allowed_threads
from ...ops.random import generator_states, set_generator_states
from ..nonfinite import copied
from ..optim import parameters_of
from ..run import Run
from .folder import SavedRun
from .parts import check_state

__all__ = ["FORMAT", "before_validation", "capture", "restore", "say_what_differs"]

logger = logging.getLogger("celbo")

FORMAT = 1
"""Number of the layout written here; others are refused."""

_PROGRESS = (
    "current_epoch",
    "global_step",
    "batches_done",
    "epoch_is_trained",
    "epoch_kl_weight",
    "should_stop",
    "stop_reason",
    "last_validated_epoch",
)
"""Attributes of the trainer that say how far it is."""


def before_validation(trainer: Run) -> dict[str, Any]:
    """What validation changes, as it is before: a checkpoint taken during validation restarts that."""
    return {"generators": generator_states(trainer.engine.device), "loader": _state_of(trainer.val_loader, True)}


def capture(trainer: Run, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The state of a run, after a minibatch or an epoch, as a document for :func:`celbo.io.write_archive`.

    Parameters
    ----------
    trainer
        The running trainer. With several processes each of them must call this.
    before
        What :func:`before_validation` gave, during validation.

    Returns
    -------
    A document with tensors in it. They are those of the run: write it before the run goes on.
    """
    generators = generator_states(trainer.engine.device) if before is None else before["generators"]
    validation = _state_of(trainer.val_loader, True) if before is None else before["loader"]
    mine = {"generators": generators, "metrics": trainer.plan.train_epoch_metrics.state_dict()}
    return {
        "format": FORMAT,
        "celbo": __version__,
        "torch": str(torch.__version__),
        "threads": allowed_threads(),
        "identity": trainer.identity,
        "progress": {name: getattr(trainer, name) for name in _PROGRESS}
        | {"callback_metrics": {name: float(value) for name, value in trainer.callback_metrics.items()}},
        "weights": dict(trainer.raw_module.state_dict()),
        "plan_weights": _weights_beside_the_module(trainer),
        "gradients": {name: p.grad for name, p in _parameters(trainer).items() if p.grad is not None},
        "plan": trainer.plan.resume_state(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedules": [link.scheduler.state_dict() for link in trainer.lr_links],
        "precision": trainer.engine.precision_state(),
        "processes": trainer.engine.gather(mine),
        "loaders": {"train": _state_of(trainer.train_loader, _is_between_epochs(trainer)), "validation": validation},
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in trainer.stateful],
        "history": trainer.history.state_dict(),
        "start": trainer.attempts.state_dict(),
    }


def _weights_beside_the_module(trainer: Run) -> dict[str, Tensor]:
    """What a plan holds itself, as the classifier of an adversary."""
    return {name: value for name, value in trainer.plan.state_dict().items() if not name.startswith("module.")}


def _parameters(trainer: Run) -> dict[str, torch.nn.Parameter]:
    beside = {name: p for name, p in trainer.plan.named_parameters() if not name.startswith("module.")}
    return {f"module.{name}": p for name, p in trainer.raw_module.named_parameters()} | beside


def _is_between_epochs(trainer: Run) -> bool:
    """Whether the loader's next minibatch is the first of an epoch, even if it has more of the last one to give."""
    return not trainer.batches_done or trainer.batches_left == 0


def _state_of(loader: Loader | None, at_an_epochs_start: bool) -> dict[str, Any] | None:
    if loader is None or not loader.is_resumable:
        return None
    state = loader.state_dict()
    if at_an_epochs_start and state["batch"]:
        return state | {"epoch": state["epoch"] + 1, "batch": 0}
    return state


def restore(trainer: Run, state: Mapping[str, Any], path: Path) -> None:
    """Put a run into the state that :func:`capture` took; the trainer is set up and has not trained yet.

    Parameters
    ----------
    trainer
        The trainer.
    state
        The state.
    path
        The checkpoint that it lay in.

    Raises
    ------
    ArchiveError
        The state has another layout, or another number of processes; a part of it makes no sense.
    """
    with blaming(path, "layout"):
        _check_layout(trainer, state)
    check_state(trainer, path, state)
    with blaming(path, "state"):
        _restore(trainer, state)


def _restore(trainer: Run, state: Mapping[str, Any]) -> None:
    mine = state["processes"][trainer.engine.rank]
    for name in _PROGRESS:
        setattr(trainer, name, state["progress"][name])
    trainer.note(state["progress"]["callback_metrics"])
    _put_weights(trainer, state)
    trainer.plan.load_resume_state(state["plan"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(_laid_out(optimizer, saved))
    for link, saved in zip(trainer.lr_links, state["schedules"], strict=True):
        link.scheduler.load_state_dict(dict(saved))
    trainer.engine.load_precision_state(state["precision"])
    trainer.plan.train_epoch_metrics.load_state_dict(mine["metrics"], trainer.engine.device)
    for name, loader in (("train", trainer.train_loader), ("validation", trainer.val_loader)):
        if loader is not None and state["loaders"][name] is not None:
            loader.load_state_dict(state["loaders"][name])
    for callback, (_, saved) in zip(trainer.stateful, state["callbacks"], strict=True):
        callback.load_state_dict(copied(saved))
    trainer.history.load_state_dict(state["history"])
    trainer.attempts.load_state_dict(state["start"])
    set_generator_states(mine["generators"], trainer.engine.device)  # last: nothing above may draw


def _check_layout(trainer: Run, state: Mapping[str, Any]) -> None:
    if state.get("format") != FORMAT:
        raise ArchiveError(
            f"The checkpoint has the layout {state.get('format')!r}, this celbo reads {FORMAT}: resume with celbo "
            f"{state.get('celbo')}, which wrote it."
        )
    names = [name for name, _ in state["callbacks"]]
    present = [type(callback).__name__ for callback in trainer.stateful]
    if names != present:
        raise ArchiveError(f"The run had the callbacks {names}, now there are {present}: pass the same ones to resume.")


def _put_weights(trainer: Run, state: Mapping[str, Any]) -> None:
    trainer.raw_module.load_state_dict(state["weights"])
    beside = {name: value for name, value in trainer.plan.state_dict().items() if name in state["plan_weights"]}
    with torch.no_grad():
        for name, value in beside.items():
            value.copy_(state["plan_weights"][name])
    for name, parameter in _parameters(trainer).items():
        saved = state["gradients"].get(name)
        parameter.grad = None if saved is None else _lying_like(parameter, saved).to(parameter.device)


def _laid_out(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an optimizer's state, each table in memory as its parameter lies there.

    Fused optimizers pair entries as they lie. A parameter made from a transposed table has moments of such strides too,
    but a file keeps rows one after the other.
    """
    state: dict[str, Any] = copied(saved)  # what was read lies in one block of memory
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters_of(optimizer), strict=False):  # torch itself refuses other numbers
        moments = state["state"].get(number, {})
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = _lying_like(parameter, value)
    return state


def _lying_like(parameter: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def say_what_differs(trainer: Run, resumed: SavedRun) -> None:
    """Say where a run goes on, and what could make its last digits differ."""
    if not trainer.is_global_zero:
        return
    if trainer.verbose:
        where = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        logger.info(f"Resumed from {resumed.path}: {where}.")
    present = {"celbo": __version__, "torch": str(torch.__version__), "threads": allowed_threads()}
    before = {name: resumed.state.get(name, now) for name, now in present.items()}
    changed = [f"{name} {before[name]} then, {now} now" for name, now in present.items() if before[name] != now]
    if changed:
        logger.warning(f"The last digits may differ from those of a run without interruption: {'; '.join(changed)}.")
