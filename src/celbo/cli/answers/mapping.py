"""``celbo map``: new cells on a trained reference, whose cells stay where they are.

Dims: n cells, k latents.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from ...core import number_of, unknown_name
from ...data.modalities import gathered_obs, is_mudata
from ...train import RECIPES
from ..errors import UserError
from ..interrupts import INTERRUPTED
from ..kind import Fitted, Kind
from ..multimodal import is_on_disk
from ..options import Asked
from ..output import EMBEDDING_KEY, new_folder
from .asking import writing
from .embedding import embedded, latent_table, write_embedding
from .predictions import as_table, said_of, write_anndata
from .tables import TABLES, require_output, write_as

__all__ = ["map_query"]


def map_query(asked: Asked, training: Mapping[str, Any], model_output: Path | None = None) -> int:
    """Map the cells of files onto a trained model and write where they lie, and their labels if it predicts some.

    Parameters
    ----------
    asked
        Output ``.h5ad``: ``obs`` of the input and the latents in ``obsm["X_celbo"]``; of a model of labels what
        ``predict`` writes, too. ``.csv``, ``.tsv``, ``.parquet``: a line a cell with the same.
    training
        Arguments of ``train``; None: not given.
    model_output
        Folder for the model of the query; None: it is not kept.

    Returns
    -------
    Exit code: 0, or 130 when training was interrupted (the cells lie where it ended).

    Raises
    ------
    UserError
        Another suffix, an unknown recipe, or a model that takes no query.
    """
    require_output(asked.output, "mapped cells are", (".h5ad",))
    if training["recipe"] not in (None, *RECIPES):
        raise UserError(unknown_name("value of --recipe", training["recipe"], RECIPES))
    with writing(asked, "query mapping", lambda row: row.maps) as question:
        mapped = Fitted(_mapped(question.fitted.model, question.data))
        given = {name: value for name, value in training.items() if value is not None}
        mapped.model.train(**given, verbose=0 if asked.quiet else 1)
        if model_output is not None:
            with new_folder(model_output, asked.overwrite, asked.inputs) as folder:
                mapped.save(folder / "model")
        said = _write(asked.output.suffix, question.path, question.kind, mapped, gathered_obs(question.data))
    if not asked.quiet:
        typer.echo(f"{said}, in {asked.output}")
    if not mapped.model.trainer.interrupted:
        return 0
    typer.echo("celbo: interrupted; the cells lie where training ended.", err=True)
    return INTERRUPTED


def _mapped(reference: Any, data: Any) -> Any:
    """The model of a query. Genes that it lacks count as zero, unless it stays on disk."""
    cls = type(reference)
    if is_on_disk(data):
        return cls.load_query_data(data, reference)
    prepare = cls.prepare_query_mudata if is_mudata(data) else cls.prepare_query_anndata
    return cls.load_query_data(prepare(data, reference, inplace=False), reference)


def _write(suffix: str, path: Path, kind: Kind, mapped: Fitted, obs: pd.DataFrame) -> str:
    """Write what is known of the mapped cells; says what."""
    blocks = embedded(kind, mapped, None, len(obs))
    probability_nc = kind.predicted(mapped)
    if suffix in TABLES:
        latent_nk = np.concatenate(list(blocks))
        tables = [] if probability_nc is None else [as_table(probability_nc)]
        write_as(suffix, path, pd.concat([*tables, latent_table(latent_nk, obs.index)], axis=1).rename_axis("cell"))
        said = _said(len(obs), latent_nk.shape[1]) if probability_nc is None else said_of(probability_nc, len(obs))
        return f"{said}: a line a cell"
    if probability_nc is None:
        return f"{_said(len(obs), write_embedding(path, obs, blocks))}: obsm[{EMBEDDING_KEY!r}]"
    write_anndata(path, obs, probability_nc, np.concatenate(list(blocks)))
    return f"{said_of(probability_nc, len(obs))}: obsm[{EMBEDDING_KEY!r}] and obs['celbo_predicted']"


def _said(n_cells: int, n_latent: int) -> str:
    return f"{number_of(n_cells, 'cell')} mapped, {number_of(n_latent, 'latent dimension')}"
