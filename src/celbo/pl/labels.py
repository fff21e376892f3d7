"""Labels that a model predicted, beside those that are known.

Dims: n cells, c labels.
"""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd

from ..core import checked, unknown_name
from ..core.kinds import Instance
from ..report.classification import calibration as binned
from ..report.classification import confusion_matrix
from ..report.figures import INK, draw_calibration
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["calibration", "confusion"]

_PROBABILITIES = Instance(
    "a table of probabilities, cells by labels",
    lambda value: isinstance(value, pd.DataFrame) and value.shape[1] > 1 and len(value) > 0,
    "It is what model.predict(soft=True) gives.",
)
_MOST_WRITTEN = 15


@checked
def confusion(known: object, predicted: object, *, ax: Annotated[Any, AXES] = None) -> "Axes":
    """Draw which labels were predicted for cells whose label is known.

    Parameters
    ----------
    known, predicted
        ``(n,)`` labels of the same cells; those without a known label (missing values) are left out.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: known labels downwards, predicted ones to the right. The shade is the share of the row, which is also
    written where there are at most 15 labels.

    Raises
    ------
    ValueError
        Different numbers of cells, or no known label.

    Examples
    --------
    >>> import celbo
    >>> celbo.pl.confusion(["B", "B", "T"], ["B", "T", "T"]).get_ylabel()
    'known label'
    """
    known_n, predicted_n = np.asarray(known, dtype=object), np.asarray(predicted, dtype=object)
    if known_n.shape != predicted_n.shape:
        raise ValueError(f"One prediction a cell is needed, got {predicted_n.shape} for {known_n.shape} known labels.")
    is_known_n = ~pd.isna(known_n)
    if not is_known_n.any():
        raise ValueError("No cell has a known label.")
    known_n, predicted_n = known_n[is_known_n].astype(str), predicted_n[is_known_n].astype(str)
    name_c = np.unique(np.concatenate([known_n, predicted_n]))
    count_cc = confusion_matrix(np.searchsorted(name_c, known_n), np.searchsorted(name_c, predicted_n), len(name_c))
    share_cc = count_cc / np.maximum(count_cc.sum(1, keepdims=True), 1)
    ax = canvas(ax, "predicted label", "known label", width=5.0, height=4.2)
    drawn = ax.imshow(share_cc, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.figure.colorbar(drawn, ax=ax, label="share of the known label")
    ax.grid(visible=False)
    ax.set_xticks(range(len(name_c)), name_c, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(name_c)), name_c)
    if len(name_c) <= _MOST_WRITTEN:
        _write(ax, share_cc)
    return ax


def _write(ax: "Axes", share_cc: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(share_cc):
        if share > 0:
            colour = "white" if share > 0.55 else INK
            ax.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize="x-small", color=colour)


@checked
def calibration(
    probabilities: Annotated[pd.DataFrame, _PROBABILITIES], known: object, *, ax: Annotated[Any, AXES] = None
) -> "Axes":
    """Draw how often predicted labels are right, by how sure the model was.

    Parameters
    ----------
    probabilities
        ``(n, c)`` what ``model.predict(soft=True)`` gave, columns by label.
    known
        ``(n,)`` labels of the same cells; those without a known label (missing values) are left out. Take cells whose
        labels the model did not see.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: probability of the predicted label to the right, share of right predictions upwards, in 15 bins; large
    bins have large dots. On the dashed line probabilities mean what they say; below it the model is too sure.

    Raises
    ------
    ValueError
        A known label that the model does not have, or none at all.

    Examples
    --------
    >>> import celbo
    >>> import pandas as pd
    >>> soft = pd.DataFrame({"B": [0.9, 0.2], "T": [0.1, 0.8]})
    >>> celbo.pl.calibration(soft, ["B", "T"]).get_ylabel()
    'share of right predictions'
    """
    known_n = pd.Series(np.asarray(known, dtype=object))
    is_known_n = known_n.notna().to_numpy()
    if len(known_n) != len(probabilities) or not is_known_n.any():
        raise ValueError(
            f"Known labels of the same cells are needed, got {int(is_known_n.sum())} of {len(known_n)} for "
            f"{len(probabilities)} predictions."
        )
    names = probabilities.columns.astype(str)
    code_n = names.get_indexer(pd.Index(known_n[is_known_n].astype(str).to_numpy()))
    if (code_n < 0).any():
        raise ValueError(
            unknown_name("label of the model", known_n[is_known_n].iloc[int((code_n < 0).argmax())], names)
        )
    ax = canvas(ax, "probability of the predicted label", "share of right predictions", width=4.2, height=4.0)
    draw_calibration(ax, binned(probabilities.to_numpy()[is_known_n], code_n))
    return ax
