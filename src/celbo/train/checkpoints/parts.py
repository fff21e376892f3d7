"""What the parts of a checkpoint must be, looked at before any of them is put into a run.

First each by itself, when the checkpoint is read; then beside what the run that is to take it has in its place: the
same names, kinds of values, and shapes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ...dataloaders.base import Loader
from ...io.parts import (
    FLAG,
    MISSING,
    NAMES,
    NUMBER,
    SIZE,
    TENSOR,
    TEXT,
    WHOLE,
    Part,
    both,
    check,
    every,
    exactly,
    is_whole,
    like,
    listed,
    names,
    or_none,
)
from ..callbacks import KeepBest
from ..run import Run
from ..run_state import batches_in

__all__ = ["check_document", "check_state"]

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_SWITCHES = ("amsgrad", "maximize")
_PLAIN_TYPES = (bool, int, float, str, type(None))


def _is_plain(value: object) -> bool:
    several = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(one, _PLAIN_TYPES) for one in several)


def _is_frame(value: Any) -> bool:
    is_column = isinstance(value, pd.DataFrame) and value.shape[1] == 1
    return is_column and all(map(NUMBER.is_right, value.iloc[:, 0].tolist()))


def _are_curves(history: Mapping[str, Any]) -> bool:
    called, index, values = history["index_name"], history["index"], history["values"]
    same = called.keys() == index.keys() == values.keys()
    return same and all(len(index[name]) == len(values[name]) for name in called)


def _are_sums(metrics: Mapping[str, Any]) -> bool:
    sums = metrics["sums"]
    return (0 if sums is None else len(sums)) == len(metrics["names"])


def _is_numbered(state: object) -> bool:
    """Values by a parameter's number. What one has, all have: an optimizer looks for it where there is any."""
    if not isinstance(state, Mapping) or not all(is_whole(n) and isinstance(v, Mapping) for n, v in state.items()):
        return False
    return len({tuple(sorted(map(str, values))) for values in state.values() if values}) <= 1


_VALUE = Part("a plain value", _is_plain)
_FLAT = every(_VALUE)
_BYTES = Part("a tensor of bytes", lambda value: isinstance(value, Tensor) and value.dtype == torch.uint8)
_VECTOR = Part("a tensor of sums", lambda t: isinstance(t, Tensor) and t.is_floating_point() and t.ndim == 1)
_FRAME = Part("a table with a column of numbers", _is_frame)
_PROGRESS = names(
    {
        "current_epoch": SIZE,
        "global_step": SIZE,
        "batches_done": SIZE,
        "epoch_is_trained": FLAG,
        "epoch_kl_weight": or_none(NUMBER),
        "should_stop": FLAG,
        "stop_reason": or_none(TEXT),
        "last_validated_epoch": or_none(WHOLE),
        "callback_metrics": every(NUMBER),
    }
)
_SUMS = names(
    {
        "names": listed(TEXT),
        "sums": or_none(_VECTOR),
        "n_without": every(NUMBER),
        "kept": every(exactly([TENSOR, NUMBER])),
        "n_obs": SIZE,
        "n_batches": SIZE,
    }
)
_PROCESS = names(
    {
        "generators": names({"cpu": _BYTES}, rest=_BYTES),
        "metrics": both(_SUMS, Part("a sum for each name", _are_sums)),
    }
)
_CURVES = names(
    {
        "index_name": every(Part("'epoch' or 'step'", lambda value: value in ("epoch", "step"))),
        "index": every(listed(WHOLE)),
        "values": every(listed(NUMBER)),
        "first": exactly([SIZE, SIZE]),
    }
)
_LOADER = or_none(names(maybe={"epoch": SIZE, "batch": SIZE}))
_OPTIMIZER = names({"state": Part("values by parameter", _is_numbered), "param_groups": listed(NAMES)})
_IDENTITY = names(
    {"data": _FLAT, "model": _FLAT, "plan": _FLAT, "trainer": names({"seed": or_none(WHOLE)}, rest=_VALUE)}
)
_DOCUMENT = {
    "format": WHOLE,
    "identity": _IDENTITY,
    "progress": _PROGRESS,
    "weights": every(TENSOR),
    "plan_weights": every(TENSOR),
    "gradients": every(TENSOR),
    "plan": NAMES,
    "optimizers": listed(_OPTIMIZER),
    "schedules": listed(NAMES),
    "processes": listed(_PROCESS),
    "loaders": names({"train": _LOADER, "validation": _LOADER}),
    "callbacks": listed(exactly([TEXT, NAMES])),
    "history": both(_CURVES, Part("as many places as numbers in each curve", _are_curves)),
    "start": names({"attempt": SIZE, "weights": every(TENSOR), "history": every(_FRAME)}),
}


