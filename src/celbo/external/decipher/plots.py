"""Pictures of trajectories and of genes along them; each gives a figure of matplotlib and touches no global state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, checked, unknown_name
from ...core.kinds import Several, Text
from .lookup import column_of, latents_of
from .utils import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_gene_patterns", "plot_shifts", "plot_trajectories"]

_DOT = 4


@checked
def plot_trajectories(
    adata: AnnData, trajectories: Trajectory | Sequence[Trajectory], color: Annotated[str | None, Text()] = None
) -> "Figure":
    """Cells in the first two dimensions of a latent space, and the ways through it.

    Parameters
    ----------
    adata
        Cells, with the latent space of the trajectories in ``adata.obsm``.
    trajectories
        One or several, all through the same space.
    color
        Column of ``adata.obs`` to colour cells by; None: one grey.

    Raises
    ------
    ArgumentError
        ``trajectories`` is empty, or ``adata.obs`` has no column ``color``.
    """
    several = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not several:
        raise ArgumentError("trajectories is empty: give one at least.")
    v = np.asarray(adata.obsm[several[0].rep_key])
    figure, ax = _figure(several[0].rep_key)
    _scatter(ax, v, None if color is None else column_of(adata, color))
    for trajectory in several:
        ax.plot(*trajectory.trajectory_latent[:, :2].T, color="black", linewidth=1.5)
        ax.plot(*trajectory.cluster_locations[:, :2].T, "o", color="black", markersize=4)
    return figure


@checked
def plot_gene_patterns(
    patterns: dict[str, np.ndarray],
    var_names: Annotated[Sequence[str], Several(Text())],
    genes: Annotated[str | Sequence[str], Several(Text())],
) -> "Figure":
    """Expression of some genes along a trajectory, with its quartiles.

    Parameters
    ----------
    patterns
        What :meth:`~celbo.external.Decipher.compute_gene_patterns` gave.
    var_names
        Names of the genes, in order: ``model.get_var_names()``.
    genes
        Those to draw.

    Raises
    ------
    ArgumentError
        A gene that is not there.
    """
    names = list(var_names)
    figure, ax = _figure("time", "expression")
    for gene in [genes] if isinstance(genes, str) else genes:
        if gene not in names:
            raise ArgumentError(unknown_name("gene", gene, names))
        column = names.index(gene)
        (line,) = ax.plot(patterns["times"], patterns["mean"][:, column], label=gene)
        low, high = (patterns[name][:, column] for name in ("q25", "q75"))
        ax.fill_between(patterns["times"], low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.legend(frameon=False)
    return figure


@checked
def plot_shifts(
    adata: AnnData,
    rep_key: Annotated[str, Text()],
    shifts: pd.DataFrame,
    color: Annotated[str | None, Text()] = None,
) -> "Figure":
    """Cells in the first two dimensions of a latent space, and an arrow for each shift of a group by a condition.

    Parameters
    ----------
    adata
        Cells, with that latent space in ``adata.obsm``.
    rep_key
        Its key.
    shifts
        What :func:`~celbo.external.decipher.perturbation_shifts` gave, or some of its rows.
    color
        Column of ``adata.obs`` to colour cells by; None: one grey.

    Raises
    ------
    ArgumentError
        ``adata.obsm`` has no such key, or ``adata.obs`` no column ``color``.
    """
    v = latents_of(adata, rep_key)
    figure, ax = _figure(rep_key)
    _scatter(ax, v, None if color is None else column_of(adata, color))
    for row in shifts.to_dict("records"):
        start = (row["from_0"], row["from_1"])
        end = (start[0] + row["shift_0"], start[1] + row["shift_1"])
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->"})
        ax.annotate(f"{row['group']}, {row['condition']}", end, fontsize=7)
    return figure


def _figure(*labels: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = figure.subplots()
    x, y = labels if len(labels) == 2 else (f"{labels[0]} 1", f"{labels[0]} 2")
    ax.set(xlabel=x, ylabel=y)
    return figure, ax


def _scatter(ax: "Axes", v: np.ndarray, values: Any) -> None:
    x, y = v[:, 0], v[:, 1]
    if values is None:
        ax.scatter(x, y, s=_DOT, color="0.7", linewidths=0)
    elif values.dtype.kind in "iuf":
        points = ax.scatter(x, y, s=_DOT, c=values, linewidths=0)
        ax.figure.colorbar(points, ax=ax, label=str(values.name))
    else:
        for name in values.astype("category").cat.categories:
            own = (values == name).to_numpy()
            ax.scatter(x[own], y[own], s=_DOT, label=str(name), linewidths=0)
        ax.legend(frameon=False, markerscale=3, fontsize=7)
