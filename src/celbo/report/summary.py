"""What a trained model is asked for its report, as plain arrays.

Dims: n cells, g genes, k latents.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..core import REGISTRY_KEYS
from ..data.modalities import obs_with
from ..module.base.minified import LATENT_POSTERIOR_WITH_COUNTS
from ..train.history import epoch_table
from .data_summary import DataSummary, depths
from .detail import Detail
from .fit import GeneFit, gene_fit, kl_to_standard_normal, some_rows
from .metrics import batch_mixing, graph_connectivity, knn_label_accuracy
from .models import Latents, row_of
from .projection import neighbour_layout

__all__ = [
    "BY_GUESSING",
    "KEPT",
    "MIXED",
    "MIXED_WITHIN",
    "Grade",
    "Judgement",
    "ModelSummary",
    "latent_metrics",
    "summarise",
]

logger = logging.getLogger("celbo")

ACTIVE_VARIANCE = 0.01
"""Variance of the posterior means above which a latent dimension counts as active (Burda et al., ICLR 2016)."""

NOT_LABELLED = "not labelled"
"""What cells without a label are called."""

KEPT, BY_GUESSING = "15-NN label accuracy", "share of the largest label"
MIXED, MIXED_WITHIN = "batch mixing (1: as by chance)", "batch mixing within labels"
"""Metrics that the verdict goes by."""

Grade = Literal["green", "amber", "red"]

_MAX_LOOKED_AT = 4000
_FEWEST_OF_A_LABEL = 30


@dataclass(frozen=True)
class Judgement:
    """The answer to one question about a training.

    Attributes
    ----------
    question
        The question.
    grade
        ``"green"``, ``"amber"`` or ``"red"``.
    finding
        What was found, with the figure.
    action
        What to do; empty where there is nothing to do.
    """

    question: str
    grade: Grade
    finding: str
    action: str = ""


@dataclass(frozen=True, eq=False)
class ModelSummary:
    """Everything that the page draws.

    Attributes
    ----------
    history
        Metrics by epoch.
    kl_k
        KL divergence of each latent dimension from a standard normal, its prior in most models, in nats, mean over
        cells, ``(k,)``; ``(0,)`` where latents are not normal, or there are none.
    is_active_k
        Whether the posterior mean of a dimension varies from cell to cell by more than 0.01 in variance, ``(k,)``.
    place_n2
        Some cells in two dimensions by their neighbours among the latent means, ``(n, 2)``; ``(0, 2)`` where there are
        none.
    group_n
        ``{what it is called: name of each of these cells}``, each ``(n,)`` strings.
    fit
        Observed beside predicted counts; None for a model that draws none.
    metrics
        Name to value, of the latent space.
    detail
        What else this kind of model has to say; see :mod:`celbo.report.models`.
    problems
        Part of the page that could not be computed -> why.
    data
        The data in figures.
    judgements
        The verdict, question by question; of :func:`~celbo.report.model_report`.
    kept_epoch
        The epoch whose weights the model has; None: nobody knows.
    """

    history: pd.DataFrame
    kl_k: np.ndarray
    is_active_k: np.ndarray
    place_n2: np.ndarray
    group_n: Mapping[str, np.ndarray]
    fit: GeneFit | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    detail: Detail | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    data: DataSummary | None = None
    judgements: tuple[Judgement, ...] = ()
    kept_epoch: int | None = None


def summarise(model: Any, *, max_cells: int = 10_000, seed: int = 0) -> ModelSummary:
    """Ask a trained model about its training data.

    Parameters
    ----------
    model
        A trained model with its data. What it is asked stands in :data:`celbo.report.models.ROWS`.
    max_cells
        Cells in the picture of the latent space and in the metrics, drawn at random from more; the KL divergences are
        of all cells, or of 262,144 drawn from more.
    seed
        Seed of that draw and of the predicted counts. Global generators are untouched.

    Raises
    ------
    ValueError
        For a model that was loaded without data.
    """
    adata = model.adata
    if adata is None:
        raise ValueError(f"This {type(model).__name__} was loaded without data: set model.adata before its report.")
    model._check_if_trained(warn=False)
    row, rng = row_of(model), np.random.default_rng(seed)
    latents, detail, problems = row.latents, row.detail, _Problems()
    latent = _LatentSpace()
    if latents is not None:
        with problems.noting("Latent space"):
            latent = _latent_space(model, latents, max_cells, rng, seed)
    fit, more, data = None, None, None
    with problems.noting("The data"):
        data = _data(model, row.takes_counts and has_counts(model), rng)
    if row.draws_counts and has_counts(model):
        with problems.noting("Counts, observed and predicted"):
            fit = gene_fit(model, rng, seed)
    if detail is not None:
        with problems.noting("What the model says"):
            more = detail(model, seed)
    return ModelSummary(
        history=epoch_table(model.history_ or {}),
        kl_k=latent.kl_k,
        is_active_k=latent.is_active_k,
        place_n2=latent.place_n2,
        group_n=latent.group_n,
        fit=fit,
        metrics=latent.metrics,
        detail=more,
        problems=problems.found,
        data=data,
        kept_epoch=model.kept_epoch_,
    )


def _data(model: Any, takes_counts: bool, rng: np.random.Generator) -> DataSummary:
    keys, unlabeled = _group_keys(model), vars(model).get("unlabeled_category_")
    column_of = {title: obs_with(model.adata, key)[key] for title, key in keys.items()}
    groups = {title: _sizes_of(column, unlabeled) for title, column in column_of.items()}
    counts: dict[str, Any] = {}
    if takes_counts and REGISTRY_KEYS.X_KEY in model.adata_manager.data_registry:
        rows = some_rows(model.adata.n_obs, _MAX_LOOKED_AT, rng)
        batch_n = _names(_of(column_of["batch"], rows)) if "batch" in column_of else None
        counts = depths(model, rows, batch_n)
    n_features = len(model.get_var_names(legacy_mudata_format=True))
    return DataSummary(model.adata.n_obs, n_features, groups, **counts)


def _sizes_of(column: pd.Series, unlabeled: object) -> dict[str, int]:
    name_n, count_n = np.unique(_names(column, unlabeled).astype(str), return_counts=True)
    return {str(name_n[i]): int(count_n[i]) for i in np.argsort(-count_n, kind="stable")}


class _Problems:
    """Parts that could not be computed: each is said and left out, the rest of the report is made."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    @contextmanager
    def noting(self, part: str) -> Iterator[None]:
        """Note what goes wrong in the block."""
        try:
            yield
        except Exception as error:
            self.found[part] = f"{type(error).__name__}: {error}"
            logger.warning(f"The report lacks its part {part!r}: {self.found[part]}")


