"""What a run is made of: model, data, plan, trainer. A checkpoint goes on only with the same."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core import REGISTRY_KEYS, ArgumentError
from ...data.counts import digest_of_counts
from ...dataloaders.base import Tables
from ...io.errors import ArchiveError
from ...store.mapped import stretches
from ...store.matrices.digest import digest_of
from ...store.matrices.matrix import StoredMatrix
from ..callbacks import LoudEarlyStopping
from ..run import Run

__all__ = ["DifferentRunError", "as_begun", "describe_run", "differences", "refuse_other_run"]

_OF_THE_TRAINER = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "check_val_every_n_epoch",
    "log_every_n_steps",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
    "limit_train_batches",
    "limit_val_batches",
    "seed",
    "retries",
    "keep_best",
    "keep_best_from",
    "gives_up_after",
)
_SAMPLED_ROWS = 16
_NAMES_AT_ONCE = 2**16
_SHOWN = 4


class DifferentRunError(ValueError):
    """A checkpoint belongs to a run with other data or settings; the message names them."""


def describe_run(trainer: Run) -> dict[str, Any]:
    """Settings and fingerprint of a run that is set up and has not begun, in plain values.

    Returns
    -------
    ``{"trainer": ..., "plan": ..., "model": ..., "data": ...}``, each a dict of name to value.
    """
    settings = {name: getattr(trainer, name) for name in _OF_THE_TRAINER}
    settings["device"], settings["processes"] = trainer.engine.device.type, trainer.engine.world_size
    settings["precision"] = trainer.precision
    settings["callbacks"] = [type(callback).__name__ for callback in trainer.stateful]
    for callback in trainer.stateful:
        if isinstance(callback, LoudEarlyStopping):
            settings |= {f"early_stopping.{name}": value for name, value in _plain(vars(callback)).items()}
    return {
        "trainer": settings,
        "plan": {"class": type(trainer.plan).__name__, "declared": True, **trainer.plan.identity()},
        "model": _of_model(trainer),
        "data": _of_data(trainer),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = (bool, int, float, str, type(None))
    return {name: v for name, v in values.items() if not name.startswith("_") and isinstance(v, plain)}


def _of_model(trainer: Run) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in trainer.raw_module.state_dict().items()}
    described: dict[str, Any] = {"module": type(trainer.raw_module).__name__, "weights": _digest([repr(shapes)])}
    if trainer.model is not None:
        described["class"] = type(trainer.model).__name__
        arguments = trainer.model.init_params_
        described |= _plain(arguments.get("non_kwargs", {}))
        for nested in arguments.get("kwargs", {}).values():
            described |= _plain(nested)
    return described


def _of_data(trainer: Run) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("n_train", "n_val", "train_idx", "val_idx", "test_idx"))
    if (data := trainer.data) is not None:
        found |= {"n_train": data.n_train, "n_val": data.n_val}
        sets = {"train_idx": data.train_idx, "val_idx": data.val_idx, "test_idx": data.test_idx}
        found |= {name: None if rows is None else _digest_of_rows(_in_one(rows)) for name, rows in sets.items()}
    adata = None if trainer.model is None else trainer.model.adata
    if adata is not None:
        found |= {"n_cells": int(adata.n_obs), "n_genes": int(adata.n_vars)}
        genes = adata.raw if (trainer.model.registry_.get("setup_args") or {}).get("use_raw") else adata
        found |= {"obs_names": _digest_of_names(adata.obs_names), "var_names": _digest_of_names(genes.var_names)}
        found["setup"] = _digest([repr(trainer.model.registry_.get("setup_args"))])
        found["digest"] = _digest_of_registered(trainer.model.adata_manager)
        found["streamed"] = _is_streamed(trainer.model.adata_manager)
    found["values"] = _digest_of_some_rows(trainer.train_loader.tables)
    found["batch_size"] = trainer.train_loader.batch_size
    return found


def _in_one(rows: Any) -> np.ndarray:
    """Row numbers as one array; a model of several data sets has a list of arrays."""
    return rows if isinstance(rows, np.ndarray) else np.hstack([np.empty(0, np.int64), *rows])


def _digest_of_registered(manager: Any) -> str:
    """Of every value that the model reads, so that one changed count shows."""
    parts = []
    for key in sorted(manager.data_registry):
        values = manager.get_from_registry(key)
        parts += [key, digest_of_counts(values) if key == REGISTRY_KEYS.X_KEY else digest_of(values)]
    return _digest(parts)


def _is_streamed(manager: Any) -> bool:
    has_x = REGISTRY_KEYS.X_KEY in manager.data_registry
    return has_x and isinstance(manager.get_from_registry(REGISTRY_KEYS.X_KEY), StoredMatrix)


def _digest_of_some_rows(tables: Tables | None) -> str | None:
    """Of a few rows of all that is registered: another layer, or counts that were changed, show there."""
    if tables is None:
        return None
    rows = np.linspace(0, len(tables) - 1, min(_SAMPLED_ROWS, len(tables))).astype(np.int64)
    batch = tables.fetch(rows)
    dense = {key: value if value.layout == torch.strided else value.to_dense() for key, value in batch.items()}
    return _digest([part for key in sorted(dense) for part in (key, dense[key].cpu().numpy())])


def _digest_of_rows(rows_k: np.ndarray) -> str:
    return _digest(np.ascontiguousarray(some, np.int64) for (some,) in stretches(rows_k))


def _digest_of_names(names: Iterable[Any]) -> str:
    """Of many texts at once, with their lengths: one by one would take a minute for a hundred million."""
    pieces = iter(names)
    total = hashlib.sha256()
    while raw := [str(name).encode() for name in itertools.islice(pieces, _NAMES_AT_ONCE)]:
        total.update(np.fromiter(map(len, raw), np.int64, len(raw)).tobytes())
        total.update(b"".join(raw))
    return total.hexdigest()


def _digest(parts: Iterable[Any]) -> str:
    """SHA-256 of texts and arrays, in hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        total.update(len(raw).to_bytes(8, "little"))
        total.update(raw)
    return total.hexdigest()


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions by :func:`describe_run`, in words.

    Parameters
    ----------
    saved, present
        The run of the checkpoint and the one that is to go on with it.
    """
    found = []
    for part in ("data", "model", "plan", "trainer"):
        before, now = saved.get(part, {}), present[part]
        before = _as_declared(before, now) if part == "plan" else before
        for name in sorted({*before, *now} - _UNKNOWN_ONCE.difference(before)):
            if name not in before and name in _ONCE_FIXED and now[name] == _ONCE_FIXED[name]:
                continue
            if not _alike(before.get(name), now.get(name)):
                found.append(_in_words(part, name, before.get(name), now.get(name)))
    return list(dict.fromkeys(found))


def _alike(before: object, now: object) -> bool:
    """None and False are: a switch that one caller leaves out is one that another turns off."""
    are_off = all(value is None or value is False for value in (before, now))
    return are_off or (before == now and type(before) is type(now))


def _as_declared(saved: Mapping[str, Any], present: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says of its plan, by arguments; earlier versions wrote its attributes, whatever these were."""
    if "declared" in saved:
        return saved
    once = {**_ONCE_FIXED, **saved} | ({"optimizer": saved["optimizer_name"]} if "optimizer_name" in saved else {})
    once.pop("on_step", None)  # the trainer sets it
    return {name: once.get(name, value) for name, value in present.items()}


