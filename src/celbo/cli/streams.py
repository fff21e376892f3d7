"""Commands about data larger than memory: where the input comes from, ``shard`` and ``denoise``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import typer

from ..core import unknown_name
from ..core.replacing import printable
from ..data import open as open_data
from ..formats import ORIENTATIONS
from ..store.progress import tracking
from ..store.writing.shard import shard as write_shard
from .counts import counts_of, place_of_counts
from .errors import UserError
from .messages import speaking
from .models import load
from .options import ReadingOptions
from .output import require_new_file

__all__ = ["DATA_MODES", "denoise", "named", "opened", "shard"]


DATA_MODES: dict[str, bool | None] = {"auto": None, "load": False, "stream": True}
"""What ``--data`` may be, and whether the matrices then stay on disk."""


def opened(inputs: Sequence[Path], how: ReadingOptions, layer: str | None = None, raw: bool = False) -> anndata.AnnData:
    """The AnnData of some files: loaded or streamed, as ``--data`` says; with ``raw`` they must have one."""
    if how.data not in DATA_MODES:
        raise UserError(unknown_name("value of --data", how.data, DATA_MODES))
    if how.orientation not in (None, *ORIENTATIONS):
        raise UserError(unknown_name("value of --orientation", how.orientation, ORIENTATIONS))
    adata = open_data(
        list(inputs),
        stream=DATA_MODES[how.data],
        layers=[] if layer is None else [layer],
        raw=raw,
        modality=how.modality,
        orientation=how.orientation,
    )
    if raw:
        counts_of(adata, None, raw=True)
    return adata


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
    """Write the cells of files in random order to a zarr store; with ``raw`` its counts and genes become ``X``."""
    with speaking(quiet):
        require_new_file(output, overwrite)
        if any(path.resolve().is_relative_to(output.resolve()) for path in inputs):
            raise UserError(f"{output} is the input itself, or holds it: choose another name with -o.")
        if raw and layer is not None:
            raise UserError("--raw and --layer name two matrices: give the one that holds the counts.")
        adata = opened(inputs, how, layer, raw)
        if raw:
            adata = anndata.AnnData(counts_of(adata, layer, raw), obs=adata.obs, var=adata.raw.var)
        with tracking("Sharding") as tell:
            write_shard(adata, output, layer=layer, seed=seed, overwrite=overwrite, progress=tell)
    if not quiet:
        typer.echo(f"{adata.n_obs:,} cells in random order, {adata.n_vars:,} genes: {output}")


def denoise(
    model_dir: Path,
    inputs: Sequence[Path],
    output: Path,
    options: dict[str, Any],
    how: ReadingOptions,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the denoised expression of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    model_dir, inputs, output, how, overwrite, quiet
        As of the other commands.
    options
        ``transform_batch`` and ``gene_list``, empty for none; ``seed``.
    """
    with speaking(quiet):
        require_new_file(output, overwrite)
        model = load(model_dir, "denoised expression", lambda kind: kind.denoises)[1].model
        adata = opened(inputs, how, *place_of_counts(model))
        given = {name: value or None for name, value in options.items() if name != "seed"}
        model.write_normalized_expression(output, adata, seed=options["seed"], overwrite=overwrite, **given)
    if not quiet:
        typer.echo(f"{adata.n_obs:,} cells: denoised expression, each cell's summing to 1, in {output}")
