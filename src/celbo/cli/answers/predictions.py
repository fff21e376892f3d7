"""What a model says of each cell, as a table or as an AnnData.

Dims: n cells, c classes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ...core import number_of
from ...data.modalities import gathered_obs
from ...store.writing.matrix import new_anndata, write_table
from ..errors import UserError
from ..options import Asked, spelt
from ..output import EMBEDDING_KEY
from .asking import writing
from .tables import TABLES, require_output, write_as

__all__ = ["as_table", "predict", "said_of", "write_anndata", "write_predictions"]


def predict(asked: Asked) -> None:
    """Write what a model predicts of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    asked
        Output ``.csv``, ``.tsv``, ``.parquet``: a line a cell; ``.h5ad``: ``obs`` of the input with
        ``celbo_predicted`` and ``celbo_probability`` (missing for cells that the model says nothing about),
        probabilities in ``obsm["celbo_probabilities"]`` and the classes in ``uns["celbo_classes"]``.

    Raises
    ------
    UserError
        The output has another suffix, or the model was trained without labels.
    """
    output = asked.output
    require_output(output, "predictions are", (".h5ad",))
    with writing(asked, "predictions", lambda row: row.predict is not None) as question:
        obs = gathered_obs(question.data)
        probability_nc = question.kind.predicted(question.fitted, question.data)
        if probability_nc is None:
            raise UserError(f"{asked.model_dir} was trained without {spelt(question.kind.predicts_by)}: no labels.")
        if output.suffix in TABLES:
            write_as(output.suffix, question.path, as_table(probability_nc))
        else:
            write_anndata(question.path, obs, probability_nc)
    if not asked.quiet:
        typer.echo(f"{said_of(probability_nc, len(obs))}. {output}")


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


def write_anndata(
    path: Path, obs: pd.DataFrame, probability_nc: pd.DataFrame, latent_nk: np.ndarray | None = None
) -> None:
    """Write predictions into a copy of ``obs`` and beside it, and the latents of the same cells where given."""
    if len(probability_nc) < len(obs):
        probability_nc = probability_nc.reindex(obs.index)
    named = as_table(probability_nc.fillna(-1.0))
    is_known_n = probability_nc.notna().all(axis=1)
    obs = obs.copy(deep=False)
    obs["celbo_predicted"] = pd.Categorical(named["predicted"].where(is_known_n).to_numpy(dtype=object))
    obs["celbo_probability"] = named["probability"].where(is_known_n).to_numpy()
    latents = {} if latent_nk is None else {EMBEDDING_KEY: latent_nk}
    with new_anndata(path, overwrite=True) as root:
        write_table(root, "obs", obs)
        write_table(root, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
        write_table(root, "obsm", {"celbo_probabilities": probability_nc.to_numpy(), **latents})
        write_table(root, "uns", {"celbo_classes": np.array([str(name) for name in probability_nc.columns], object)})


def said_of(probability_nc: pd.DataFrame, n_cells: int) -> str:
    """How many cells have which class, in words."""
    counts = as_table(probability_nc)["predicted"].value_counts()
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.iloc[:8].items())
    more = f", {len(counts) - 8} more" if len(counts) > 8 else ""
    left = n_cells - len(probability_nc)
    out = f"; left out: {number_of(left, 'cell')} of other batches" if left else ""
    return f"{number_of(len(probability_nc), 'cell')}: {shown}{more}{out}"
