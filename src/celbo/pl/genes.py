"""Genes that differ."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd

from ..core import checked, unknown_name
from ..core.kinds import Instance, Text, Whole
from ..report.figures import INK, MUTED, OTHER, TRAIN, VALIDATION
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loadings", "volcano"]

_TABLE = Instance(
    "a table of differential_expression(mode='change')",
    lambda value: isinstance(value, pd.DataFrame) and {"lfc_mean", "proba_de"} <= set(value.columns),
    "Take one comparison: groupby, group1 and group2.",
)

_WEIGHTS = Instance(
    "a table of numbers, genes by dimensions",
    lambda value: isinstance(value, pd.DataFrame) and all(dtype.kind in "fiu" for dtype in value.dtypes),
    "It is what model.get_loadings() or get_feature_by_topic() gives.",
)


@checked
def volcano(
    table: Annotated[pd.DataFrame, _TABLE], n_names: Annotated[int, Whole(0)] = 8, *, ax: Annotated[Any, AXES] = None
) -> "Axes":
    """Draw each gene's probability of a change against its log fold change, and which genes are listed.

    Parameters
    ----------
    table
        What ``differential_expression(mode="change")`` gave of one comparison. Genes of its first column
        ``is_de_fdr_*`` are listed, those of an expected false discovery rate; the line is at the last of them.
    n_names
        Number of listed genes of the largest changes that are named.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: log2 fold change, and a probability. Listed genes are triangles.

    Examples
    --------
    >>> import celbo
    >>> import pandas as pd
    >>> table = pd.DataFrame({"lfc_mean": [2.0, 0.1], "proba_de": [0.99, 0.2], "is_de_fdr_0.05": [True, False]})
    >>> celbo.pl.volcano(table).get_xlabel()
    'log2 fold change'
    """
    column = next((name for name in map(str, table.columns) if name.startswith("is_de_fdr_")), None)
    is_listed = np.zeros(len(table), dtype=bool) if column is None else table[column].to_numpy(bool)
    ax = canvas(ax, "log2 fold change", "probability of a change")
    _genes(ax, table[~is_listed], OTHER, "o", "not listed" if column else "genes")
    if column is not None and is_listed.any():
        target = float(column.removeprefix("is_de_fdr_"))
        _genes(ax, table[is_listed], VALIDATION, "^", f"listed, expected FDR {target:.0%}")
        ax.axhline(float(table["proba_de"][is_listed].min()), color=MUTED, linestyle="--", linewidth=1)
    _names(ax, table[is_listed], n_names)
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def _genes(ax: "Axes", table: pd.DataFrame, colour: str, marker: str, label: str) -> None:
    change_g, proba_g = table["lfc_mean"].to_numpy(float), table["proba_de"].to_numpy(float)
    ax.scatter(change_g, proba_g, s=14, color=colour, marker=marker, linewidths=0, label=label)


def _names(ax: "Axes", listed: pd.DataFrame, n_names: int) -> None:
    change_g, proba_g = listed["lfc_mean"].to_numpy(float), listed["proba_de"].to_numpy(float)
    for row in np.argsort(-np.abs(change_g), kind="stable")[:n_names]:
        place = (change_g[row], proba_g[row])
        name = str(listed.index[row])
        ax.annotate(name, place, (3, 3), textcoords="offset points", fontsize="x-small", color=INK)


@checked
def loadings(
    table: Annotated[pd.DataFrame, _WEIGHTS],
    dimension: Annotated[str | None, Text()] = None,
    n_genes: Annotated[int, Whole(1)] = 10,
    *,
    ax: Annotated[Any, AXES] = None,
) -> "Axes":
    """Draw the genes that weigh most in one dimension, upwards and downwards.

    Parameters
    ----------
    table
        ``(g, k)`` what :meth:`LinearSCVI.get_loadings <celbo.model.LinearSCVI.get_loadings>` gave, or topics of genes.
    dimension
        Its column; None: the first.
    n_genes
        Genes to draw of either sign.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: a bar for each gene, the largest weight on top; negative ones are hatched.

    Raises
    ------
    KeyError
        No such dimension; it names the nearest.

    Examples
    --------
    >>> import celbo
    >>> import pandas as pd
    >>> table = pd.DataFrame({"Z_0": [0.5, -0.2, 0.1]}, index=["a", "b", "c"])
    >>> [label.get_text() for label in celbo.pl.loadings(table).get_yticklabels()]
    ['a', 'c', 'b']
    """
    dimension = str(table.columns[0]) if dimension is None else dimension
    if dimension not in table:
        raise KeyError(unknown_name("dimension, a column of the table,", dimension, table.columns))
    weight = table[dimension].sort_values(ascending=False, kind="stable")
    shown = pd.concat([weight[weight > 0].head(n_genes), weight[weight < 0].tail(n_genes)])
    ax = canvas(ax, f"weight in {dimension}", "", width=4.0, height=0.9 + 0.2 * len(shown))
    for is_kind, colour, hatch in ((shown > 0, TRAIN, ""), (shown < 0, VALIDATION, "//")):
        at = np.flatnonzero(is_kind)
        ax.barh(at, shown.to_numpy()[at], color=colour, hatch=hatch, edgecolor="white")
    ax.set_yticks(range(len(shown)), [str(name) for name in shown.index])
    ax.invert_yaxis()
    ax.axvline(0, color=MUTED, linewidth=1)
    ax.grid(axis="y", visible=False)
    return ax
