"""The report of a trained model: its summary, judged, drawn and written as one page, or as JSON."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ..core import __version__, checked, elbo_of_weights
from ..core.kinds import Instance
from ..core.replacing import building, printable
from ..data import Finding, check_counts
from ..data.access import place
from ..data.constants import RAW
from ..data.count_places import count_places
from ..data.fields import LayerField
from . import figures
from .compare import comparison
from .document import as_json
from .models import row_of
from .page import Section, legend, notes, page, picture, table, tiles, verdict
from .summary import ModelSummary, has_counts, summarise
from .verdict import FINDINGS, judge, overall, worst

__all__ = ["model_report", "render"]

logger = logging.getLogger("celbo")

_FIGURES = Instance(
    "a mapping of names to numbers",
    lambda value: isinstance(value, Mapping) and all(isinstance(one, Real) for one in value.values()),
)


def _is_model(value: object) -> bool:
    return hasattr(value, "module") and hasattr(value, "history")


def _are_models(value: object) -> bool:
    named = value.values() if isinstance(value, Mapping) else value
    return isinstance(named, Iterable) and bool(found := list(named)) and all(map(_is_model, found))


_A_MODEL = Instance("a trained model", _is_model)
_MODELS = Instance("a list of trained models, or a mapping of names to such", _are_models)


@checked
def model_report(
    model: Annotated[Any, _A_MODEL] = None,
    path: str | Path | None = None,
    *,
    models: Annotated[Any, _MODELS] = None,
    title: str | None = None,
    findings: Annotated[Sequence[Finding], FINDINGS] | None = None,
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    before: Annotated[Mapping[str, float], _FIGURES] | None = None,
    seed: int = 0,
) -> Any:
    """Judge what came of a training, and write it as one HTML file, pictures inside, readable offline; or as JSON.

    Parameters
    ----------
    model
        A trained model with its data. Batches and labels are those of its setup; what the page shows beside curves and
        latents (confusion matrix, markers, topics, proportions, ...) stands in :data:`celbo.report.models.ROWS`.
    path
        The file; one that is there is replaced when the new one is complete. ``.json``: the figures and the verdict
        without pictures.
    models
        Instead of ``model``: several, as a list or by name, to be compared on one page.
    title
        Heading; the class of the model when not given.
    findings
        What the check of the counts found; None: they are checked here, where the model's data are counts.
    settings, versions
        Rows of the last table.
    before
        Metrics of another latent space of the same cells, to stand beside those of this model.
    seed
        Of the cells drawn, the counts predicted and the picture of the latent space.

    Returns
    -------
    The :class:`ModelSummary`: the numbers behind the pictures, and the ``judgements``. With ``models`` one for each, by
    name.

    Raises
    ------
    ValueError
        For a model that was loaded without data; without ``path``; with both ``model`` and ``models``, or neither.
    IsADirectoryError
        ``path`` is a folder.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.model.SCVI(adata)
    >>> model.train(max_epochs=2, verbose=0)
    >>> summary = celbo.report.model_report(model, "report.html")
    >>> len(summary.kl_k)
    10
    >>> summary.judgements[0].question
    'Did training converge?'
    """
    if path is None:
        raise ValueError("path= must name the file to write, such as 'report.html'.")
    if (model is None) == (models is None):
        raise ValueError("Give one model, or models= to compare several.")
    require_file_name(Path(path))
    if models is not None:
        return _compared(_by_name(models), Path(path), title, seed)
    summary, findings = _judged(model, findings, seed)
    title = title or type(model).__name__
    if Path(path).suffix == ".json":
        more = {"settings": dict(settings or {}), "versions": dict(versions or {}), "before": dict(before or {})}
        write_text(Path(path), as_json(title, model, summary, findings, more))
    else:
        write_text(Path(path), render(model, summary, title, findings, settings or {}, versions or {}, before or {}))
    return summary


def _judged(model: Any, findings: Sequence[Finding] | None, seed: int) -> tuple[ModelSummary, Sequence[Finding] | None]:
    """The summary with its judgements, and what the check of the counts found."""
    summary = summarise(model, seed=seed)
    counts = "X" in model.adata_manager.data_registry  # a MuData may have none of genes
    if findings is None and counts and row_of(model).takes_counts and has_counts(model):
        findings = count_findings(model)
    return dataclasses.replace(summary, judgements=judge(summary, findings)), findings


def _by_name(models: Any) -> dict[str, Any]:
    """Models by name; those of a list by their class, numbered where it comes twice."""
    if isinstance(models, Mapping):
        return {str(name): model for name, model in models.items()}
    found: dict[str, Any] = {}
    for model in models:
        name, number = type(model).__name__, 2
        while name in found:
            name, number = f"{type(model).__name__} {number}", number + 1
        found[name] = model
    return found


def _compared(models: Mapping[str, Any], path: Path, title: str | None, seed: int) -> dict[str, ModelSummary]:
    """Write the page that compares models."""
    judged = {name: _judged(model, None, seed) for name, model in models.items()}
    summaries = {name: summary for name, (summary, _) in judged.items()}
    title = title or f"{len(models)} models compared"
    if path.suffix == ".json":
        text = as_json(title, models, summaries)
    else:
        drawn = {name: latent_pictures(summary) for name, summary in summaries.items()}
        text = comparison(title, models, summaries, drawn)
    write_text(path, text)
    return summaries


def count_findings(model: Any) -> list[Finding]:
    """What the check of the training counts finds."""
    where, x = model.adata_manager.data_registry["X"], model.adata_manager.get_from_registry("X")
    modality = where.get("mod_key")
    adata = model.adata if modality is None else model.adata.mod[modality]
    names = LayerField("X", None, use_raw=where["attr_name"] == RAW)
    report = check_counts(x, obs_names=adata.obs_names, var_names=names.column_names(adata))
    elsewhere = None if report.is_counts and report.nnz else count_places(adata, where["attr_name"], where["attr_key"])
    holder = "adata" if modality is None else f"mdata.mod[{modality!r}]"
    return report.findings(place(where["attr_name"], where["attr_key"], holder), elsewhere)


def require_file_name(path: Path) -> None:
    """Refuse a report whose path is a folder, before anything is computed for it."""
    if path.is_dir():
        raise IsADirectoryError(f"The report cannot be written to the folder {printable(path)}: name a file in it.")


def write_text(path: Path, text: str) -> None:
    """Write a file so that there is a whole one at every moment; its folder is made where there is none."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with building(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def render(
    model: Any,
    summary: ModelSummary,
    title: str,
    findings: Sequence[Finding] | None,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    before: Mapping[str, float],
) -> str:
    """The page as text."""
    stats, row = model.summary_stats, row_of(model)
    n_cells = stats["n_cells"] if model.adata is None else model.adata.n_obs
    n_features = len(model.get_var_names(legacy_mudata_format=True))
    lead = f"{type(model).__name__}: {n_cells:,} {row.of[0]}, {n_features:,} {row.of[1]}"
    lead += f", {stats['n_batch']:,} batches" if stats.get("n_batch", 1) > 1 else ""
    builders: list[tuple[str, Callable[[], Iterable[Section]]]] = [
        ("The data", lambda: _data(summary, row.of)),
        ("What the model says", lambda: summary.detail.sections() if summary.detail is not None else ()),
        ("Latent space", lambda: _latent(summary)),
        ("Labels and batches", lambda: _quality(summary, before)),
        ("Training", lambda: [_training(summary, row.curves)]),
        ("Latent dimensions", lambda: _dimensions(summary)),
        ("Counts, observed and predicted", lambda: _genes(summary)),
        ("Input", lambda: _checks(findings)),
        ("Settings and versions", lambda: _settings(settings, versions)),
    ]
    sections = [section for title, build in builders for section in _drawn(title, build)]
    sections += [_failed(title, why) for title, why in summary.problems.items()]
    answers = [(one.question, one.grade, one.finding, one.action) for one in summary.judgements]
    top = verdict(worst(summary.judgements), overall(summary.judgements), answers) if answers else ""
    return page(title, lead, top + tiles(headline(summary)), sections, f"Written by celbo {__version__}.")


