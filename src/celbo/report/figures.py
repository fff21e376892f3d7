"""Pictures: data in, a matplotlib figure out. No global state of matplotlib is touched, and no name of the
user's is drawn.

Dims: n cells, g genes, k latents.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .classification import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CLASSIFIER_CURVES",
    "ELBO_CURVES",
    "PALETTE",
    "Curves",
    "as_data_uri",
    "calibration_curve",
    "draw_agreement",
    "draw_calibration",
    "draw_dimensions",
    "draw_scores",
    "gene_fit",
    "kl_by_dimension",
    "latent_scatter",
    "plain",
    "protein_levels",
    "score_histogram",
    "spot_map",
    "training_curves",
    "zero_inflation",
]

INK, MUTED, GRID = "#1f2933", "#5f6c7b", "#e4e7eb"
TRAIN, VALIDATION = "#2463a8", "#d1661f"

PALETTE = (
    "#2463a8", "#d1661f", "#2f855a", "#b83280", "#7a5bbf", "#b7950b", "#2c9aa8", "#a33b3b", "#5c6f2a", "#8c5a3c",
    "#6fa8dc", "#f0a868", "#7fbf9a", "#e59ac5", "#b3a1e0", "#ddc85a", "#86ccd6", "#d98c8c", "#a9b96f",
)  # fmt: skip
"""Colours of groups; those beyond the last share a grey."""

OTHER = "#b0b7c1"


Curves = tuple[tuple[str, tuple[str, str]], ...]
"""Panels: a title, and the names of a metric of training and of validation in the history."""

ELBO_CURVES: Curves = (
    ("Loss", ("train_loss", "validation_loss")),
    ("ELBO (negative, nats per cell)", ("elbo_train", "elbo_validation")),
    ("Reconstruction (nats per cell)", ("reconstruction_loss_train", "reconstruction_loss_validation")),
    ("KL of the cells' latents (nats per cell)", ("kl_local_train", "kl_local_validation")),
)

CLASSIFIER_CURVES: Curves = (
    ("Loss", ("train_loss_epoch", "validation_loss")),
    ("Accuracy", ("train_accuracy", "validation_accuracy")),
)


def training_curves(history: pd.DataFrame, panels: Curves = ELBO_CURVES) -> "Figure":
    """Metrics by epoch, training and validation.

    Parameters
    ----------
    history
        Metrics by epoch, as of :func:`celbo.train.history.epoch_table`; what it lacks is left out.
    panels
        What to draw, two in a row.
    """
    from matplotlib.ticker import MaxNLocator

    n_rows = -(-len(panels) // 2)
    figure, axes = _figure(9.2, 2.7 * n_rows, n_rows, 2)
    for spare in axes[len(panels) :]:
        spare.remove()
    axes = axes[: len(panels)]
    for ax, (title, names) in zip(axes, panels, strict=True):
        plain(ax, title)
        for name, colour, label in zip(names, (TRAIN, VALIDATION), ("training", "validation"), strict=True):
            _curve(ax, history, name, colour, label)
        _set_window(ax, [history[name].dropna().to_numpy(float) for name in names if name in history])
    axes[0].legend(frameon=False, labelcolor=INK, fontsize=9)
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[-2:]:
        ax.set_xlabel("epoch", color=MUTED, fontsize=9)
    return figure


def _curve(ax: "Axes", history: pd.DataFrame, name: str, colour: str, label: str) -> None:
    values = history[name].dropna() if name in history else pd.Series(dtype=float)
    marker = "o" if len(values) < 3 else None
    ax.plot(values.index, values, color=colour, label=label, linewidth=1.6, marker=marker)


def _set_window(ax: "Axes", curves: Sequence[np.ndarray]) -> None:
    """Fit the frame to all epochs but the first, whose steep fall would flatten the rest."""
    later = [values[1:] for values in curves if len(values) > 4]
    if later:
        values = np.concatenate(later)
        low, high = float(values.min()), float(values.max())
        margin = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)


def kl_by_dimension(kl_k: np.ndarray, is_active_k: np.ndarray) -> "Figure":
    """KL divergence of each latent dimension from N(0, 1), largest first; inactive ones in grey."""
    figure, (ax,) = _figure(9.2, 2.6, 1, 1)
    plain(ax, "KL divergence from N(0, 1) (nats per cell)")
    draw_dimensions(ax, kl_k, is_active_k)
    ax.set_xlabel("latent dimension", color=MUTED, fontsize=9)
    return figure


def draw_dimensions(ax: "Axes", kl_k: np.ndarray, is_active_k: np.ndarray) -> None:
    """A bar for each latent dimension, largest first; inactive ones in grey and hatched."""
    order = np.argsort(-kl_k, kind="stable")
    for active, colour, hatch in ((True, TRAIN, ""), (False, OTHER, "//")):
        at = np.flatnonzero(is_active_k[order] == active)
        label = "active" if active else "not active"
        ax.bar(at, kl_k[order][at], color=colour, hatch=hatch, edgecolor="white", width=0.72, label=label)
    step = max(1, len(order) // 30)
    ax.set_xticks(np.arange(len(order))[::step], [f"{k}" for k in order[::step]])
    ax.grid(axis="x", visible=False)


def latent_scatter(place_n2: np.ndarray, code_n: np.ndarray | None = None, seed: int = 0) -> "Figure":
    """Cells in two dimensions, as :func:`~celbo.report.neighbour_layout` lays them out.

    Parameters
    ----------
    place_n2
        ``(n, 2)``.
    code_n
        ``(n,)`` number of each cell's group, which is its colour; the legend is for the page to write.
    seed
        Of the order in which points are drawn, so that no group covers another.
    """
    figure, (ax,) = _figure(4.6, 4.3, 1, 1)
    plain(ax, "")
    order = np.random.default_rng(seed).permutation(len(place_n2))
    codes = np.zeros(len(place_n2), dtype=int) if code_n is None else code_n
    colour_n = np.array([*PALETTE, OTHER])[np.minimum(codes, len(PALETTE))]
    size = float(np.clip(9000 / max(len(place_n2), 1), 1.5, 14))
    x_n, y_n = place_n2[order].T
    ax.scatter(x_n, y_n, s=size, c=colour_n[order], linewidths=0, alpha=0.75, rasterized=True)
    ax.tick_params(labelbottom=False, labelleft=False, length=0)  # coordinates without meaning
    ax.set_xlabel("neighbour layout 1", color=MUTED, fontsize=9)
    ax.set_ylabel("neighbour layout 2", color=MUTED, fontsize=9)
    return figure


def gene_fit(
    mean_observed_g: np.ndarray,
    mean_predicted_g: np.ndarray,
    zeros_observed_g: np.ndarray,
    zeros_predicted_g: np.ndarray,
) -> "Figure":
    """Means and shares of zeros of each gene, observed against drawn from the model, with the line where both agree."""
    figure, axes = _figure(9.2, 4.3, 1, 2)
    plain(axes[0], "Mean count of a gene")
    plain(axes[1], "Share of cells without a count")
    positive_g = (mean_observed_g > 0) & (mean_predicted_g > 0)
    draw_agreement(axes[0], mean_observed_g[positive_g], mean_predicted_g[positive_g])
    if positive_g.any():  # a log axis needs something to show
        axes[0].set_xscale("log")
        axes[0].set_yscale("log")
    draw_agreement(axes[1], zeros_observed_g, zeros_predicted_g)
    for ax in axes:
        ax.set_xlabel("observed", color=MUTED, fontsize=9)
        ax.set_ylabel("predicted", color=MUTED, fontsize=9)
    return figure


def draw_agreement(ax: "Axes", observed_g: np.ndarray, predicted_g: np.ndarray) -> None:
    """A point for each pair of figures, and the line where both agree."""
    ax.scatter(observed_g, predicted_g, s=7, color=TRAIN, alpha=0.45, linewidths=0, rasterized=True)
    if len(observed_g):
        ends = [min(observed_g.min(), predicted_g.min()), max(observed_g.max(), predicted_g.max())]
        ax.plot(ends, ends, color=VALIDATION, linewidth=1.2)


def calibration_curve(found: Calibration) -> "Figure":
    """Share of right predictions by confidence, with the line where both agree; large bins have large dots."""
    figure, (ax,) = _figure(4.6, 4.3, 1, 1)
    plain(ax, "")
    draw_calibration(ax, found)
    ax.set_xlabel("probability of the predicted label", color=MUTED, fontsize=9)
    ax.set_ylabel("share of right predictions", color=MUTED, fontsize=9)
    return figure


def draw_calibration(ax: "Axes", found: Calibration) -> None:
    """A line through the bins, whose dots are the larger the more cells are in them, and the line of right ones."""
    ax.plot([0, 1], [0, 1], color=VALIDATION, linewidth=1.2, linestyle="--")
    ax.plot(found.confidence_b, found.accuracy_b, color=TRAIN, linewidth=1.2)
    size_b = 12 + 120 * found.count_b / found.count_b.sum()
    ax.scatter(found.confidence_b, found.accuracy_b, s=size_b, color=TRAIN, linewidths=0, zorder=3)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)


def score_histogram(score_n: np.ndarray, simulated_m: np.ndarray) -> "Figure":
    """Doublet scores of cells and of simulated doublets, each as shares of its own number."""
    figure, (ax,) = _figure(9.2, 3.2, 1, 1)
    plain(ax, "Share of the cells, and of the simulated doublets")
    draw_scores(ax, score_n, simulated_m)
    ax.set_xlabel("probability of being a doublet", color=MUTED, fontsize=9)
    return figure


def draw_scores(ax: "Axes", score_n: np.ndarray, simulated_m: np.ndarray) -> None:
    """Two histograms of scores in 40 bins, each as shares of its own number."""
    edges = np.linspace(0, 1, 41)
    for score, colour, label in ((score_n, TRAIN, "cells"), (simulated_m, VALIDATION, "simulated doublets")):
        share, _ = np.histogram(score, edges)
        ax.stairs(share / max(1, len(score)), edges, color=colour, fill=True, alpha=0.45, label=label)
    ax.legend(frameon=False, labelcolor=INK, fontsize=9)


def protein_levels(background_p: np.ndarray, foreground_p: np.ndarray) -> "Figure":
    """Mean counts of proteins in cells with foreground above those in cells without, and the line where both agree.

    Parameters
    ----------
    background_p, foreground_p
        ``(p,)``; proteins that lack one of them (NaN), or have 0, are left out.
    """
    figure, (ax,) = _figure(4.6, 4.3, 1, 1)
    plain(ax, "")
    both_p = (background_p > 0) & (foreground_p > 0)
    if both_p.any():  # a log axis needs something to show
        draw_agreement(ax, background_p[both_p], foreground_p[both_p])
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlabel("mean count, cells without foreground", color=MUTED, fontsize=9)
    ax.set_ylabel("mean count, cells with foreground", color=MUTED, fontsize=9)
    return figure


def zero_inflation(mean_g: np.ndarray, probability_g: np.ndarray) -> "Figure":
    """Probability that a gene is zero-inflated beside its mean count; genes without counts are left out."""
    figure, (ax,) = _figure(9.2, 3.6, 1, 1)
    plain(ax, "Probability that a gene is zero-inflated")
    seen_g = mean_g > 0
    ax.scatter(mean_g[seen_g], probability_g[seen_g], s=9, color=TRAIN, alpha=0.55, linewidths=0, rasterized=True)
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("mean count", color=MUTED, fontsize=9)
    return figure


def spot_map(place_s2: np.ndarray, share_s: np.ndarray) -> "Figure":
    """Spots where they lie, dark ones with the largest share; rows grow downwards, as in pictures of the tissue."""
    figure, (ax,) = _figure(4.6, 4.3, 1, 1)
    size = float(np.clip(9000 / max(len(place_s2), 1), 1.5, 30))
    x_s, y_s = place_s2.T
    ax.scatter(x_s, y_s, s=size, c=share_s, cmap="Blues", vmin=0, linewidths=0, rasterized=True)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.set_axis_off()
    return figure


def as_data_uri(figure: "Figure") -> str:
    """A figure as an SVG within a URI; its points are a picture inside the SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: float, height: float, n_rows: int, n_columns: int) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    grid: Any = figure.subplots(n_rows, n_columns, squeeze=False)
    return figure, list(grid.ravel())


def plain(ax: "Axes", title: str) -> None:
    """The look of all axes: light grid, no frame, title at the left."""
    ax.set_title(title, loc="left", color=INK, fontsize=10, pad=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelsize=8.5)
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
