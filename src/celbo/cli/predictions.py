"""What a model says of each cell, as a table or as an AnnData.

Dims: n cells, c classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ..data.modalities import gathered_obs
from ..store.writing.matrix import new_anndata, write_table
from .messages import speaking
from .models import load
from .options import ReadingOptions
from .output import new_file, require_suffix
from .streams import data_for

__all__ = ["as_table", "predict", "write_predictions"]

_SUFFIXES = (".csv", ".h5ad")


def predict(
    model_dir: Path, inputs: Sequence[Path], output: Path, how: ReadingOptions, overwrite: bool, quiet: bool
) -> None:
    """Write what a model predicts of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    model_dir, inputs, how, overwrite, quiet
        As of the other commands.
    output
        ``.csv``: a line a cell; ``.h5ad``: ``obs`` of the input with ``celbo_predicted`` and ``celbo_probability``
        (missing for cells that the model says nothing about), probabilities in ``obsm["celbo_probabilities"]`` and the
        classes in ``uns["celbo_classes"]``.
    """
    require_suffix(output, _SUFFIXES, f"predictions are written as {' or '.join(_SUFFIXES)}")
    with speaking(quiet), new_file(output, overwrite) as path:
        kind, fitted = load(model_dir, "predictions", lambda row: row.predict is not None)
        assert kind.predict is not None
        adata = data_for(kind, fitted, inputs, how)
        obs = gathered_obs(adata).copy(deep=False)
        probability_nc = kind.predict(fitted, adata)
        if output.suffix == ".csv":
            write_predictions(path, probability_nc)
        else:
            _write_anndata(path, obs, probability_nc)
    if not quiet:
        typer.echo(_said(probability_nc, len(obs), output))


def as_table(probability_nc: pd.DataFrame) -> pd.DataFrame:
    """The most probable class of each cell, its probability, and the probabilities of all classes."""
    names = np.array([str(name) for name in probability_nc.columns], dtype=object)
    values_nc = probability_nc.to_numpy()
    first = pd.DataFrame(
        {"predicted": names[values_nc.argmax(1)], "probability": values_nc.max(1)}, index=probability_nc.index
    )
    return pd.concat([first, probability_nc.set_axis(names, axis=1)], axis=1).rename_axis("cell")


def write_predictions(path: Path, probability_nc: pd.DataFrame) -> None:
    """Write :func:`as_table` as CSV."""
    as_table(probability_nc).to_csv(path)


def _write_anndata(path: Path, obs: pd.DataFrame, probability_nc: pd.DataFrame) -> None:
    if len(probability_nc) < len(obs):
        probability_nc = probability_nc.reindex(obs.index)
    named = as_table(probability_nc.fillna(-1.0))
    is_known_n = probability_nc.notna().all(axis=1)
    obs["celbo_predicted"] = pd.Categorical(named["predicted"].where(is_known_n).to_numpy(dtype=object))
    obs["celbo_probability"] = named["probability"].where(is_known_n).to_numpy()
    with new_anndata(path, overwrite=True) as root:
        write_table(root, "obs", obs)
        write_table(root, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
        write_table(root, "obsm", {"celbo_probabilities": probability_nc.to_numpy()})
        write_table(root, "uns", {"celbo_classes": np.array([str(name) for name in probability_nc.columns], object)})


def _said(probability_nc: pd.DataFrame, n_cells: int, output: Path) -> str:
    counts = as_table(probability_nc)["predicted"].value_counts()
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.iloc[:8].items())
    more = f", {len(counts) - 8} more" if len(counts) > 8 else ""
    left = n_cells - len(probability_nc)
    out = f"; {left:,} cells of other batches are left out" if left else ""
    return f"{len(probability_nc):,} cells: {shown}{more}{out}. {output}"