def _drawn(title: str, build: Callable[[], Iterable[Section]]) -> list[Section]:
    """The sections of one part. A part that fails is a line on the page: a picture is not worth a trained model."""
    try:
        return list(build())
    except Exception as error:
        logger.warning(f"The report lacks its part {title!r}: {type(error).__name__}: {error}", exc_info=_debugging())
        return [_failed(title, f"{type(error).__name__}: {error}")]


def _failed(title: str, why: str) -> Section:
    return Section(title, f"This part could not be made ({why}). The model and all other results are complete.", "")


def _debugging() -> bool:
    return logger.isEnabledFor(logging.DEBUG)


def headline(summary: ModelSummary) -> dict[str, str]:
    """Figures for the top of the page."""
    history, found = summary.history, {}
    found["epochs"] = f"{len(history):,}"
    if (elbo := elbo_of_weights(history, summary.kept_epoch)) is not None:
        found[f"validation ELBO, {elbo.where}"] = f"{elbo.value:.2f}"
    if "elbo_train" in history and len(of_training := history["elbo_train"].dropna()):
        found["training ELBO, last"] = f"{of_training.iloc[-1]:.2f}"
    if len(summary.kl_k):
        found["active latent dimensions"] = f"{int(summary.is_active_k.sum())} of {len(summary.kl_k)}"
    more = {} if summary.detail is None else summary.detail.figures
    return found | {name: f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for name, value in more.items()}


