"""``celbo check``: what a file is, where its counts are, which columns could be of use, and which models fit."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import typer
from anndata import AnnData

from ..data import open as open_data
from ..data.count_places import count_places
from ..data.inputs import input_paths
from ..data.modalities import gathered_obs
from ..data.modality_roles import PROTEIN, RNA, ROLES, role_of, roles_of
from ..data.multimodal import feature_tables, open_mudata
from ..formats import Kind as FileKind
from ..formats import recognise
from ..io import is_archive, is_scvi_archive
from ..store.part import ColumnsError
from .errors import UserError, as_options
from .kind import Kind
from .messages import speaking
from .models import MODELS
from .options import ReadingOptions, spelt

__all__ = ["check_files"]

_FILES: Mapping[FileKind, str] = {
    FileKind.HDF5: "in HDF5",
    FileKind.ZARR: "in a zarr store",
    FileKind.ZIP: "in a zipped zarr store",
    FileKind.TENX: "10x .h5",
    FileKind.LOOM: "loom",
    FileKind.MTX: "Matrix Market",
    FileKind.TABLE: "table of text",
}

_BATCH = re.compile(
    r"batch|donor|sample|patient|plate|lane|\brun\b|library|replicate|individual|subject|tech|assay|dataset|study"
    r"|site|channel|chip|slice|system|species",
    re.I,
)
_LABEL = re.compile(
    r"cell.?type|label|annot|cluster|leiden|louvain|lineage|line|class|identity|population|\btype\b", re.I
)

_FIRST_LABEL = re.compile(r"cell.?type", re.I)

_MOST_VALUES = 1000
_SHOWN = 6


class _Columns(NamedTuple):
    """Columns of cells with few values, each with their number, by what their names say."""

    batches: dict[str, int]
    labels: dict[str, int]
    others: dict[str, int]


def check_files(inputs: Sequence[Path], how: ReadingOptions) -> None:
    """Say what files hold and what could be done with them; nothing is trained or written.

    Parameters
    ----------
    inputs
        As of ``train``.
    how
        Modality and orientation.

    Raises
    ------
    UserError
        A saved model instead of data.
    """
    with speaking(quiet=True):
        for path in inputs:
            if any(is_archive(place) or is_scvi_archive(place) for place in (path, path / "model") if place.is_dir()):
                raise UserError(f"{path} holds a saved model, not data: celbo info says what it is.")
        for name, text in _lines(inputs, how):
            typer.echo(f"{name:14}{text}")


def _lines(inputs: Sequence[Path], how: ReadingOptions) -> Iterator[tuple[str, str]]:
    paths = input_paths(list(inputs))
    several = f", the first of {len(paths)} files" if len(paths) > 1 else ""
    kind, tables = recognise(paths[0]), feature_tables(paths[0])
    layout = ("MuData " if tables else "AnnData ") if _FILES[kind].startswith("in ") else ""
    yield "file", f"{paths[0]}: {layout}{_FILES[kind]}{several}"
    if how.modality is None and len(tables) > 1:
        data = open_mudata(paths, stream=True)
        parts = dict(data.mod)
    else:
        data = _opened(paths, how)
        parts = {"": data}
    counts = {name: count_places(adata, "", None) for name, adata in parts.items()}
    for name, adata in parts.items():
        yield ("modality" if name else "cells"), _size(name, adata)
        yield "counts", _where(counts[name], adata)
    columns = _columns(gathered_obs(data))
    yield "batches", _listed(columns.batches) or "no column is named like one"
    yield "labels", _listed(columns.labels) or "no column is named like one"
    if columns.others:
        yield "other columns", _listed(columns.others)
    fitting = list(_fitting(parts, counts, columns))
    yield "models", ", ".join(_with_needs(kind, columns) for kind in fitting) or "none: see docs/models.md for others"
    if fitting:
        yield "to begin", _line(inputs, fitting, next(iter(counts.values())), columns)


def _opened(paths: Sequence[Path], how: ReadingOptions) -> AnnData:
    """The data, on disk where they can stay there."""
    try:
        return open_data(list(paths), stream=True, modality=how.modality, orientation=how.orientation)
    except ColumnsError:
        return open_data(list(paths), modality=how.modality, orientation=how.orientation)


def _size(name: str, adata: AnnData) -> str:
    role = role_of(name, adata.var)
    what = ROLES[role] if role is not None else "features" if name else "genes"
    named = f"{name!r}: " if name else ""
    raw = f"; raw with {adata.raw.n_vars:,}" if adata.raw is not None else ""
    layers = f"; layers {', '.join(map(repr, adata.layers))}" if len(adata.layers) else ""
    tables = f"; obsm {', '.join(map(repr, adata.obsm))}" if len(adata.obsm) else ""
    return f"{named}{adata.n_obs:,} cells x {adata.n_vars:,} {what}{layers}{raw}{tables}"


def _where(places: Sequence[str], adata: AnnData) -> str:
    """Where the counts are, the likeliest place first, as options."""
    found = [as_options(place).replace(" (leave --layer out)", "") for place in places]
    if not found:
        there = ["X"] * (adata.X is not None) + [f"layer {name!r}" for name in adata.layers]
        there += ["raw"] * (adata.raw is not None)
        return f"none: counts are whole and not negative, and {', '.join(there)} is not" if there else "none: no matrix"
    return found[0] + (f"; also {', '.join(found[1:])}" if len(found) > 1 else "")


def _columns(obs: pd.DataFrame) -> _Columns:
    found = _Columns({}, {}, {})
    for name in map(str, obs.columns):
        n_values = _n_values(obs[name])
        if n_values is None or not 2 <= n_values <= min(_MOST_VALUES, max(2, len(obs) // 3)):
            continue
        part = found.batches if _BATCH.search(name) else found.labels if _LABEL.search(name) else found.others
        part[name] = n_values
    first = sorted(found.labels.items(), key=lambda item: not _FIRST_LABEL.search(item[0]))
    return found._replace(labels=dict(first))


def _n_values(column: pd.Series) -> int | None:
    """How many values a column of names or whole numbers has; None for one of other numbers."""
    if column.dtype.kind == "f":
        return None
    return int(column.nunique())


def _listed(columns: Mapping[str, int]) -> str:
    shown = [f"{name} ({n:,})" for name, n in list(columns.items())[:_SHOWN]]
    return ", ".join(shown) + (f", {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")


def _fitting(parts: Mapping[str, AnnData], counts: Mapping[str, Sequence[str]], columns: _Columns) -> Iterator[Kind]:
    """Models that the data have the modalities and columns for, those of most modalities first."""
    roles = set(roles_of({name: adata.var for name, adata in parts.items() if counts[name]}))
    if "" in parts and counts[""]:
        roles |= set() if roles else {RNA}
        roles |= {PROTEIN} if any(role_of(key, pd.DataFrame()) == PROTEIN for key in parts[""].obsm) else set()
    is_known = {"labels_key": bool(columns.labels), "batch_key": bool(columns.batches), "markers": True}
    for kind in sorted(MODELS.values(), key=lambda one: (-len(roles & set(one.roles)), -sum(one.roles.values()))):
        needed = {role for role, is_needed in kind.roles.items() if is_needed}
        has_roles = needed <= roles and len(roles & set(kind.roles)) > 1 if kind.roles else kind.role in roles
        if not kind.takes_counts:
            has_roles = not any(counts.values())
        if has_roles and all(is_known[name] for name in kind.needs):
            yield kind


def _with_needs(kind: Kind, columns: _Columns) -> str:
    likeliest = {"labels_key": next(iter(columns.labels), ""), "batch_key": next(iter(columns.batches), "")}
    needs = [f"{spelt(name)} {likeliest.get(name, 'TABLE.csv')}" for name in kind.needs]
    return f"{kind.name} ({', '.join(needs)})" if needs else kind.name


def _line(inputs: Sequence[Path], fitting: Sequence[Kind], places: Sequence[str], columns: _Columns) -> str:
    """A command line to begin with."""
    kind = next((one for one in fitting if not one.needs), fitting[0])
    words = ["celbo", "train", *map(str, inputs)]
    words += ["--model", kind.name] if kind.name != "scvi" else []
    text = " ".join(map(shlex.quote, words))
    if places and as_options(places[0]).startswith("--") and not kind.roles:
        text += f" {as_options(places[0]).partition(' (')[0]}"
    if columns.batches:
        text += f" --batch-key {shlex.quote(next(iter(columns.batches)))}"
    for name in kind.needs:
        if name == "labels_key":
            text += f" {spelt(name)} {shlex.quote(next(iter(columns.labels)))}"
    return f"{text} -o run"
