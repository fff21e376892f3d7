"""The report of a trained model: its summary, drawn and written as one page."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ..core import __version__, checked
from ..core.kinds import Instance
from ..core.replacing import building, printable
from ..data import Finding, check_counts
from ..data.access import place
from ..data.constants import RAW
from ..data.count_places import count_places
from ..data.fields import LayerField
from . import figures
from .models import row_of
from .page import Section, legend, notes, page, picture, table, tiles
from .summary import ModelSummary, has_counts, summarise

__all__ = ["model_report", "render"]

logger = logging.getLogger("celbo")

_FINDINGS = Instance(
    "findings of celbo.data.check_counts",
    lambda value: isinstance(value, Sequence) and all(isinstance(one, Finding) for one in value),
)
_FIGURES = Instance(
    "a mapping of names to numbers",
    lambda value: isinstance(value, Mapping) and all(isinstance(one, Real) for one in value.values()),
)
_A_MODEL = Instance("a trained model", lambda value: hasattr(value, "module") and hasattr(value, "history"))


@checked
def model_report(
    model: Annotated[Any, _A_MODEL],
    path: str | Path,
    *,
    title: str | None = None,
    findings: Annotated[Sequence[Finding], _FINDINGS] | None = None,
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    before: Annotated[Mapping[str, float], _FIGURES] | None = None,
    seed: int = 0,
) -> ModelSummary:
    """Write what came of a training as one HTML file, pictures inside, readable offline.

    Parameters
    ----------
    model
        A trained model with its data. Batches and labels are those of its setup; what the page shows beside curves and
        latents (confusion matrix, markers, topics, proportions, ...) stands in :data:`celbo.report.models.ROWS`.
    path
        The file; one that is there is replaced when the new one is complete.
    title
        Heading; the class of the model when not given.
    findings
        What the check of the counts found; None: they are checked here, where the model's data are counts.
    settings, versions
        Rows of the last table.
    before
        Metrics of another latent space of the same cells, to stand beside those of this model.
    seed
        Of the cells drawn and the counts predicted.

    Returns
    -------
    The numbers behind the pictures.

    Raises
    ------
    ValueError
        For a model that was loaded without data.
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
    """
    require_file_name(Path(path))
    summary = summarise(model, seed=seed)
    counts = "X" in model.adata_manager.data_registry  # a MuData may have none of genes
    if findings is None and counts and row_of(model).takes_counts and has_counts(model):
        findings = count_findings(model)
    text = render(model, summary, title or type(model).__name__, findings, settings or {}, versions or {}, before or {})
    write_text(Path(path), text)
    return summary


def count_findings(model: Any) -> list[Finding]:
    """What the check of the training counts finds."""
    where, x = model.adata_manager.data_registry["X"], model.adata_manager.get_from_registry("X")
    modality = where.get("mod_key")
    adata = model.adata if modality is None else model.adata.mod[modality]
    names = LayerField("X", None, use_raw=where["attr_name"] == RAW)
    report = check_counts(x, obs_names=adata.obs_names, var_names=names.column_names(adata))
    elsewhere = None if report.is_counts and report.nnz else count_places(adata, where["attr_name"], where["attr_key"])
    of_modality = "" if modality is None else f" of mdata.mod[{modality!r}]"
    return report.findings(place(where["attr_name"], where["attr_key"]) + of_modality, elsewhere)


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
        ("Training", lambda: [_training(summary, row.curves)]),
        ("What the model says", lambda: summary.detail.sections() if summary.detail is not None else ()),
        ("Latent space", lambda: _latent(summary)),
        ("Labels and batches", lambda: _quality(summary, before)),
        ("Latent dimensions", lambda: _dimensions(summary)),
        ("Counts, observed and predicted", lambda: _genes(summary)),
        ("Input", lambda: _checks(findings)),
        ("Settings and versions", lambda: _settings(settings, versions)),
    ]
    sections = [section for title, build in builders for section in _drawn(title, build)]
    sections += [_failed(title, why) for title, why in summary.problems.items()]
    return page(title, lead, tiles(headline(summary)), sections, f"Written by celbo {__version__}.")


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
    for label, name in (("validation ELBO, best", "elbo_validation"), ("training ELBO, last", "elbo_train")):
        values = history[name].dropna() if name in history else history.index[:0].to_series()
        if len(values):
            found[label] = f"{values.min() if name == 'elbo_validation' else values.iloc[-1]:.2f}"
    if len(summary.kl_k):
        found["active latent dimensions"] = f"{int(summary.is_active_k.sum())} of {len(summary.kl_k)}"
    more = {} if summary.detail is None else summary.detail.figures
    return found | {name: f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for name, value in more.items()}


def _training(summary: ModelSummary, curves: figures.Curves) -> Section:
    title = "Training"
    if not len(summary.history):
        return Section(title, "Training was stopped before its first epoch was done: there are no curves.", "")
    text = (
        "Of losses and ELBO lower is better, of accuracy higher; of the KL there is no better. Validation should come "
        "to rest and stay near training. The frames are those of the second epoch and later."
    )
    image = figures.as_data_uri(figures.training_curves(summary.history, curves))
    named = ", ".join(name.split(" (")[0] for name, _ in curves)
    return Section(title, text, picture(image, f"Curves by epoch: {named}"))


def _latent(summary: ModelSummary) -> list[Section]:
    if not len(summary.place_n2):
        return []
    text = (
        f"{len(summary.place_n2):,} cells on the first two principal components of the latent space. "
        "Batches should lie over one another, labels apart."
    )
    if not summary.group_n:
        image = figures.as_data_uri(figures.latent_scatter(summary.place_n2))
        return [Section("Latent space", text, f'<div class="pair">{picture(image, "Cells in the latent space")}</div>')]
    drawn = [_coloured(summary.place_n2, title, name_n) for title, name_n in summary.group_n.items()]
    return [Section("Latent space", text, f'<div class="pair">{"".join(drawn)}</div>')]


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
        "Label accuracy and connectivity: 1 is best. Batch mixing: 0 for batches apart, 1 where the batch says nothing."
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
        f"{n_active} of {len(summary.kl_k)} dimensions are active (their posterior means have a variance above 0.01). "
        "Dimensions in grey carry nothing: with many of them, n_latent could be smaller."
    )
    image = figures.as_data_uri(figures.kl_by_dimension(summary.kl_k, summary.is_active_k))
    return [Section("Latent dimensions", text, picture(image, "KL divergence of each latent dimension"))]


def _genes(summary: ModelSummary) -> list[Section]:
    fit = summary.fit
    if fit is None:
        return []
    text = (
        f"Each point is a gene: counts observed in {fit.n_cells:,} cells against counts that the model draws for "
        "the same cells. A model that fits has its points on the line."
    )
    drawn = figures.gene_fit(fit.mean_observed_g, fit.mean_predicted_g, fit.zeros_observed_g, fit.zeros_predicted_g)
    return [
        Section("Counts, observed and predicted", text, picture(figures.as_data_uri(drawn), "Means and zeros by gene"))
    ]


def _checks(findings: Sequence[Finding] | None) -> list[Section]:
    if findings is None:
        return []
    if not findings:
        text = "Every entry of the matrix was looked at: all are counts, no cell and no gene is empty."
        return [Section("Input", text, "")]
    text = "What a look at every entry of the matrix found."
    return [Section("Input", text, notes((f.severity, f.message, f.fix) for f in findings))]


def _settings(settings: Mapping[str, Any], versions: Mapping[str, str]) -> list[Section]:
    rows = [*settings.items(), *((f"version of {name}", version) for name, version in versions.items())]
    return [Section("Settings and versions", "What to give to get this again.", table(["", ""], rows))] if rows else []
