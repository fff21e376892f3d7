"""What a trained model is asked for its report, as plain arrays.

Dims: n cells, g genes, k latents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..core import REGISTRY_KEYS
from ..posterior.passes import evaluating
from ..train.history import epoch_table
from .metrics import batch_mixing, graph_connectivity, knn_label_accuracy
from .projection import principal_components

__all__ = ["GeneFit", "ModelSummary", "latent_metrics", "summarise"]

ACTIVE_VARIANCE = 0.01
"""Variance of the posterior means above which a latent dimension counts as active (Burda et al., ICLR 2016)."""

_MAX_ENTRIES = 10_000_000
_MAX_FIT_CELLS = 4000


@dataclass(frozen=True, eq=False)
class GeneFit:
    """Counts observed, and counts drawn from the model for the same cells.

    Attributes
    ----------
    mean_observed_g, mean_predicted_g
        Mean count of each gene, ``(g,)``.
    zeros_observed_g, zeros_predicted_g
        Share of cells without a count of the gene, ``(g,)``.
    n_cells
        Cells looked at.
    """

    mean_observed_g: np.ndarray
    mean_predicted_g: np.ndarray
    zeros_observed_g: np.ndarray
    zeros_predicted_g: np.ndarray
    n_cells: int


@dataclass(frozen=True, eq=False)
class ModelSummary:
    """Everything that the page draws.

    Attributes
    ----------
    history
        Metrics by epoch.
    kl_k
        KL divergence of each latent dimension from its prior in nats, mean over cells, ``(k,)``.
    is_active_k
        Whether the posterior mean of a dimension varies from cell to cell by more than 0.01 in variance, ``(k,)``.
    place_n2
        First two principal components of the latent means of some cells, ``(n, 2)``.
    group_n
        ``{what it is called: name of each of these cells}``, each ``(n,)`` strings.
    fit
        Observed beside predicted counts.
    metrics
        Name to value, of the latent space.
    """

    history: pd.DataFrame
    kl_k: np.ndarray
    is_active_k: np.ndarray
    place_n2: np.ndarray
    group_n: Mapping[str, np.ndarray]
    fit: GeneFit
    metrics: Mapping[str, float] = field(default_factory=dict)


def summarise(model: Any, *, max_cells: int = 10_000, seed: int = 0) -> ModelSummary:
    """Ask a trained model about its training data.

    Parameters
    ----------
    model
        A trained model with its data, of counts, whose latents have a standard normal prior.
    max_cells
        Cells in the picture of the latent space and in the metrics, drawn at random from more; the KL divergences are
        of all cells.
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
    mean_nk, variance_nk = model.get_latent_representation(return_dist=True)
    rng = np.random.default_rng(seed)
    shown = some_rows(adata.n_obs, max_cells, rng)
    groups = {title: _names(adata.obs[key]) for title, key in _group_keys(model).items()}
    group_n = {title: name_n[shown] for title, name_n in groups.items()}
    return ModelSummary(
        history=epoch_table(model.history_ or {}),
        kl_k=_kl_to_standard_normal(mean_nk, variance_nk),
        is_active_k=np.var(mean_nk, axis=0, dtype=np.float64) > ACTIVE_VARIANCE,
        place_n2=_plane(mean_nk[shown]),
        group_n=group_n,
        fit=_gene_fit(model, rng, seed),
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
        ``(n,)`` names, or None.
    seed
        Of the random fifth of the cells that the others name.

    Returns
    -------
    Name to value; see :mod:`celbo.report.metrics`.
    """
    found: dict[str, float] = {}
    n = len(latent)
    if labels is not None and len(np.unique(labels)) > 1 and n >= 10:
        order = np.random.default_rng(seed).permutation(n)
        test, train = np.split(order, [n // 5])
        found["15-NN label accuracy"] = knn_label_accuracy(latent, labels, train, test)
        found["graph connectivity of labels"] = graph_connectivity(latent, labels)
    if batches is not None and len(np.unique(batches)) > 1:
        mixing = batch_mixing(latent, batches)
        found["batch mixing (1: as by chance)"] = mixing.foreign_share
        found["iLISI of batches (scaled)"] = mixing.ilisi
    return found


def some_rows(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or ``most`` of them at random, ascending."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _group_keys(model: Any) -> dict[str, str]:
    arguments = model.registry_["setup_args"]
    keys = {"batch": arguments.get("batch_key"), "label": arguments.get("labels_key")}
    return {title: key for title, key in keys.items() if key is not None}


def _names(column: pd.Series) -> np.ndarray:
    return np.array([str(name) for name in column], dtype=object)


def _kl_to_standard_normal(mean_nk: np.ndarray, variance_nk: np.ndarray) -> np.ndarray:
    kl_nk = 0.5 * (np.square(mean_nk) + variance_nk - 1 - np.log(variance_nk))
    return kl_nk.mean(0, dtype=np.float64)


def _plane(mean_nk: np.ndarray) -> np.ndarray:
    place_nk = principal_components(mean_nk, 2)
    return np.pad(place_nk, ((0, 0), (0, 2 - place_nk.shape[1])))


def _gene_fit(model: Any, rng: np.random.Generator, seed: int) -> GeneFit:
    n_genes = len(model.get_var_names())
    rows = some_rows(model.adata.n_obs, min(_MAX_FIT_CELLS, max(100, _MAX_ENTRIES // n_genes)), rng)
    sums = torch.zeros(4, n_genes, dtype=torch.float64)
    with evaluating(model.module, seed):
        for tensors in model._make_data_loader(model.adata, indices=rows):
            observed_ng, drawn_ng = tensors[REGISTRY_KEYS.X_KEY].cpu(), model.module.sample(tensors)
            for i, x_ng in enumerate((observed_ng, drawn_ng)):
                sums[2 * i] += x_ng.sum(0, dtype=torch.float64)
                sums[2 * i + 1] += (x_ng == 0).sum(0)
    mean_observed_g, zeros_observed_g, mean_predicted_g, zeros_predicted_g = (sums / len(rows)).numpy()
    return GeneFit(mean_observed_g, mean_predicted_g, zeros_observed_g, zeros_predicted_g, len(rows))