_UNKNOWN_ONCE = frozenset({"digest", "streamed"})
"""What checkpoints of earlier versions lack: nothing to compare with."""

_ONCE_FIXED = {
    "dispersion_lr_factor": 1.0,
    "batch_norm_momentum": None,
    "keep_best_from": 0.0,
    "gives_up_after": 1.0,
    "kl_warmup_begins_at": 0.0,
}
"""Settings that checkpoints of earlier versions lack, with the value that all runs had then."""


def as_begun(
    saved: Mapping[str, Any], plan: Mapping[str, Any], trainer: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe's settings, as they were when the run of a checkpoint began with an earlier version of the recipe.

    Parameters
    ----------
    saved
        What the run is made of, by :func:`describe_run`.
    plan, trainer
        What the recipe says today. A run of another schedule is of another recipe: then this stays.
    """
    if saved["plan"].get("lr_schedule") != plan.get("lr_schedule", "constant"):
        return dict(plan), dict(trainer)
    begun = [
        {
            name: _of_its_kind(saved[part].get(name, _ONCE_FIXED.get(name, value)), value)
            for name, value in today.items()
        }
        for part, today in (("plan", plan), ("trainer", trainer))
    ]
    return begun[0], begun[1]


@contextmanager
def blaming_settings(path: Path, names: Iterable[str]) -> Iterator[None]:
    """Make the refusal of a setting that a checkpoint says an :class:`ArchiveError` that names the checkpoint.

    Parameters
    ----------
    path
        The checkpoint.
    names
        Settings that are the checkpoint's, and not the user's.
    """
    try:
        yield
    except ArgumentError as error:
        if error.argument not in names:
            raise
        raise ArchiveError(f"{path}, settings of the run: {error}") from error


def _of_its_kind(saved: object, today: object) -> Any:
    """A setting that was saved, where it is what such a setting may be; a damaged file may say anything."""
    numbers = (int, float, type(None))
    return saved if type(saved) is type(today) or (isinstance(saved, numbers) and isinstance(today, numbers)) else today


_NAMES = {
    "obs_names": "the names of the cells",
    "var_names": "the names of the genes",
    "setup": "the arguments of setup_anndata",
    "train_idx": "the cells to train on",
    "val_idx": "the cells to validate on",
    "test_idx": "the cells to test on",
    "values": "the counts (or another registered column)",
    "digest": "the counts (or another registered column)",
    "weights": "the shapes of the weights",
}


def _in_words(part: str, name: str, before: object, now: object) -> str:
    if name == "streamed":
        places = ("in memory", "streamed from disk")
        remedy = "celbo.data.open(stream=True), --data stream" if before else "celbo.data.read, --data load"
        return f"the data were {places[bool(before)]} and are {places[bool(now)]} ({remedy})"
    if name in _NAMES:
        return f"{_NAMES[name]} are others"
    return f"{name} of the {part} was {before!r} and is {now!r}"


def refuse_other_run(path: object, saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Raise :class:`DifferentRunError` unless a checkpoint belongs to the present run."""
    found = differences(saved, present)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DifferentRunError(
            f"{path} is a checkpoint of another run: {'; '.join(found[:_SHOWN])}{more}. Resume with the same data and "
            f"settings, or train without resume.{_of_another_length(saved, present)}"
        )


def _of_another_length(saved: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """What to do where the numbers of epochs differ, as a sentence."""
    begun, wanted = (run.get("trainer", {}).get("max_epochs") for run in (saved, present))
    if not isinstance(begun, int) or not isinstance(wanted, int) or begun == wanted:
        return ""
    further = f"; then train(max_epochs={wanted - begun}) trains the model further" if wanted > begun else ""
    return f" A run keeps its number of epochs: resume with max_epochs={begun}, or without it{further}."
