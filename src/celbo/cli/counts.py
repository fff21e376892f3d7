"""Which matrix of the input holds the counts, and what they are like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import typer

from ..data import CountReport, Finding, StoredMatrix, check_counts
from ..data import open as open_data
from ..data.access import which_layer
from ..data.count_places import count_places
from ..io.scvitools.read import OTHER_REGISTRIES
from ..store.part import ColumnsError
from ..store.progress import tracking
from .errors import UserError, as_options
from .options import LAYERS

__all__ = ["counts_of", "findings", "genes_of", "layers_of", "opened_on_disk", "place_of_counts"]


def place_of_counts(model: Any) -> tuple[str | None, bool]:
    """The layer that a model was set up with, and whether it was ``raw``."""
    arguments = model.registry_["setup_args"]
    return arguments.get("layer"), bool(arguments.get("use_raw", False))


def layers_of(model: Any) -> tuple[list[str], bool]:
    """All layers that a model was set up with, and whether it was with ``raw``; of two data sets with those of both."""
    registries = [model.registry_, *model.registry_.get(OTHER_REGISTRIES, ())]
    given = [one["setup_args"] for one in registries]
    layers = [one[name] for one in given for name in LAYERS if one.get(name)]
    return layers, any(one.get("use_raw", False) for one in given)


def counts_of(adata: anndata.AnnData, layer: str | None, raw: bool) -> Any:
    """The matrix that is meant; a :class:`UserError` where the input has no such thing."""
    if raw and adata.raw is None:
        raise UserError(f"The input has no raw to take the counts from. {which_layer(adata.layers)}")
    x = adata.raw.X if raw else adata.X if layer is None else adata.layers[layer]
    if x is None:
        has_raw = " There is a raw too: --raw." if adata.raw is not None else ""
        raise UserError(f"The input has no X. {which_layer(adata.layers)}{has_raw}")
    return x


def genes_of(adata: anndata.AnnData, raw: bool) -> Any:
    """Names of the columns of that matrix."""
    return adata.raw.var_names if raw else adata.var_names


def opened_on_disk(
    inputs: Sequence[Path], modality: str | None = None, orientation: str | None = None
) -> anndata.AnnData:
    """The data, on disk where they can stay there; arguments as of ``celbo.data.open``."""
    try:
        return open_data(list(inputs), stream=True, modality=modality, orientation=orientation)
    except ColumnsError:
        return open_data(list(inputs), modality=modality, orientation=orientation)


def findings(
    adata: anndata.AnnData, inputs: Sequence[Path], layer: str | None, raw: bool, of_part: str = ""
) -> list[Finding]:
    """What the counts are like; an error where no model can be trained on them.

    Values that are no counts are said whatever else the command says, with the file that they are in, and where the
    counts are; ``of_part`` names the modality, where the data have several.
    """
    try:
        x = counts_of(adata, layer, raw)
    except UserError:
        counts_of(_whole(adata, inputs), layer, raw)  # the same, with all the layers that there are
        raise
    where = ("raw" if raw else "X" if layer is None else f"layer {layer!r}") + of_part
    with tracking(f"Reading {where}", "rows") as progress:
        report = check_counts(x, obs_names=adata.obs_names, var_names=genes_of(adata, raw), progress=progress)
    elsewhere = None
    if not (report.is_counts and report.nnz):
        whole = _whole(adata, inputs)
        elsewhere = count_places(whole, "raw" if raw else "X" if layer is None else "layers", layer)
        where += _of_files(report, counts_of(whole, layer, raw), inputs)
    report.raise_if_bad(where, elsewhere)
    found = report.findings(where, elsewhere)
    for finding in found:
        if finding.severity == "warning":
            typer.echo(f"celbo: {as_options(str(finding))}", err=True)
    return found


def _whole(adata: anndata.AnnData, inputs: Sequence[Path]) -> anndata.AnnData:
    """The input with all its layers and ``raw``, on disk; as it was opened, where that cannot be."""
    try:
        return open_data(list(inputs), stream=True) if inputs else adata
    except (ValueError, LookupError, OSError):
        return adata


def _of_files(report: CountReport, x: object, inputs: Sequence[Path]) -> str:
    """The files with the cells that have such values, as part of a sentence."""
    if not isinstance(x, StoredMatrix) or len(x.parts) < 2:
        return f" of {inputs[0]}" if len(inputs) == 1 else ""
    stops = np.cumsum([part.shape[0] for part in x.parts])
    starts = stops - [part.shape[0] for part in x.parts]
    named = [str(p.path) for p, a, b in zip(x.parts, starts, stops) if report.bad_cells[a:b].any()]
    return f" of {', '.join(named[:5])}{', ...' if len(named) > 5 else ''}" if named else ""
