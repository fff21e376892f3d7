"""Latent spaces: where the cells lie, and whether batches mix and labels stay apart."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import checked, unknown_name
from ..core.kinds import Text
from ..report.figures import TRAIN, VALIDATION
from ..report.metrics import batch_mixing, knn_label_accuracy
from ..report.projection import neighbour_layout, principal_components
from .canvas import AXES, canvas, points_by_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["latent", "mixing"]

Layout = Literal["neighbours", "principal"]
_PARTS: Mapping[str, str] = {"neighbours": "neighbour layout", "principal": "principal component"}
_BARS = ("#2463a8", "#f0a868", "#7fbf9a", "#b3a1e0")
_HATCHES = ("", "//", "..", "xx")


@checked
def latent(
    adata: AnnData,
    key: Annotated[str, Text()] = "X_celbo",
    color: Annotated[str | None, Text()] = None,
    *,
    layout: Layout = "neighbours",
    ax: Annotated[Any, AXES] = None,
) -> "Axes":
    """Draw cells by their latent representation.

    Parameters
    ----------
    adata
        Cells, with their latents in ``adata.obsm``.
    key
        Which of ``adata.obsm``. An embedding of two columns, as ``"X_umap"``, is drawn as it is; more are laid out in
        two.
    color
        Column of ``adata.obs``: categories, text and booleans differ by colour and marker, numbers by shade.
    layout
        How more than two columns are drawn: so that neighbours stay neighbours (about a second for 3,000 cells, see
        :func:`~celbo.report.neighbour_layout`), or by their first two ``"principal"`` components, which are exact but
        hide the others.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes.

    Raises
    ------
    KeyError
        When ``adata`` has no such ``obsm`` or column; it names the nearest.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.simulate_counts(n_cells=60, n_genes=30, seed=0)
    >>> adata.obsm["X_celbo"] = adata.X.toarray()[:, :5]
    >>> celbo.pl.latent(adata, color="batch").get_xlabel()
    'neighbour layout 1 of X_celbo'
    """
    if key not in adata.obsm:
        raise KeyError(unknown_name("key, a name in adata.obsm,", key, adata.obsm))
    if color is not None and color not in adata.obs:
        raise KeyError(unknown_name("color, a column of adata.obs,", color, adata.obs.columns))
    z_nk = np.asarray(adata.obsm[key], dtype=float)
    part = "coordinate" if z_nk.shape[1] == 2 else _PARTS[layout]
    if z_nk.shape[1] == 2:
        place_n2 = z_nk
    else:
        place_n2 = neighbour_layout(z_nk) if layout == "neighbours" else principal_components(z_nk, 2)
    ax = canvas(ax, f"{part} 1 of {key}", f"{part} 2 of {key}", height=4.0)
    _coloured(ax, place_n2, None if color is None else adata.obs[color])
    return ax


def _coloured(ax: "Axes", place_n2: np.ndarray, column: pd.Series | None) -> None:
    x_n, y_n = place_n2.T
    if column is None:
        ax.scatter(x_n, y_n, s=6, color=TRAIN, alpha=0.6, linewidths=0)
    elif pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        drawn = ax.scatter(x_n, y_n, s=6, c=column.to_numpy(float), cmap="viridis", linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label=str(column.name))
    else:
        groups = pd.Categorical(column)
        points_by_group(
            ax, place_n2, np.asarray(groups.codes), [str(name) for name in groups.categories], str(column.name)
        )


@checked
def mixing(
    latents: Mapping[str, np.ndarray],
    batches: object,
    labels: object = None,
    *,
    ax: Annotated[Any, AXES] = None,
) -> "Axes":
    """Draw how well batches mix and labels stay apart, in one latent space beside others, as before and after.

    Parameters
    ----------
    latents
        Name -> ``(n, k)`` coordinates, such as ``{"before": pcs, "after": adata.obsm["X_celbo"]}``.
    batches
        ``(n,)`` batch of each cell.
    labels
        ``(n,)`` label of each cell; None: only batches are judged.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes, with a group of bars for each figure: the foreign share and iLISI of
    :func:`~celbo.report.batch_mixing`, and with labels the share of every second cell whose label its neighbours among
    the others name (:func:`~celbo.report.knn_label_accuracy`). Of all, 1 is best.

    Raises
    ------
    ValueError
        Without a latent space.
    """
    if not latents:
        raise ValueError("latents must hold a latent space or more: name -> (n, k) coordinates.")
    figures = pd.DataFrame({name: _figures(np.asarray(z_nk), batches, labels) for name, z_nk in latents.items()})
    ax = canvas(ax, "", "1 is best", width=5.5, height=3.2)
    width = 0.8 / len(latents)
    for i, name in enumerate(figures):
        left = np.arange(len(figures)) + (i - (len(latents) - 1) / 2) * width
        look = {"color": _BARS[i % len(_BARS)], "hatch": _HATCHES[i % len(_HATCHES)], "edgecolor": "white"}
        ax.bar(left, figures[name], width, label=str(name), **look)
    ax.axhline(1.0, color=VALIDATION, linestyle="--", linewidth=1)
    ax.set_xticks(np.arange(len(figures)), list(figures.index))
    ax.grid(axis="x", visible=False)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _figures(z_nk: np.ndarray, batches: object, labels: object) -> dict[str, float]:
    found = batch_mixing(z_nk, batches)
    figures = {"batches mixed:\nforeign share": found.foreign_share, "batches mixed:\niLISI": found.ilisi}
    if labels is not None:
        rows = np.arange(len(z_nk))
        figures["labels kept:\nfound by neighbours"] = knn_label_accuracy(z_nk, labels, rows[::2], rows[1::2])
    return figures