_MAX_ENCODED = 2**18
"""Cells that are encoded for figures about all: means over more are no other in the digits that are shown."""


@dataclass(frozen=True, eq=False)
class _LatentSpace:
    """The part of a :class:`ModelSummary` that is about latents; empty where there are none."""

    kl_k: np.ndarray = field(default_factory=lambda: np.zeros(0))
    is_active_k: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    place_n2: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    group_n: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def _latent_space(
    model: Any, latents: Callable[[Any, np.ndarray], Latents], max_cells: int, rng: np.random.Generator, seed: int
) -> _LatentSpace:
    encoded = some_rows(model.adata.n_obs, _MAX_ENCODED, rng)
    mean_nk, variance_nk = latents(model, encoded)
    shown = some_rows(len(encoded), max_cells, rng)
    unlabeled, keys = vars(model).get("unlabeled_category_"), _group_keys(model)
    column_of = {title: obs_with(model.adata, key)[key] for title, key in keys.items()}
    group_n = {title: _names(_of(column, encoded[shown]), unlabeled) for title, column in column_of.items()}
    kl_k, is_active_k = np.zeros(0), np.zeros(0, dtype=bool)
    if variance_nk is not None:
        kl_k = kl_to_standard_normal(mean_nk, variance_nk)
        is_active_k = np.var(mean_nk, axis=0, dtype=np.float64) > ACTIVE_VARIANCE
    return _LatentSpace(
        kl_k=kl_k,
        is_active_k=is_active_k,
        place_n2=neighbour_layout(mean_nk[shown], seed),
        group_n=group_n,
        metrics=latent_metrics(mean_nk[shown], group_n.get("label"), group_n.get("batch"), seed),
    )


