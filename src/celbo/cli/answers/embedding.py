"""``celbo embed``: cells in the latent space of a trained model.

Dims: n cells, k latents.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from ...data.modalities import gathered_obs
from ...store.writing.matrix import MatrixWriter, new_anndata, write_table
from ..kind import Fitted, Kind
from ..messages import speaking
from ..models import load
from ..options import ReadingOptions
from ..output import new_file
from ..streams import data_for
from .tables import TABLES, require_output, write_as

__all__ = ["EMBEDDING_KEY", "embed", "embedded", "latent_table", "write_embedding"]

EMBEDDING_KEY = "X_celbo"
"""Where the latent representation lies in ``obsm``."""

_EMBEDDED_AT_ONCE = 2**18


def embed(
    model_dir: Path, inputs: Sequence[Path], output: Path, how: ReadingOptions, overwrite: bool, quiet: bool
) -> None:
    """Write the latent representation of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    model_dir, inputs, how, overwrite, quiet
        As of the other commands.
    output
        ``.h5ad``: ``obs`` of the input, and the latents in ``obsm["X_celbo"]``; ``.csv``, ``.tsv``, ``.parquet``: a
        line a cell, a column each latent dimension.
    """
    require_output(output, "the embedding is", (".h5ad",))
    with speaking(quiet), new_file(output, overwrite) as path:
        kind, fitted = load(model_dir, "latent space", lambda row: row.embed is not None)
        assert kind.embed is not None
        adata = data_for(kind, fitted, inputs, how)
        obs = gathered_obs(adata).copy(deep=False)
        blocks = embedded(kind, fitted, adata, len(obs))
        if output.suffix in TABLES:
            latent_nk = np.concatenate(list(blocks))
            write_as(output.suffix, path, latent_table(latent_nk, obs.index))
            n_latent = latent_nk.shape[1]
        else:
            n_latent = write_embedding(path, obs, blocks)
    if not quiet:
        where = "in" if output.suffix in TABLES else f"obsm[{EMBEDDING_KEY!r}] in"
        typer.echo(f"{len(obs):,} cells, {n_latent} latent dimensions: {where} {output}")


def embedded(kind: Kind, fitted: Fitted, adata: Any, n: int) -> Iterator[np.ndarray]:
    """Latents of all cells, some at a time."""
    assert kind.embed is not None
    for start in range(0, n, _EMBEDDED_AT_ONCE):
        yield kind.embed(fitted, adata, np.arange(start, min(start + _EMBEDDED_AT_ONCE, n)))


def write_embedding(path: Path, obs: pd.DataFrame, blocks: Iterator[np.ndarray]) -> int:
    """Write latents and ``obs`` as they come; says how many latents a cell has."""
    first = next(blocks)
    with new_anndata(path, overwrite=True) as root:
        writer = MatrixWriter(root["obsm"], len(obs), first.shape[1], EMBEDDING_KEY)
        for block in itertools.chain([first], blocks):
            writer.append(block)
        write_table(root, "obs", obs)
        write_table(root, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
    return first.shape[1]


def latent_table(latent_nk: np.ndarray, cells: pd.Index) -> pd.DataFrame:
    """Latents as a table, cells by ``latent_0``, ``latent_1``, ..."""
    names = [f"latent_{k}" for k in range(latent_nk.shape[1])]
    return pd.DataFrame(latent_nk, index=pd.Index(cells.to_numpy(dtype=object), name="cell"), columns=names)
