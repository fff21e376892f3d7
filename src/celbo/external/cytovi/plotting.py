"""Pictures to set gates by: the density of markers by group, and of pairs of markers.

Figures are matplotlib's, made without its global state.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from anndata import AnnData
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from ...core import ArgumentError, checked, unknown_name
from ...core.kinds import Whole
from .preprocessing import subsample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_biaxial", "plot_histogram"]

_SIDE = 2.6
_BINS, _BINS_2D = 100, 64
_MOST_COLUMNS = 5


@checked
def plot_histogram(
    adata: AnnData,
    marker: str | list[str] = "all",
    groupby: str | None = None,
    layer_key: str | None = "raw",
    downsample: bool = True,
    n_obs: Annotated[int, Whole(1)] = 10000,
    col_wrap: Annotated[int, Whole(1)] | None = None,
    tight_layout: bool = True,
    save: bool | str | None = None,
    show_plot: bool = True,
    return_plot: bool = False,
    kde_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> "Figure | None":
    """Density of markers, a line for each group of cells.

    Parameters
    ----------
    adata
        Cells by markers.
    marker
        Names, or ``"all"``.
    groupby
        Column of ``adata.obs``; None: all cells together.
    layer_key
        Layer to draw; None: ``X``.
    downsample, n_obs
        Whether at most this many cells are drawn, picked at random with a fixed seed.
    col_wrap
        Panels in a row; None: at most 5.
    tight_layout
        Whether panels are moved so that labels have room.
    save
        File to write, or True: ``marker_histogram.png``.
    show_plot
        In a notebook, show the figure.
    return_plot
        Whether the figure is returned.
    kde_kwargs
        Further arguments of ``Axes.plot``.
    **kwargs
        Further arguments of ``Figure``.

    Returns
    -------
    The figure, if it is asked for.
    """
    names = list(adata.var_names) if isinstance(marker, str) and marker == "all" else _markers(adata, marker)
    adata = _some(adata, downsample, n_obs)
    groups, values_ng = _groups(adata, groupby), _values(adata, layer_key)
    columns = col_wrap or min(len(names), _MOST_COLUMNS)
    figure, axes = _panels(-(-len(names) // columns), columns, kwargs)
    for axis, name in zip(axes, names, strict=False):
        value_n = values_ng[:, adata.var_names.get_loc(name)]
        for group, cells in groups.items():
            axis.plot(*_density(value_n[cells], value_n), **{"label": group} | (kde_kwargs or {}))
        axis.set_xlabel(str(name))
        axis.set_yticks([])
    return _finished(
        figure, axes[: len(names)], groupby, tight_layout, save, "marker_histogram.png", show_plot, return_plot
    )


@checked
def plot_biaxial(
    adata: AnnData,
    marker_x: str | list[str] | None = None,
    marker_y: str | list[str] | None = None,
    color: str | None = None,
    n_bins: Annotated[int, Whole(1)] = 10,
    layer_key: str | None = "raw",
    downsample: bool = True,
    n_obs: Annotated[int, Whole(1)] = 10000,
    sample_color_groups: bool = False,
    save: bool | str | None = None,
    show_plot: bool = True,
    return_plot: bool = False,
    kde: bool = True,
    kde_kwargs: dict[str, Any] | None = None,
    scatter_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> "Figure | None":
    """Cells by two markers, with lines of equal density.

    Parameters
    ----------
    adata
        Cells by markers.
    marker_x, marker_y
        Names; a panel for each pair. None: all.
    color
        Column of ``adata.obs`` that colours cells.
    n_bins
        Number of lines of equal density.
    layer_key, downsample, n_obs, save, show_plot, return_plot
        As in :func:`plot_histogram`; the file is ``marker_biaxial.png``.
    sample_color_groups
        Whether as many cells are drawn of each colour.
    kde
        Whether the lines are drawn.
    kde_kwargs, scatter_kwargs
        Further arguments of ``Axes.contour`` and ``Axes.scatter``.
    **kwargs
        Further arguments of ``Figure``.

    Returns
    -------
    The figure, if it is asked for.
    """
    along, up = _markers(adata, marker_x), _markers(adata, marker_y)
    adata = _some(adata, downsample, n_obs, color if sample_color_groups else None)
    groups, values_ng = _groups(adata, color), _values(adata, layer_key)
    figure, axes = _panels(len(up), len(along), kwargs)
    pairs = [(x, y) for y in up for x in along]
    for axis, (name_x, name_y) in zip(axes, pairs, strict=True):
        x_n, y_n = (values_ng[:, adata.var_names.get_loc(name)] for name in (name_x, name_y))
        for group, cells in groups.items():
            style: dict[str, Any] = {"s": 2, "alpha": 0.4, "linewidths": 0, "label": group} | (scatter_kwargs or {})
            axis.scatter(x_n[cells], y_n[cells], **style)
        if kde:
            _contours(axis, x_n, y_n, n_bins, kde_kwargs or {})
        axis.set_xlabel(str(name_x))
        axis.set_ylabel(str(name_y))
    return _finished(figure, axes, color, True, save, "marker_biaxial.png", show_plot, return_plot)


def _markers(adata: AnnData, names: str | Sequence[str] | None) -> list[str]:
    wanted = list(adata.var_names) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in adata.var_names:
            raise ArgumentError(unknown_name("marker", name, adata.var_names))
    if not wanted:
        raise ArgumentError("There is no marker to draw: name at least one.")
    return wanted


def _some(adata: AnnData, downsample: bool, n_obs: int, groupby: str | None = None) -> AnnData:
    return subsample(adata, n_obs, groupby=groupby) if downsample and adata.n_obs > n_obs else adata


def _values(adata: AnnData, layer: str | None) -> np.ndarray:
    if layer is not None and layer not in adata.layers:
        raise ArgumentError(f"{unknown_name('layer (layer_key)', layer, adata.layers)} layer_key=None draws adata.X.")
    return adata.to_df(layer).to_numpy(float)


def _groups(adata: AnnData, column: str | None) -> dict[str, np.ndarray]:
    """Rows of each group's cells."""
    if column is None:
        return {"cells": np.arange(adata.n_obs)}
    if column not in adata.obs:
        raise ArgumentError(unknown_name("column of adata.obs", column, map(str, adata.obs)))
    values = adata.obs[column].astype(str)
    return {group: np.flatnonzero(values == group) for group in sorted(values.unique())}


