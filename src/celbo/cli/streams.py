"""Data larger than memory: where the input comes from, and ``shard``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import typer

from ..core import unknown_name
from ..core.replacing import printable
from ..data import open as open_data
from ..data.modality_roles import ROLES
from ..formats import ORIENTATIONS
from ..store.writing.shard import shard as write_shard
from .counts import counts_of, layers_of
from .errors import UserError
from .kind import Fitted, Kind
from .messages import speaking
from .multimodal import modality_with, named_as_in, names_in, open_contexts, open_modalities
from .options import ReadingOptions, TrainOptions, spelt
from .output import require_new_file
from .saved import require_data

__all__ = ["DATA_MODES", "data_for", "data_to_train", "named", "opened", "shard"]


DATA_MODES: dict[str, bool | None] = {"auto": None, "load": False, "stream": True}
"""What ``--data`` may be, and whether the matrices then stay on disk."""


def opened(
    inputs: Sequence[Path], how: ReadingOptions, layers: Sequence[str] | None = (), raw: bool = False
) -> anndata.AnnData:
    """The AnnData of some files: loaded or streamed, as ``--data`` says; with ``raw`` they must have one.

    Raises a ``UserError`` for an unknown ``--data`` or ``--orientation``, and where ``raw`` is missing.
    """
    stream = _stream(how)
    if how.orientation not in (None, *ORIENTATIONS):
        raise UserError(unknown_name("value of --orientation", how.orientation, ORIENTATIONS))
    adata = open_data(
        list(inputs),
        stream=stream,
        layers=None if layers is None else list(layers),
        raw=raw,
        modality=how.modality,
        orientation=how.orientation,
    )
    if raw:
        counts_of(adata, None, raw=True)
    return adata


def _stream(how: ReadingOptions) -> bool | None:
    if how.data not in DATA_MODES:
        raise UserError(unknown_name("value of --data", how.data, DATA_MODES))
    return DATA_MODES[how.data]


def data_to_train(kind: Kind, inputs: Sequence[Path], options: TrainOptions) -> tuple[Any, TrainOptions]:
    """The AnnData or MuData that a kind of model is trained on, and the settings with the modalities that it is of."""
    require_data(inputs)
    how = _of_memory(kind, options.reading)
    if kind.roles:
        data, where = open_modalities(kind, inputs, how, _stream(how), 2)
        named: Any = where
        return data, replace(options, **named)
    if kind.of_contexts:
        data = open_contexts(kind, inputs, how, _stream(how), options.contexts)
        return data, replace(options, contexts=tuple(data.mod))
    how = _of_one_matrix(kind, inputs, how)
    return opened(inputs, how, None if kind.all_layers else options.layers, options.raw), replace(
        options, modality=how.modality
    )


def data_for(kind: Kind, fitted: Fitted, inputs: Sequence[Path], how: ReadingOptions) -> Any:
    """The AnnData or MuData of cells that a trained model is asked about, its modalities named as the model's are."""
    require_data(inputs)
    model, how = fitted.trained[0], _of_memory(kind, how)
    if kind.of_contexts:
        return open_contexts(kind, inputs, how, _stream(how), model.registry_["setup_args"]["methylation_contexts"])
    if names_in(model):
        mdata, where = open_modalities(kind, inputs, how, _stream(how))
        return named_as_in(model, mdata, where)
    layers, raw = layers_of(model)
    adata = opened(inputs, _of_one_matrix(kind, inputs, how), None if kind.all_layers else layers, raw)
    return adata if kind.prepare is None else kind.prepare(model, adata)


def _of_memory(kind: Kind, how: ReadingOptions) -> ReadingOptions:
    """How the input is read: into memory, where the model needs that."""
    if kind.streams:
        return how
    if how.data == "stream":
        raise UserError(f"{kind.name} needs its data in memory: leave --data stream out.")
    return replace(how, data="load")


def _of_one_matrix(kind: Kind, inputs: Sequence[Path], how: ReadingOptions) -> ReadingOptions:
    """How the input of a model of one matrix is read: its modality found, where none is named."""
    for role in ROLES:
        if getattr(how, role) is not None:
            raise UserError(f"{kind.name} takes one modality: name it with --modality, and leave {spelt(role)} out.")
    return how if how.modality is not None else replace(how, modality=modality_with(inputs, kind))


def named(inputs: Sequence[Path]) -> str:
    """What a run on these files is called."""
    more = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
    return f"{printable(inputs[0].name)}{more}"


def shard(
    inputs: Sequence[Path],
    output: Path,
    layer: str | None,
    seed: int,
    how: ReadingOptions,
    overwrite: bool,
    quiet: bool,
    raw: bool = False,
) -> None:
    """Write the cells of files in random order to a zarr store; with ``raw`` its counts and genes become ``X``.

    Raises a ``UserError`` where the output holds an input, or both ``layer`` and ``raw`` are given.
    """
    with speaking(quiet):
        require_new_file(output, overwrite)
        if any(path.resolve().is_relative_to(output.resolve()) for path in inputs):
            raise UserError(f"{output} is the input itself, or holds it: choose another name with -o.")
        if raw and layer is not None:
            raise UserError("--raw and --layer name two matrices: give the one that holds the counts.")
        adata = opened(inputs, how, [] if layer is None else [layer], raw)
        if raw:
            adata = anndata.AnnData(counts_of(adata, layer, raw), obs=adata.obs, var=adata.raw.var)
        write_shard(adata, output, layer=layer, seed=seed, overwrite=overwrite)
    if not quiet:
        typer.echo(f"{adata.n_obs:,} cells in random order, {adata.n_vars:,} genes: {output}")
