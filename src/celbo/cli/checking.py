"""``celbo check``: what a file is, where its counts are, which columns could be of use, and which models fit."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer
from anndata import AnnData

from ..choosing.found import Columns, Found, look_at
from ..choosing.which import fitting
from ..core import number_of
from ..data.inputs import input_paths
from ..data.modality_roles import ROLES, role_of
from ..data.multimodal import feature_tables, open_mudata
from ..formats import Kind as FileKind
from ..formats import recognise
from .counts import opened_on_disk
from .errors import as_options
from .estimating import estimates, size_of
from .kind import Kind
from .messages import speaking
from .models import MODELS
from .options import ReadingOptions, spelt
from .saved import require_data

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

_SHOWN = 6


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
        require_data(inputs)
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
    else:
        data = opened_on_disk(paths, how.modality, how.orientation)
    found = look_at(data)
    for name, adata in found.parts.items():
        yield ("modality" if name else "cells"), _size(name, adata)
        yield "counts", _where(found.counts[name], adata)
    columns = found.columns
    yield "batches", _listed(columns.batches) or "no column is named like one"
    yield "labels", _listed(columns.labels) or "no column is named like one"
    if columns.others:
        yield "other columns", _listed(columns.others)
    kinds = _trained_here(found)
    yield "models", ", ".join(_with_needs(kind, columns) for kind in kinds) or "none: see docs/models.md for others"
    if others := _in_python(found):
        yield "in Python", f"{others}: celbo.which(adata) says more"
    if kinds:
        batches = next(iter(columns.batches.values()), 1)
        yield from estimates(size_of(list(found.parts.values()), batches), kinds)
        yield "to begin", _line(inputs, kinds, next(iter(found.counts.values())), columns)


def _size(name: str, adata: AnnData) -> str:
    role = role_of(name, adata.var)
    what = ROLES[role] if role is not None else "features" if name else "genes"
    named = f"{name!r}: " if name else ""
    raw = f"; raw with {adata.raw.n_vars:,}" if adata.raw is not None else ""
    layers = f"; layers {', '.join(map(repr, adata.layers))}" if len(adata.layers) else ""
    tables = f"; obsm {', '.join(map(repr, adata.obsm))}" if len(adata.obsm) else ""
    return f"{named}{number_of(adata.n_obs, 'cell')} x {adata.n_vars:,} {what}{layers}{raw}{tables}"


def _where(places: Sequence[str], adata: AnnData) -> str:
    """Where the counts are, the likeliest place first, as options."""
    found = [as_options(place).replace(" (leave --layer out)", "") for place in places]
    if not found:
        there = ["X"] * (adata.X is not None) + [f"layer {name!r}" for name in adata.layers]
        there += ["raw"] * (adata.raw is not None)
        return (
            f"none: counts are whole, not negative and not all zero, and {', '.join(there)} is not"
            if there
            else "none: no matrix"
        )
    return found[0] + (f"; also {', '.join(found[1:])}" if len(found) > 1 else "")


def _listed(columns: Mapping[str, int]) -> str:
    shown = [f"{name} ({n:,})" for name, n in list(columns.items())[:_SHOWN]]
    return ", ".join(shown) + (f", {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")


def _trained_here(found: Found) -> list[Kind]:
    """Models of the command line that the data have all for, in the order of :func:`~celbo.choosing.which.fitting`."""
    by_class = {kind.cls.__name__: kind for kind in MODELS.values()}
    return [by_class[name] for choice in fitting(found) for name in choice.classes if name in by_class]


def _in_python(found: Found) -> str:
    """Models that fit and are not of the command line."""
    here = {kind.cls.__name__ for kind in MODELS.values()}
    names = [choice.classes[0] for choice in fitting(found) if not choice.brings and not here & set(choice.classes)]
    return ", ".join(names)


_PLACEHOLDERS = {
    "markers": "TABLE.csv",
    "fasta": "GENOME.fa",
    "reference": "FILE",
    "embedding_key": "KEY",
    "background_category": "VALUE",
    "spliced_layer": "LAYER",
    "unspliced_layer": "LAYER",
}


def _with_needs(kind: Kind, columns: Columns) -> str:
    named = {"labels_key": columns.labels, "batch_key": columns.batches, "sample_key": columns.samples}
    likeliest = {name: next(iter(some)) for name, some in named.items() if some}
    known = {**_PLACEHOLDERS, **likeliest}
    needs = [f"{spelt(name)} {known.get(name, 'COLUMN')}" for name in kind.needs]
    return f"{kind.name} ({', '.join(needs)})" if needs else kind.name


def _line(inputs: Sequence[Path], kinds: Sequence[Kind], places: Sequence[str], columns: Columns) -> str:
    """A command line to begin with."""
    suited = [one for one in kinds if not one.needs and (one.takes_counts or one.of_contexts or not places)]
    kind = next(iter(suited), kinds[0])
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