def check_document(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse an archive that is no checkpoint, before a run is made for it.

    Parameters
    ----------
    path
        The checkpoint.
    state
        Its document.

    Raises
    ------
    ArchiveError
        Names the part that is missing or of the wrong kind.
    """
    for name, part in _DOCUMENT.items():
        check(path, name, state.get(name, MISSING), part)


def check_state(trainer: Run, path: Path, state: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose parts do not fit the run that is to go on with it.

    Parameters
    ----------
    trainer
        The run, set up; nothing of it is changed.
    path
        The checkpoint.
    state
        Its document, see :func:`check_document`.

    Raises
    ------
    ArchiveError
        Names file and part.
    """
    for name, part in _parts_of(trainer).items():
        check(path, name, state[name], part)


def _parts_of(trainer: Run) -> dict[str, Part]:
    """What the parts of a checkpoint of this run must be."""
    plan, weights = trainer.plan, like(trainer.raw_module.state_dict())
    beside = {name: value for name, value in plan.state_dict().items() if not name.startswith("module.")}
    loaders = {"train": trainer.train_loader, "validation": trainer.val_loader}
    rank = trainer.engine.rank
    return {
        "weights": weights,
        "plan_weights": like(beside),
        "plan": like(_without_nests(plan.resume_state())),
        "optimizers": exactly([_optimizer(optimizer) for optimizer in trainer.optimizers]),
        "schedules": exactly([_schedule(link.scheduler.state_dict()) for link in trainer.lr_links]),
        "processes": Part(f"a list with process {rank}", lambda processes: len(processes) > rank),
        "loaders": names({name: _loader(loader) for name, loader in loaders.items()}),
        "callbacks": exactly([exactly([TEXT, _callback(callback, weights)]) for callback in trainer.stateful]),
        "start": names({"weights": _or_empty(weights)}, maybe={"first_loss": or_none(NUMBER)}),
    }


def _without_nests(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not isinstance(value, Mapping)}


def _or_empty(part: Part) -> Part:
    return Part(part.wanted, part.is_right, lambda value: part.inner(value) if value else ())


def _callback(callback: Any, weights: Part) -> Part:
    own = _without_nests(callback.state_dict())
    best = {"best": or_none(NUMBER)} if "best" in own else {}
    return both(like(own), names(best | ({"weights": _or_empty(weights)} if isinstance(callback, KeepBest) else {})))


def _loader(loader: Loader | None) -> Part:
    """Where a loader stood. One that did not say so then is not asked now."""
    if loader is None or not loader.is_resumable:
        return Part("None, as this loader does not say it", lambda value: value is None)
    place = _place_in(loader)
    return or_none(Part("", lambda value: True, lambda value: ((None, value, place),)))


def _place_in(loader: Loader) -> Part:
    place = like(loader.state_dict())
    return both(
        place, Part("a place before its end", lambda state: state.get("batch", 0) <= (batches_in(loader, None) or 0))
    )


def _optimizer(optimizer: torch.optim.Optimizer) -> Part:
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    groups = [_group(group) for group in optimizer.state_dict()["param_groups"]]
    values = Part("values that fit the parameters", lambda state: _fit(state, shapes))
    return names({"param_groups": exactly(groups), "state": values})


def _as_long(own: Mapping[str, Any]) -> Part:
    """Lists of as many as the run's own, where it has any."""
    lists = {name: value for name, value in own.items() if isinstance(value, list | tuple) and value}
    return names({name: exactly(list(map(like, value))) for name, value in lists.items()})


def _numbers_and_switches(own: Mapping[str, Any]) -> Part:
    """Numbers, none of them None, where the run has numbers, and what an optimizer is told once as the run has it."""
    numbers = {name: NUMBER for name, value in own.items() if NUMBER.is_right(value)}
    return names(numbers | {name: _exactly_this(own[name]) for name in _SWITCHES if name in own})


def _exactly_this(own: object) -> Part:
    return Part(repr(own), lambda value: value is own)


def _schedule(own: Mapping[str, Any]) -> Part:
    return both(like(own), _as_long(own), _numbers_and_switches(own))


def _group(own: Mapping[str, Any]) -> Part:
    same = Part("that of the run's parameters", lambda group: group["params"] == own["params"])
    finite = Part(
        "finite", lambda group: all(math.isfinite(group[n]) for n in ("lr", "weight_decay", "eps") if n in group)
    )
    return both(like(own), same, _as_long(own), _numbers_and_switches(own), finite)


def _fit(state: Mapping[int, Mapping[str, Any]], shapes: list[torch.Size]) -> bool:
    return all(
        0 <= number < len(shapes) and all(_fits(name, value, shapes[number]) for name, value in values.items())
        for number, values in state.items()
    )


def _fits(name: str, value: object, shape: torch.Size) -> bool:
    """Whether a value is one of a parameter of that shape; other names than those of Adam may be of any shape."""
    if name in _MOMENTS:
        return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape
    if name == "step":
        return NUMBER.is_right(value) or (isinstance(value, Tensor) and value.ndim == 0)
    return isinstance(value, Tensor) or _is_plain(value)
