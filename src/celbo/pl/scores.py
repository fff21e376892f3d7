"""Scores of cells, proteins in them, and shares of spots."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd

from ..core import checked, unknown_name
from ..core.kinds import Instance, Text
from ..external import SOLO
from ..model import TOTALVI
from ..report.doublets import DoubletDetail
from ..report.figures import INK, TRAIN, VALIDATION, draw_scores
from ..report.proteins import ProteinDetail
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["doublet_scores", "proportions", "protein_levels"]

_SHARES = Instance(
    "a table of proportions, spots by cell types",
    lambda value: isinstance(value, pd.DataFrame) and value.shape[1] > 0,
    "It is what model.get_proportions() gives.",
)


@checked
def doublet_scores(model: SOLO, *, ax: Annotated[Any, AXES] = None) -> "Axes":
    """Draw the doublet scores of cells and of simulated doublets.

    Parameters
    ----------
    model
        A trained :class:`~celbo.external.SOLO`.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: probability of being a doublet, and shares of the cells and of the simulated doublets, each of its own
    number, in 40 bins.
    """
    ax = canvas(ax, "probability of being a doublet", "share of the cells, or of the doublets")
    found = DoubletDetail.of(model, seed=0)
    draw_scores(ax, found.score_n, found.simulated_m)
    return ax


@checked
def protein_levels(model: TOTALVI, *, seed: int = 0, ax: Annotated[Any, AXES] = None) -> "Axes":
    """Draw for each protein the mean count of cells with foreground, and that of cells with background alone.

    Parameters
    ----------
    model
        A trained :class:`~celbo.model.TOTALVI` or :class:`~celbo.external.TOTALANVI`, with its data.
    seed
        Of the cells asked, at most 2,000, and of what is drawn for them.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: proteins downwards, those of the largest ratio first; mean counts to the right on a logarithmic axis. Dots
    are background, triangles foreground, joined by a line; a protein without cells of one kind has one of both.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    found = ProteinDetail.of(model, seed).proteins[["background", "foreground"]]
    order = (found["foreground"] / found["background"]).sort_values(ascending=False, na_position="last", kind="stable")
    found = found.loc[order.index]
    ax = canvas(ax, "mean count per cell", "", width=5.0, height=1.0 + 0.22 * len(found))
    at = np.arange(len(found))
    ax.hlines(at, found["background"], found["foreground"], color=INK, linewidth=1, alpha=0.5)
    for kind, marker, colour in (("background", "o", TRAIN), ("foreground", "^", VALIDATION)):
        ax.scatter(found[kind], at, marker=marker, color=colour, s=28, label=f"cells with {kind}", zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(at, [str(name) for name in found.index])
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@checked
def proportions(
    table: Annotated[pd.DataFrame, _SHARES],
    places: object,
    cell_type: Annotated[str | None, Text()] = None,
    *,
    ax: Annotated[Any, AXES] = None,
) -> "Axes":
    """Draw the share of one cell type in each spot of a tissue, where the spot lies.

    Parameters
    ----------
    table
        ``(s, c)`` what ``get_proportions()`` of DestVI or SpatialStereoscope gave.
    places
        ``(s, 2)`` coordinates of the spots, such as ``adata.obsm["spatial"]``; their second grows downwards, as in
        pictures of tissue.
    cell_type
        Column of ``table``; None: the most frequent one.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: dark spots have most of the type; the scale begins at 0.

    Raises
    ------
    KeyError
        No such cell type; it names the nearest.
    ValueError
        Other places than spots.

    Examples
    --------
    >>> import celbo
    >>> import pandas as pd
    >>> table = pd.DataFrame({"B": [0.2, 0.7], "T": [0.8, 0.3]})
    >>> celbo.pl.proportions(table, [[0, 0], [1, 0]], "B").get_title(loc="left")
    'B'
    """
    name = str(table.mean().idxmax()) if cell_type is None else cell_type
    if name not in table:
        raise KeyError(unknown_name("cell type, a column of the table,", name, table.columns))
    place_s2 = np.asarray(places, dtype=float)
    if place_s2.ndim != 2 or place_s2.shape[0] != len(table) or place_s2.shape[1] < 2:
        raise ValueError(f"places must be two coordinates of {len(table)} spots, got shape {place_s2.shape}.")
    ax = canvas(ax, "first coordinate", "second coordinate", width=4.8, height=4.0)
    ax.set_title(name, loc="left", color=INK, fontsize=10)
    size = float(np.clip(9000 / len(table), 4, 60))
    x_s, y_s = place_s2[:, :2].T
    drawn = ax.scatter(x_s, y_s, s=size, c=table[name].to_numpy(float), cmap="viridis_r", vmin=0, linewidths=0)
    ax.figure.colorbar(drawn, ax=ax, label="share of the spot")
    ax.set_aspect("equal")
    ax.invert_yaxis()
    return ax