def _data(summary: ModelSummary, of: tuple[str, str]) -> list[Section]:
    if summary.data is None:
        return []
    return [Section("The data", "What the model was given.", table(["", ""], summary.data.rows(of)))]


def _training(summary: ModelSummary, curves: figures.Curves) -> Section:
    title = "Training"
    if not len(summary.history):
        return Section(title, "Training was stopped before its first epoch was done: there are no curves.", "")
    text = (
        "Lower is better for the loss, the negative ELBO and the reconstruction error; higher is better for accuracy. "
        "The KL term is a price, not a score. The validation curve should level off close to the training curve. The "
        "first epoch is outside the frame."
    )
    image = figures.as_data_uri(figures.training_curves(summary.history, curves))
    named = ", ".join(name.split(" (")[0] for name, _ in curves)
    return Section(title, text, picture(image, f"Curves by epoch: {named}"))


def _latent(summary: ModelSummary) -> list[Section]:
    if not len(summary.place_n2):
        return []
    text = (
        f"{len(summary.place_n2):,} cells laid out by their nearest neighbours in the latent space. Batches should lie "
        "on top of one another and labels apart. Sizes of groups and distances between them mean little."
    )
    return [Section("Latent space", text, f'<div class="pair">{latent_pictures(summary)}</div>')]


def latent_pictures(summary: ModelSummary) -> str:
    """The cells, coloured by each kind of group, as HTML."""
    if not summary.group_n:
        return picture(figures.as_data_uri(figures.latent_scatter(summary.place_n2)), "Cells in the latent space")
    return "".join(_coloured(summary.place_n2, title, name_n) for title, name_n in summary.group_n.items())


def _coloured(place_n2: np.ndarray, title: str, name_n: np.ndarray) -> str:
    name_c, code_n, count_c = np.unique(name_n.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-count_c, kind="stable")
    rank_c = np.argsort(order)
    colours = {str(name_c[c]): colour for c, colour in zip(order, figures.PALETTE, strict=False)}
    more = len(name_c) - len(colours)
    colours |= {f"{more} others": figures.OTHER} if more else {}
    image = figures.as_data_uri(figures.latent_scatter(place_n2, rank_c[code_n]))
    return picture(image, f"Cells in the latent space, coloured by {title}", f"by {title}", legend(colours))


def _quality(summary: ModelSummary, before: Mapping[str, float]) -> list[Section]:
    if not summary.metrics:
        return []
    text = (
        "Label accuracy and connectivity: 1 is best; compare the accuracy with the share of the largest label, which "
        "guessing would reach. Batch mixing: 0 if the batches lie apart, 1 if the place of a cell does not tell its "
        "batch."
    )
    rows: list[list[str]] = []
    for name, value in summary.metrics.items():
        old = f"{before[name]:.3f}" if name in before else ""
        rows.append([name, *([old] if before else []), f"{value:.3f}"])
    head = ["", "PCA of log-normalised counts", "this model"] if before else ["", "this model"]
    return [Section("Labels and batches", text, table(head, rows))]


def _dimensions(summary: ModelSummary) -> list[Section]:
    if not len(summary.kl_k):
        return []
    n_active = int(summary.is_active_k.sum())
    text = (
        f"{n_active} of {len(summary.kl_k)} dimensions are active: their posterior means vary across cells (variance "
        "above 0.01). Grey dimensions carry no information; if there are many, a smaller n_latent would do."
    )
    image = figures.as_data_uri(figures.kl_by_dimension(summary.kl_k, summary.is_active_k))
    return [Section("Latent dimensions", text, picture(image, "KL divergence of each latent dimension"))]


def _genes(summary: ModelSummary) -> list[Section]:
    fit = summary.fit
    if fit is None:
        return []
    text = (
        f"Each point is a gene: its counts in {fit.n_cells:,} cells, and counts that the model simulates for the same "
        "cells. If the model fits, the points lie on the line."
    )
    drawn = figures.gene_fit(fit.mean_observed_g, fit.mean_predicted_g, fit.zeros_observed_g, fit.zeros_predicted_g)
    return [
        Section("Counts, observed and predicted", text, picture(figures.as_data_uri(drawn), "Means and zeros by gene"))
    ]


def _checks(findings: Sequence[Finding] | None) -> list[Section]:
    if findings is None:
        return []
    if not findings:
        text = "Every entry of the matrix was checked: all are counts, and no cell or gene is empty."
        return [Section("Input", text, "")]
    text = "What a check of every entry of the matrix found."
    return [Section("Input", text, notes((f.severity, f.message, f.fix) for f in findings))]


def _settings(settings: Mapping[str, Any], versions: Mapping[str, str]) -> list[Section]:
    rows = [*settings.items(), *((f"version of {name}", version) for name, version in versions.items())]
    return (
        [Section("Settings and versions", "What is needed to repeat this run.", table(["", ""], rows))] if rows else []
    )
