"""Saved models as the command line finds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core import elbo_of_weights, number_of
from ..data import summary_stats_of
from ..io import is_archive, is_scvi_archive, read_archive
from ..io.scvitools.read import OTHER_REGISTRIES
from ..model.base.archives.archive import Saved, read_saved
from ..report.models import ROWS, Row
from ..train.checkpoints.folder import told_of
from ..train.history import epoch_table
from .errors import UserError, as_options

__all__ = ["describe", "find_archive", "holds_model", "require_data"]


def holds_model(path: Path) -> bool:
    """Whether a path is the folder of a run, or of a saved model, and no data."""
    return path.is_dir() and any(is_archive(place) or is_scvi_archive(place) for place in (path, path / "model"))


def require_data(paths: Sequence[Path]) -> None:
    """Refuse a saved model in the place of data, with a ``UserError``."""
    for path in paths:
        if holds_model(path):
            raise UserError(f"{path} holds a saved model, not data: celbo info says what it is.")


def find_archive(folder: Path) -> Path:
    """The folder of the archive: the one given, or ``model`` in it; a ``UserError`` where neither is one."""
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder of a run or of a saved model. celbo check looks at data.")
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give the folder of a run or of a saved model.")
    for candidate in (folder, folder / "model"):
        if is_archive(candidate) or is_scvi_archive(candidate):
            return candidate
    if (waiting := told_of(folder)) is not None:
        raise UserError(waiting)
    raise UserError(
        f"There is no saved model in {folder}: neither model.json nor model.pt, here or in {folder / 'model'}."
    )


def describe(folder: Path) -> dict[str, str]:
    """What a saved model is, by heading, and how far a run is that left checkpoints."""
    waiting = told_of(folder)
    unfinished = {} if waiting is None else {"checkpoints": as_options(waiting)}
    if unfinished and not holds_model(folder):
        return unfinished
    archive = find_archive(folder)
    saved = read_saved(archive, "")
    stats = [summary_stats_of(one) for one in (saved.registry, *saved.registry.get(OTHER_REGISTRIES, ()))]
    lines = {"model": saved.class_name or "unknown", "archive": str(archive)}
    cells, genes = next((row.of for cls, row in ROWS.items() if cls.__name__ == saved.class_name), Row().of)
    genes = "genes" if {"n_proteins", "n_atac"} & stats[0].keys() else genes  # the others have sizes of their own
    sizes = {"n_cells": cells, "n_vars": genes, "n_atac": "regions", "n_proteins": "proteins", "n_batch": "batches"}
    sets = [", ".join(f"{one[name]:,} {what}" for name, what in sizes.items() if one.get(name)) for one in stats]
    lines["trained on"] = " and ".join(sets)
    setup = {name: value for name, value in saved.registry["setup_args"].items() if value}
    lines["setup"] = _pairs(setup) or "counts in X, no batch"
    lines["arguments"] = _pairs(saved.init_kwargs)
    lines["weights"] = f"{sum(w.numel() for w in saved.state_dict.values()):,}"
    lines |= _training(saved)
    if is_archive(archive):
        lines["versions"] = _pairs(read_archive(archive).document["versions"])
    return lines | unfinished


def _training(saved: Saved) -> dict[str, str]:
    if not saved.attributes.get("is_trained_"):
        return {"training": "none"}
    history = epoch_table(saved.attributes.get("history_") or {})
    is_recorded = len(history) or not saved.by_scvi_tools
    text = number_of(len(history), "epoch") if is_recorded else "done; its epochs are not recorded"
    elbo = elbo_of_weights(history, saved.attributes.get("kept_epoch_"))
    text += "" if elbo is None else f", validation ELBO {elbo.value:.2f} ({elbo.where})"
    known = {"recipe": saved.attributes.get("recipe_"), "seed": saved.attributes.get("seed_")}
    return {"training": text, **{name: str(value) for name, value in known.items() if value is not None}}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_in_short(value)}" for name, value in values.items())


def _in_short(value: object) -> str:
    if isinstance(value, np.ndarray | pd.DataFrame):
        return " x ".join(map(str, value.shape))
    return f"({_pairs(value)})" if isinstance(value, dict) else str(value)
