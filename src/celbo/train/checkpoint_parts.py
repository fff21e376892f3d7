"""What the parts of a checkpoint must be, looked at before any of them is put into a run.

A checkpoint is a file: its checksums say that it is whole, not that it makes sense. Each part is compared with what the
run that is to take it has in its place: the same names, kinds of values, and shapes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ..io import ArchiveError
from ..io.errors import blaming

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["check_document", "check_state"]

_PARTS: dict[str, type] = {
    "format": int,
    "identity": dict,
    "progress": dict,
    "weights": dict,
    "plan_weights": dict,
    "gradients": dict,
    "plan": dict,
    "optimizers": list,
    "schedules": list,
    "processes": list,
    "loaders": dict,
    "callbacks": list,
    "history": dict,
    "start": dict,
}
_PROGRESS: dict[str, tuple[type, ...]] = {
    "current_epoch": (int,),
    "global_step": (int,),
    "batches_done": (int,),
    "epoch_is_trained": (bool,),
    "epoch_kl_weight": (float, int, type(None)),
    "should_stop": (bool,),
    "stop_reason": (str, type(None)),
    "last_validated_epoch": (int, type(None)),
    "callback_metrics": (dict,),
}
_PLAIN = (bool, int, float, str, type(None))


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
    for name, kind in _PARTS.items():
        if type(state.get(name)) is not kind:
            raise ArchiveError(f"{path} is no checkpoint: {name!r} is missing or no {kind.__name__}.")
    with blaming(path, "identity"):
        identity = state["identity"]
        for part in ("data", "model", "plan", "trainer"):
            _require(_is_flat(identity.get(part)), f"its {part!r} is no dictionary of plain values")
        seed = identity["trainer"].get("seed")
        _require(seed is None or _is_number(seed, int), "its seed is no whole number")


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise ArchiveError(what)


def _is_flat(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value))
        for value in values.values()
    )


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)


def check_state(trainer: "Trainer", path: Path, state: Mapping[str, Any]) -> None:
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
    plan, module = trainer.plan, trainer.raw_module
    rank = trainer.engine.rank
    with blaming(path, "progress"):
        _check_progress(state["progress"])
    with blaming(path, "weights"):
        fits("weights", state["weights"], dict(module.state_dict()))
    with blaming(path, "plan_weights"):
        present = plan.state_dict()
        fits("plan_weights", state["plan_weights"], {name: present[name] for name in state["plan_weights"]})
    with blaming(path, "plan"):
        fits("plan", state["plan"], {n: v for n, v in plan.resume_state().items() if not isinstance(v, Mapping)})
    with blaming(path, "optimizers"):
        _require(len(state["optimizers"]) == len(trainer.optimizers), "there are more or fewer than the run has")
        for saved, optimizer in zip(state["optimizers"], trainer.optimizers, strict=True):
            _check_optimizer(saved, optimizer)
    with blaming(path, "schedules"):
        _require(len(state["schedules"]) == len(trainer.lr_links), "there are more or fewer than the run has")
        for saved, link in zip(state["schedules"], trainer.lr_links, strict=True):
            fits("schedule", saved, link.scheduler.state_dict())
    with blaming(path, "processes"):
        _require(len(state["processes"]) > rank, f"the run has {trainer.engine.world_size} processes")
        _check_process(state["processes"][rank], plan.train_epoch_metrics.state_dict())
    with blaming(path, "loaders"):
        for name, loader in (("train", trainer.train_loader), ("validation", trainer.val_loader)):
            _check_loader(name, state["loaders"].get(name), loader)
    with blaming(path, "callbacks"):
        for pair in state["callbacks"]:
            _require(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str), "one is no pair")
        for (name, saved), callback in zip(state["callbacks"], trainer.stateful, strict=False):
            fits(name, saved, {n: v for n, v in callback.state_dict().items() if not isinstance(v, Mapping)})
            _check_weights_of(name, saved, module)
    with blaming(path, "history"):
        _check_history(state["history"])
    with blaming(path, "start"):
        _check_start(state["start"], module)


def fits(place: str, saved: Any, present: Any) -> None:
    """Refuse a value that is of another kind than the one in its place; what is None on either side may be anything.

    Parameters
    ----------
    place
        What it is, for the message.
    saved, present
        Value of the file, and of the run. Dictionaries have at least the run's names, tensors its shapes.
    """
    if present is None or saved is None:
        return
    if isinstance(present, Tensor):
        right = isinstance(saved, Tensor) and saved.shape == present.shape and _kind(saved) == _kind(present)
        _require(right, f"{place} is {_described(saved)}, wanted {_described(present)}")
    elif isinstance(present, Mapping):
        _require(isinstance(saved, Mapping), f"{place} is {_described(saved)}, wanted a dictionary")
        for name, value in present.items():
            _require(name in saved, f"{place} lacks {str(name)!r}")
            fits(f"{place}[{str(name)!r}]", saved[name], value)
    elif isinstance(present, str | bool):
        _require(type(saved) is type(present), f"{place} is {_described(saved)}, wanted {_described(present)}")
    elif isinstance(present, int | float):
        _require(_is_number(saved), f"{place} is {_described(saved)}, wanted a number")
    elif isinstance(present, Sequence):
        _require(isinstance(saved, list | tuple), f"{place} is {_described(saved)}, wanted a list")
        for one, other in zip(saved, present, strict=False):
            fits(f"an element of {place}", one, other)


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.dtype.is_floating_point, tensor.dtype == torch.bool


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _check_progress(progress: Mapping[str, Any]) -> None:
    for name, kinds in _PROGRESS.items():
        value = progress.get(name, ...)
        right = type(value) in kinds and (type(value) is not int or value >= 0 or name == "last_validated_epoch")
        _require(right, f"{name!r} is missing or of the wrong kind")
    for name, value in progress["callback_metrics"].items():
        _require(isinstance(name, str) and _is_number(value), f"the metric {name!r} is no number")


def _check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    present = optimizer.state_dict()
    _require(isinstance(saved, Mapping) and {"state", "param_groups"} <= saved.keys(), "one has no state or no groups")
    groups, state = saved["param_groups"], saved["state"]
    _require(isinstance(groups, list) and len(groups) == len(present["param_groups"]), "the groups are others")
    for group, own in zip(groups, present["param_groups"], strict=True):
        fits("a group", group, own)
        _require(group["params"] == own["params"], "a group has other parameters")
        for name in ("lr", "weight_decay", "eps"):
            _require(name not in group or math.isfinite(float(group[name])), f"{name!r} is no finite number")
    sizes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    _require(isinstance(state, Mapping) and all(_is_number(key, int) for key in state), "its state has no numbers")
    for number, values in state.items():
        _require(0 <= number < len(sizes) and isinstance(values, Mapping), f"there is no parameter {number}")
        for name, value in values.items():
            fitting = value.numel() == 1 or value.shape == sizes[number] if isinstance(value, Tensor) else True
            right = fitting and isinstance(value, (Tensor, *_PLAIN))
            _require(right, f"{name!r} of parameter {number} is {_described(value)}")
    _check_names(state)


def _check_names(state: Mapping[int, Any]) -> None:
    """What one parameter has, all have: an optimizer looks for all of it where there is any."""
    names = {tuple(sorted(map(str, values))) for values in state.values() if values}
    _require(len(names) <= 1, "some parameters have other values than others")


def _check_process(saved: Any, metrics: Mapping[str, Any]) -> None:
    _require(isinstance(saved, Mapping), "one is no dictionary")
    generators = saved.get("generators")
    _require(isinstance(generators, Mapping) and "cpu" in generators, "the states of generators are missing")
    for name, state in generators.items():
        _require(isinstance(state, Tensor) and state.dtype == torch.uint8, f"the generator {name!r} is no bytes")
    fits("metrics", saved.get("metrics") or {}, metrics)
    kept = saved["metrics"]
    _require(all(isinstance(name, str) for name in kept["names"]), "a metric has no name")
    sums = kept["sums"]
    right = sums is None or (isinstance(sums, Tensor) and sums.is_floating_point() and sums.ndim == 1)
    _require(right and (0 if sums is None else len(sums)) == len(kept["names"]), "the sums do not fit their names")
    for name, pair in kept["kept"].items():
        right = (
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], Tensor) and _is_number(pair[1])
        )
        _require(right, f"the metric {name!r} is no sum and weight")
    _require(all(_is_number(n) for n in kept["n_without"].values()), "a metric has no number of observations")


def _check_loader(name: str, saved: Any, loader: Any) -> None:
    if saved is None:
        return
    _require(isinstance(saved, Mapping) and hasattr(loader, "state_dict"), f"{name!r} is no state of a loader")
    fits(name, saved, loader.state_dict())
    for part in ("epoch", "batch"):
        value = saved.get(part, 0)
        _require(_is_number(value, int) and 0 <= value < 2**53, f"{part!r} of {name!r} is no whole number from 0")
    _require(saved.get("batch", 0) <= len(loader), f"{name!r} stands behind its end")


def _check_weights_of(name: str, saved: Any, module: torch.nn.Module) -> None:
    """Weights that a callback keeps, all or none."""
    weights = saved.get("weights") if isinstance(saved, Mapping) else None
    if isinstance(weights, Mapping) and weights and all(isinstance(w, Tensor) for w in weights.values()):
        fits(f"weights of {name}", weights, dict(module.state_dict()))
    elif weights:
        _require(not isinstance(weights, Mapping | Sequence), f"weights of {name} are no tensors by name")


def _check_history(saved: Mapping[str, Any]) -> None:
    names, index, values, first = (saved.get(part) for part in ("index_name", "index", "values", "first"))
    _require(all(isinstance(part, Mapping) for part in (names, index, values)), "it is no dictionary of curves")
    assert isinstance(names, Mapping)
    assert isinstance(index, Mapping)
    assert isinstance(values, Mapping)
    _require(names.keys() == index.keys() == values.keys(), "its curves are not the same everywhere")
    for name in names:
        right = isinstance(name, str) and names[name] in ("epoch", "step") and isinstance(index[name], list)
        right = right and isinstance(values[name], list) and len(index[name]) == len(values[name])
        right = right and all(_is_number(at, int) for at in index[name]) and all(map(_is_number, values[name]))
        _require(right, f"the curve {str(name)[:60]!r} is no list of numbers by epoch or step")
    right = isinstance(first, list | tuple) and len(first) == 2 and all(_is_number(number, int) for number in first)
    _require(right, "it does not say where it begins")


def _check_start(saved: Mapping[str, Any], module: torch.nn.Module) -> None:
    _require(_is_number(saved.get("attempt"), int) and saved["attempt"] >= 0, "the attempt is no number")
    _require(isinstance(saved.get("weights"), Mapping), "its weights are missing")
    if saved["weights"]:
        fits("weights", saved["weights"], dict(module.state_dict()))
    history = saved.get("history")
    _require(isinstance(history, Mapping), "its history is missing")
    assert isinstance(history, Mapping)
    for name, frame in history.items():
        _require(isinstance(frame, pd.DataFrame) and frame.shape[1] == 1, f"the curve {name!r} is no table")
        _require(
            all(map(_is_number, frame.iloc[:, 0].tolist())), f"the curve {name!r} holds something else than numbers"
        )