def _panels(n_rows: int, n_columns: int, kwargs: Mapping[str, Any]) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(**{"figsize": (_SIDE * n_columns, _SIDE * n_rows)} | dict(kwargs))
    return figure, list(figure.subplots(n_rows, n_columns, squeeze=False).flat)


def _density(value_n: np.ndarray, all_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed histogram of some cells, over the range of all."""
    known_n = value_n[np.isfinite(value_n)]
    edges = _edges(all_n, _BINS)
    counts, _ = np.histogram(known_n, edges)
    return (edges[1:] + edges[:-1]) / 2, gaussian_filter1d(counts / max(1, len(known_n)), 2.0)


def _edges(value_n: np.ndarray, n: int) -> np.ndarray:
    known_n = value_n[np.isfinite(value_n)]
    low, high = (float(known_n.min()), float(known_n.max())) if len(known_n) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, n + 1)


def _contours(axis: "Axes", x_n: np.ndarray, y_n: np.ndarray, n_levels: int, options: Mapping[str, Any]) -> None:
    known = np.isfinite(x_n) & np.isfinite(y_n)
    edges = _edges(x_n, _BINS_2D), _edges(y_n, _BINS_2D)
    density = gaussian_filter(np.histogram2d(x_n[known], y_n[known], edges)[0], 2.0).T
    if density.max() > 0:
        levels = np.linspace(0, density.max(), n_levels + 2)[1:-1]
        centres = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        style: dict[str, Any] = {"levels": levels, "colors": "black", "linewidths": 0.6}
        axis.contour(*centres, density, **style | dict(options))


def _finished(
    figure: "Figure",
    axes: Iterable["Axes"],
    group: str | None,
    tight: bool,
    save: bool | str | None,
    name: str,
    show: bool,
    wanted: bool,
) -> "Figure | None":
    drawn = list(axes)
    for unused in figure.axes[len(drawn) :]:
        unused.remove()
    if group is not None:
        drawn[-1].legend(title=group, markerscale=4)
    if tight:
        figure.tight_layout()
    if save:
        figure.savefig(save if isinstance(save, str) else name)
    shell = sys.modules.get("IPython.display")
    if show and shell is not None:
        shell.display(figure)
    return figure if wanted else None
