"""Scores of cells."""

from typing import TYPE_CHECKING, Annotated, Any

from ..core import checked
from ..external import SOLO
from ..report.doublets import DoubletDetail
from ..report.figures import draw_scores
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["doublet_scores"]


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
