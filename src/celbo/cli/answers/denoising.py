"""``celbo denoise``: denoised values by a trained model, or counts without those of the ambient RNA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from ...core import number_of
from ..columns import with_values_of
from ..errors import UserError
from ..interrupts import INTERRUPTED
from ..kind import Kind
from ..messages import speaking
from ..models import MODELS, settled
from ..multimodal import findings_of
from ..options import Asked, TrainOptions, spelt
from ..output import new_folder, require_new_file
from ..saved import holds_model
from ..streams import data_to_train
from ..training import check_options, fitted_on
from .asking import answering

__all__ = ["denoise", "remove_ambient", "require_none"]


def denoise(asked: Asked, options: Mapping[str, Any]) -> None:
    """Write the denoised expression of the cells of files; the model's genes are found by name.

    Parameters
    ----------
    asked
        Output ``.h5ad`` or ``.zarr``; of several modalities ``.h5mu`` too.
    options
        ``transform_batch``, ``library_size``, ``gene_list`` and ``seed``; None: not given.

    Raises
    ------
    UserError
        No cells are named, or a kind of file that does not hold what the model denoises.
    """
    if not asked.inputs:
        raise UserError(f"Which cells? Name their files after {asked.model_dir}, or train with --ambient. See --help.")
    with answering(asked, "denoised expression", lambda row: row.denoise is not None) as question:
        said = _written(question.kind, question.fitted.model, question.data, asked, options)
    _say(asked, said)


def remove_ambient(
    asked: Asked, settings: Mapping[str, Any], options: Mapping[str, Any], model_output: Path | None = None
) -> int:
    """Train SCAR on the cells of files with the ambient profile of raw droplets, and write their native counts.

    Parameters
    ----------
    asked
        As of :func:`denoise`; where it has the model's folder stands the first file.
    settings
        Those of :class:`~celbo.cli.options.TrainOptions` that are given.
    options
        As of :func:`denoise`.
    model_output
        Folder for the model; None: it is not kept.

    Returns
    -------
    Exit code: 0, or 130 when training was interrupted (the counts are those of where it ended).

    Raises
    ------
    UserError
        A trained model among the inputs, or what :mod:`celbo.cli.fitting.ambient` refuses.
    """
    inputs = [asked.model_dir, *asked.inputs]
    for path in inputs:
        if holds_model(path):
            raise UserError(f"{path} holds a trained model, and --ambient trains its own: leave one of them out.")
    require_none({name: options[name] for name in ("transform_batch", "library_size")}, "a trained model")
    with speaking(asked.quiet):
        require_new_file(asked.output, asked.overwrite)
        given = settled(TrainOptions(model="scar", **settings, **vars(asked.how)))
        check_options(given)
        kind = MODELS[given.model]
        data, given = data_to_train(kind, inputs, given)
        given = with_values_of(data, given)
        findings_of(data, inputs, given)
        fitted, _ = fitted_on(data, given, asked.quiet, None, None)
        if model_output is not None:
            with new_folder(model_output, asked.overwrite, inputs) as folder:
                fitted.save(folder / "model")
        said = _written(kind, fitted.model, data, asked, options)
    _say(asked, said)
    if not fitted.model.trainer.interrupted:
        return 0
    typer.echo("celbo: interrupted; the counts are by the model as training left it.", err=True)
    return INTERRUPTED


def _written(kind: Kind, model: Any, data: Any, asked: Asked, options: Mapping[str, Any]) -> str:
    """Write what a model denoises; says of how many cells, and what that is."""
    assert kind.denoise is not None
    if asked.output.suffix.lower() == ".h5mu" and not kind.roles:
        raise UserError(
            f"{asked.output} ends in '.h5mu'; {kind.name} denoises one modality: write it to .h5ad or .zarr."
        )
    what = kind.denoise(model, data, asked.output, **options, overwrite=asked.overwrite)
    return f"{number_of(data.n_obs, 'cell')}: {what}"


def _say(asked: Asked, said: str) -> None:
    if not asked.quiet:
        typer.echo(f"{said}, in {asked.output}")


def require_none(given: Mapping[str, object], option: str) -> None:
    """Refuse settings that say nothing without another option, with a ``UserError``."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{spelt(name)} says nothing without {option}: give that too, or leave it out.")
