"""``celbo embed``: cells in the latent space of a trained model.

Dims: n cells, k latents.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from ...core import number_of
from ...data.modalities import gathered_obs
from ...store.writing.matrix import MatrixWriter, new_anndata, write_table
from ..kind import Fitted, Kind
from ..options import Asked
from ..output import EMBEDDING_KEY
from .asking import writing
from .tables import TABLES, require_output, write_as

__all__ = ["embed", "embedded", "latent_table", "write_embedding"]

_EMBEDDED_AT_ONCE = 2**18


def embed(asked: Asked) -> None:
    """Write the latent representation of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    asked
        Output ``.h5ad``: ``obs`` of the input, and the latents in ``obsm["X_celbo"]``; ``.csv``, ``.tsv``,
        ``.parquet``: a line a cell, a column each latent dimension.
    """
    output = asked.output
    require_output(output, "the embedding is", (".h5ad",))
    with writing(asked, "latent space", lambda row: row.embed is not None) as question:
        obs = gathered_obs(question.data).copy(deep=False)
        blocks = embedded(question.kind, question.fitted, question.data, len(obs))
        if output.suffix in TABLES:
            latent_nk = np.concatenate(list(blocks))
            write_as(output.suffix, question.path, latent_table(latent_nk, obs.index))
            n_latent = latent_nk.shape[1]
        else:
            n_latent = write_embedding(question.path, obs, blocks)
    if not asked.quiet:
        where = "in" if output.suffix in TABLES else f"obsm[{EMBEDDING_KEY!r}] in"
        typer.echo(f"{number_of(len(obs), 'cell')}, {number_of(n_latent, 'latent dimension')}: {where} {output}")


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