def latent_metrics(
    latent: np.ndarray, labels: np.ndarray | None, batches: np.ndarray | None, seed: int = 0
) -> dict[str, float]:
    """Metrics of a latent space for the groups there are.

    Parameters
    ----------
    latent
        ``(n, k)`` coordinates.
    labels, batches
        ``(n,)`` names, or None; cells called :data:`NOT_LABELLED` are left out where labels are judged.
    seed
        Of the random fifth of the cells that the others name.

    Returns
    -------
    Name to value; see :mod:`celbo.report.metrics`.
    """
    found: dict[str, float] = {}
    if labels is not None:
        found |= _label_metrics(latent[labels != NOT_LABELLED], labels[labels != NOT_LABELLED], seed)
    if batches is not None and len(np.unique(batches)) > 1:
        mixing = batch_mixing(latent, batches)
        found[MIXED] = mixing.foreign_share
        found["iLISI of batches (scaled)"] = mixing.ilisi
        if labels is not None and (within := _mixing_within(latent, labels, batches)) is not None:
            found[MIXED_WITHIN] = within
    return found


def _mixing_within(latent: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> float | None:
    """Mixing among the cells of one label, mean over labels of several batches by their cells; None: there are none."""
    total, n_cells = 0.0, 0
    for label in np.unique(labels[labels != NOT_LABELLED].astype(str)):
        rows = np.flatnonzero(labels == label)
        if len(rows) >= _FEWEST_OF_A_LABEL and len(np.unique(batches[rows].astype(str))) > 1:
            total += len(rows) * batch_mixing(latent[rows], batches[rows], k=min(50, len(rows) // 3)).foreign_share
            n_cells += len(rows)
    return total / n_cells if n_cells else None


def _label_metrics(latent: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    n = len(latent)
    if n < 10 or len(np.unique(labels)) < 2:
        return {}
    test, train = np.split(np.random.default_rng(seed).permutation(n), [n // 5])
    return {
        KEPT: knn_label_accuracy(latent, labels, train, test),
        BY_GUESSING: float(np.unique(labels.astype(str), return_counts=True)[1].max() / n),
        "graph connectivity of labels": graph_connectivity(latent, labels),
    }


def has_counts(model: Any) -> bool:
    """Whether the model's data hold counts: minified ones without them hold zeros in their place."""
    return model.minified_data_type in (None, LATENT_POSTERIOR_WITH_COUNTS)


def _group_keys(model: Any) -> dict[str, str]:
    arguments = model.registry_["setup_args"]
    keys = {"batch": arguments.get("batch_key"), "label": arguments.get("labels_key")}
    return {title: key for title, key in keys.items() if key is not None and key in obs_with(model.adata, key)}


def _of(column: pd.Series, rows: np.ndarray) -> pd.Series:
    """Values of some rows, without the rows' names, which may have to be read."""
    return pd.Series(column.array.take(rows))


def _names(column: pd.Series, unlabeled: object = None) -> np.ndarray:
    is_none_n = column.isna().to_numpy() | (column == unlabeled).to_numpy()
    names = [NOT_LABELLED if is_none else str(name) for name, is_none in zip(column, is_none_n, strict=True)]
    return np.array(names, dtype=object)
