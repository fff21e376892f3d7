"""``celbo report``: what a trained model is worth on cells of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ...core.replacing import printable
from ...report import ModelSummary, model_report
from ...report.verdict import overall, worst
from ..messages import speaking
from ..models import load
from ..options import ReadingOptions
from ..output import require_new_file, require_suffix
from ..streams import data_for, named

__all__ = ["report", "say_verdict", "verdict_of"]

_SUFFIXES = (".html", ".json")


def report(
    model_dir: Path, inputs: Sequence[Path], output: Path, how: ReadingOptions, overwrite: bool, quiet: bool
) -> None:
    """Write the report of a trained model on the cells of files; the model's genes are found by name.

    Parameters
    ----------
    model_dir, inputs, how, overwrite, quiet
        As of the other commands.
    output
        ``.html``: a page with pictures; ``.json``: the verdict and the figures.

    Raises
    ------
    UserError
        Another suffix, or a model that is made of another one, whose report is written with its training.
    """
    require_suffix(output, _SUFFIXES, f"a report is written as {' or '.join(_SUFFIXES)}")
    with speaking(quiet):
        require_new_file(output, overwrite)
        kind, fitted = load(model_dir, "report", lambda row: not row.parts)
        fitted.model.adata = data_for(kind, fitted, inputs, how)
        summary = model_report(fitted.model, output, title=f"{kind.name} on {named(inputs)}")
    if not quiet:
        say_verdict(verdict_of(summary))
        typer.echo(f"Report: {printable(output)}")


def verdict_of(summary: ModelSummary) -> dict[str, Any]:
    """What the report thinks of it."""
    answers = [vars(one) for one in summary.judgements]
    return {"grade": worst(summary.judgements), "sentence": overall(summary.judgements), "answers": answers}


def say_verdict(verdict: dict[str, Any]) -> None:
    """The sentence, and each answer that is not green."""
    typer.echo(f"Verdict: {verdict['sentence']}")
    for one in verdict["answers"]:
        if one["grade"] != "green":
            typer.echo(f"  {one['grade']}: {one['question']} {one['finding']}")
