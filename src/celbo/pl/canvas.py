"""What all pictures share: where to draw, colours, markers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.kinds import Instance
from ..report.figures import MUTED, OTHER, PALETTE, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AXES", "MARKERS", "canvas", "points_by_group"]

AXES = Instance("matplotlib Axes", lambda value: hasattr(value, "scatter"), "Make one: fig, ax = plt.subplots().")

MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*", "h", "d")
"""Of the groups, in their order; with more groups they come again, in another colour."""


def canvas(ax: "Axes | None", x: str, y: str, *, width: float = 5.0, height: float = 3.6) -> "Axes":
    """Axes with the names of both axes, on a new figure unless given.

    Parameters
    ----------
    ax
        Where to draw.
    x, y
        Names of the axes, with their units.
    width, height
        Of a new figure, in inches.
    """
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=(width, height), layout="constrained")[1]
    plain(ax, "")
    ax.set_xlabel(x, color=MUTED)
    ax.set_ylabel(y, color=MUTED)
    return ax


def points_by_group(ax: "Axes", place_n2: np.ndarray, code_n: np.ndarray, names: Sequence[str], title: str) -> None:
    """Points whose groups differ by colour and by marker, with a legend; a code of -1 is a cell without a group.

    Parameters
    ----------
    ax
        Where to draw.
    place_n2
        ``(n, 2)`` places.
    code_n
        ``(n,)`` number of each cell's group.
    names
        Of the groups.
    title
        Of the legend.
    """
    size = float(np.clip(9000 / max(len(place_n2), 1), 2, 20))
    for code in range(-1, len(names)):
        of_group = code_n == code
        if of_group.any():
            colour = OTHER if code < 0 or code >= len(PALETTE) else PALETTE[code]
            label = "none" if code < 0 else names[code]
            marker = MARKERS[code % len(MARKERS)] if code >= 0 else "."
            x_n, y_n = place_n2[of_group].T
            ax.scatter(x_n, y_n, s=size, color=colour, marker=marker, alpha=0.7, linewidths=0, label=label)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=2, fontsize="small", title=title)
