"""``celbo report``: what a trained model is worth on cells of files."""

from typing import Any

import typer

from ...core.replacing import printable
from ...report import ModelSummary, model_report
from ...report.verdict import overall, worst
from ..options import Asked
from ..output import require_suffix
from ..streams import named
from .asking import answering

__all__ = ["report", "say_verdict", "verdict_of"]

_SUFFIXES = (".html", ".json")


def report(asked: Asked) -> None:
    """Write the report of a trained model on the cells of files; the model's genes are found by name.

    Parameters
    ----------
    asked
        Output ``.html``: a page with pictures; ``.json``: the verdict and the figures.

    Raises
    ------
    UserError
        Another suffix, or a model that is made of another one or of two data sets, whose report is written with its
        training.
    """
    require_suffix(asked.output, _SUFFIXES, f"a report is written as {' or '.join(_SUFFIXES)}")
    with answering(asked, "report", lambda row: not (row.parts or row.is_of_two_sets)) as question:
        question.fitted.model.adata = question.data
        title = f"{question.kind.name} on {named(asked.inputs)}"
        summary = model_report(question.fitted.model, asked.output, title=title)
    if not asked.quiet:
        say_verdict(verdict_of(summary))
        typer.echo(f"Report: {printable(asked.output)}")


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
