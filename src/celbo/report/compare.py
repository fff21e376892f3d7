"""Several models on one page: which is best at what."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..core import __version__, elbo_of_weights
from .page import Section, page, table, verdict
from .summary import BY_GUESSING, KEPT, MIXED, MIXED_WITHIN, ModelSummary
from .verdict import overall, worst

__all__ = ["comparison"]

_HIGHER = {KEPT, MIXED, MIXED_WITHIN, "iLISI of batches (scaled)", "graph connectivity of labels"}
"""Metrics of which the highest is best."""


def comparison(
    title: str, models: Mapping[str, Any], summaries: Mapping[str, ModelSummary], drawn: Mapping[str, str]
) -> str:
    """The page as text.

    Parameters
    ----------
    title
        Heading.
    models, summaries
        By name.
    drawn
        Pictures of the latent space of each, as HTML.
    """
    first = next(iter(models.values()))
    n_cells = {model.adata.n_obs for model in models.values()}
    same = len(n_cells) == 1
    lead = f"{', '.join(models)}: {first.adata.n_obs:,} cells" if same else f"{', '.join(models)}, of different cells"
    graded = [(name, worst(one.judgements), overall(one.judgements), "") for name, one in summaries.items()]
    gravest = worst([judgement for one in summaries.values() for judgement in one.judgements])
    top = verdict(gravest if all(g == gravest for _, g, _, _ in graded) else "amber", "Each model by itself:", graded)
    text = "The best of each row is marked. ELBOs compare only between models of the same likelihood and data."
    sections = [
        Section("In figures", text, table(["", *models], list(_rows(summaries)))),
        Section("Question by question", "Grade and finding of each.", table(["", *models], list(_answers(summaries)))),
    ]
    for name, pictures in drawn.items():
        what = f"{len(summaries[name].place_n2):,} cells laid out by their nearest neighbours in the latent space."
        if len(summaries[name].place_n2):
            sections.append(Section(f"Latent space of {name}", what, f'<div class="pair">{pictures}</div>'))
    return page(title, lead, top, sections, f"Written by celbo {__version__}.")


def _rows(summaries: Mapping[str, ModelSummary]) -> Iterator[list[str]]:
    """Name of a figure, and its text for each model, the best one marked."""
    yield ["epochs", *(f"{len(one.history):,}" for one in summaries.values())]
    elbos = {name: elbo_of_weights(one.history, one.kept_epoch) for name, one in summaries.items()}
    elbo = {name: one.value for name, one in elbos.items() if one is not None}
    yield from _row("negative validation ELBO (nats per cell)", summaries, elbo, min, "{:.2f}")
    yield ["active latent dimensions", *(f"{int(one.is_active_k.sum())}" for one in summaries.values())]
    for metric in dict.fromkeys(name for one in summaries.values() for name in one.metrics):
        values = {name: one.metrics[metric] for name, one in summaries.items() if metric in one.metrics}
        yield from _row(metric, summaries, values, max if metric in _HIGHER else None, "{:.3f}")
    fits = {name: one.fit for name, one in summaries.items() if one.fit is not None}
    change = {name: 2**fit.median_change for name, fit in fits.items()}
    zeros = {name: fit.mean_gap_of_zeros for name, fit in fits.items()}
    yield from _row("means of genes, off by a factor (median)", summaries, change, min, "{:.3f}")
    yield from _row("shares of zeros, off by (mean)", summaries, zeros, min, "{:.4f}")


def _row(
    title: str,
    names: Mapping[str, object],
    values: Mapping[str, float],
    best_of: Callable[..., float] | None,
    form: str,
) -> Iterator[list[str]]:
    if not values:
        return
    best = best_of(values.values()) if best_of is not None and len(values) > 1 and title != BY_GUESSING else None
    marked = {name: form.format(value) + " (best)" * (value == best) for name, value in values.items()}
    yield [title, *(marked.get(name, "") for name in names)]


def _answers(summaries: Mapping[str, ModelSummary]) -> Iterator[list[str]]:
    for question in dict.fromkeys(j.question for one in summaries.values() for j in one.judgements):
        found = [next((j for j in one.judgements if j.question == question), None) for one in summaries.values()]
        yield [question, *("" if j is None else f"{j.grade}: {j.finding}" for j in found)]
