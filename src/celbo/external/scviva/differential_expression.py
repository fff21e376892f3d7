r"""Genes of a cell type in its niche, separated from those that its neighbours leak into its counts.

The comparisons are group 1 with group 2, group 1 with its own neighbours of other types (n1), n1 with group 2, and
n1 with the neighbours of group 2 (n2). A gene that is up in group 1 because of its neighbours is up in n1 as well, and
not up against n1. A Gaussian process on the two fold changes (group 1 and n1, both against group 2) smooths over genes
whether one is up against n1: its probability says how likely a marker is the group's own.

Dims: n cells, g genes, m neighbours.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...core import ArgumentError, optional
from ...data.spatial import nearest_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PROBABILITY", "DifferentialExpressionResults", "niche_results", "own_genes", "surrounding_cells"]

PROBABILITY = "proba_de_g1_n1"
"""Column with the probability that a gene of group 1 is its own, not its neighbours'; NaN where it is not up."""

_MOST_GENES = 400
_FIRST_SCALE, _FIRST_ALPHA = 10.0, 0.1
_SCALES, _ALPHAS = (10.0, 100.0), (1e-3, 1.0)
_MOST_NEAR = 30


@dataclass
class DifferentialExpressionResults:
    """Tables of the comparisons of two groups of cells and their neighbours.

    Attributes
    ----------
    gpc
        Gaussian process of scikit-learn on the fold changes; None where all genes were of one kind.
    g1_g2, g1_n1, n1_g2, n1_n2
        Group 1 against group 2, group 1 against its neighbours, these against group 2, and against the neighbours of
        group 2 (None where group 2 is all the rest). Each is a table of ``differential_expression``.
    n1_index, n2_index
        Row numbers of the neighbours.
    """

    gpc: Any
    g1_g2: pd.DataFrame
    g1_n1: pd.DataFrame
    n1_g2: pd.DataFrame
    n1_n2: pd.DataFrame | None = None
    n1_index: np.ndarray | None = None
    n2_index: np.ndarray | None = None

    def _repr_html_(self) -> str:
        """In notebooks: the first genes of each comparison."""
        tables = {
            "group 1 against group 2": self.g1_g2,
            "group 1 against its neighbours": self.g1_n1,
            "neighbours of group 1 against group 2": self.n1_g2,
            "neighbours of group 1 against those of group 2": self.n1_n2,
        }
        there = {title: table for title, table in tables.items() if table is not None}
        return "".join(f"<strong>{title}</strong>{table.head(10).to_html()}" for title, table in there.items())

    def gpc_info(self) -> dict[str, Any]:
        """Summary of the fitted Gaussian process: its kernel, log-likelihood and number of genes; empty without one."""
        if self.gpc is None:
            return {}
        return {
            "kernel": str(self.gpc.kernel_),
            "log_marginal_likelihood": float(self.gpc.log_marginal_likelihood_value_),
            "n_genes": int(self.g1_g2[PROBABILITY].notna().sum()),
        }

    def plot(
        self,
        X: pd.DataFrame | None = None,
        y: pd.Series | None = None,
        filter: Iterable[str] | None = None,
        background_filter: Iterable[str] | None = None,
        markersize: int = 50,
        fontsize: int = 10,
        chosen_colormap: str = "seismic",
        path_to_save: str | Path | None = None,
        show_plot: bool = True,
        dpi: int = 1000,
        margin: float = 0.1,
        manual_limits: tuple[float, float, float, float] | None = None,
        legend_loc: str = "upper right",
    ) -> "Axes":
        """Draw the genes of group 1 by their fold change in it and in its neighbours.

        Parameters
        ----------
        X
            Fold changes to draw, two columns; None: those of group 1 and of n1 against group 2.
        y
            What colours the genes, between 0 and 1; None: the probability that a gene is the group's own.
        filter
            Genes to name in the figure; None: all that are drawn.
        background_filter
            Genes to draw in grey.
        markersize, fontsize, chosen_colormap, dpi, legend_loc
            Of the figure.
        path_to_save
            File to write it to.
        show_plot
            Whether to show it.
        margin
            Room around the genes, as a share of their range.
        manual_limits
            Ends of the axes instead: left, right, bottom, top.
        """
        import matplotlib.pyplot as plt

        kept = self.g1_g2.index[self.g1_g2[PROBABILITY].notna()]
        drawn = _fold_changes(self.g1_g2, self.n1_g2).loc[kept] if X is None else X
        colours = self.g1_g2.loc[drawn.index, PROBABILITY] if y is None else y
        figure, axes = plt.subplots()
        axes.margins(margin)
        colouring: dict[str, Any] = {
            "c": colours,
            "cmap": chosen_colormap,
            "vmin": 0,
            "vmax": 1,
            "label": "up in group 1",
        }
        points = axes.scatter(drawn.iloc[:, 0], drawn.iloc[:, 1], s=markersize, **colouring)
        if background_filter is not None:
            grey = drawn.loc[drawn.index.intersection(list(background_filter))]
            axes.scatter(grey.iloc[:, 0], grey.iloc[:, 1], s=markersize, c="lightgrey", label="background")
            axes.legend(loc=legend_loc)  # type: ignore[call-overload]  # matplotlib says which places there are
        axes.set(xlabel="log2 fold change, group 1", ylabel="log2 fold change, its neighbours")
        if manual_limits is not None:
            axes.set(xlim=manual_limits[:2], ylim=manual_limits[2:])
        figure.colorbar(points, label="probability of being the group's own")
        for name in drawn.index if filter is None else drawn.index.intersection(list(filter)):
            axes.annotate(str(name), drawn.loc[name].to_numpy(), fontsize=fontsize)
        if path_to_save is not None:
            figure.savefig(path_to_save, dpi=dpi)
        if show_plot:
            plt.show()
        plt.close(figure)
        return axes


def niche_results(
    gpc: Any, tables: Sequence[pd.DataFrame], groups: Mapping[str, tuple[str, np.ndarray]]
) -> DifferentialExpressionResults:
    """The results as one object, from the tables in their order and the groups ``n1`` and perhaps ``n2``."""
    g1_g2, g1_n1, n1_g2, *of_second = tables
    results = DifferentialExpressionResults(gpc, g1_g2, g1_n1, n1_g2, n1_index=groups["n1"][1])
    if of_second:
        results.n1_n2, results.n2_index = of_second[0], groups["n2"][1]
    return results


def surrounding_cells(
    rows: np.ndarray,
    type_n: np.ndarray,
    xy_nd: np.ndarray,
    section_n: pd.Series | None,
    names: pd.Index,
    *,
    k_nn: int | None,
    radius: float | None,
) -> np.ndarray:
    """Cells around those of a group that are of another type than the cell they are near.

    Parameters
    ----------
    rows
        Row numbers of the group.
    type_n
        Type of each cell.
    xy_nd, section_n, names
        See :func:`~celbo.data.spatial.nearest_cells`.
    k_nn, radius
        Number of nearest cells, and radius in the unit of the coordinates that they must lie within; give one at least.

    Returns
    -------
    Row numbers in ascending order, without those of the group.

    Raises
    ------
    ArgumentError
        No such cell.
    """
    found = nearest_cells(xy_nd, k_nn or min(_MOST_NEAR, len(xy_nd) - 1), section_n, names, "k_nn")
    near_nm = np.ones(found.index_nm.shape, bool) if radius is None else found.distance_nm <= radius
    is_other_nm = near_nm & (type_n[found.index_nm] != type_n[:, None])
    around = np.setdiff1d(found.index_nm[rows][is_other_nm[rows]], rows)
    if not len(around):
        raise ArgumentError(
            "No cell of another type is near the group, so that its neighbours cannot be compared: ask for a larger "
            "radius= or k_nn=, or pass niche_mode=False."
        )
    return around


def _fold_changes(g1_g2: pd.DataFrame, n1_g2: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"g1_g2": g1_g2["lfc_median"], "n1_g2": n1_g2["lfc_median"].reindex(g1_g2.index)})


def own_genes(
    tables: Sequence[pd.DataFrame], fdr: Sequence[float], n_restarts: int, seed: int | None
) -> tuple[Any, pd.Series]:
    """Which genes that are up in group 1 are its own.

    Parameters
    ----------
    tables
        Of the comparisons: group 1 with group 2, group 1 with n1, n1 with group 2.
    fdr
        False discovery rates of the first two tables, whose columns say which genes are up.
    n_restarts
        Further starts of the search for the kernel.
    seed
        Of these starts, and of the genes that it is fitted to where there are more than 400.

    Returns
    -------
    The Gaussian process (None where all genes are of one kind) and the probability of each gene.
    """
    g1_g2, g1_n1, n1_g2 = tables[:3]
    of_groups, of_niche = (f"is_de_fdr_{rate}" for rate in fdr[:2])
    up = g1_g2.index[g1_g2[of_groups] & (g1_g2["lfc_median"] > 0)]
    probability = pd.Series(np.nan, index=g1_g2.index, name=PROBABILITY)
    if not len(up):
        return None, probability
    against = g1_n1.loc[up]
    is_own = (against[of_niche] & (against["lfc_median"] > 0)).to_numpy()
    if is_own.all() or not is_own.any():
        probability[up] = float(is_own[0])
        return None, probability
    changes = _fold_changes(g1_g2, n1_g2).loc[up].to_numpy()
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(up))[:_MOST_GENES]
    if len(np.unique(is_own[some])) < 2:  # the fit needs one of each kind
        some = np.append(some, np.flatnonzero(is_own != is_own[some[0]])[0])
    gpc = _process(n_restarts, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel parameter at its bound is of no use to users
        gpc.fit(changes[some], is_own[some])
    probability[up] = gpc.predict_proba(changes)[:, 1]
    return gpc, probability


def _process(n_restarts: int, rng: np.random.Generator) -> Any:
    process = optional("sklearn.gaussian_process", extra="sklearn", purpose="differential_expression(niche_mode=True)")
    kernels = optional("sklearn.gaussian_process.kernels", extra="sklearn", purpose="niche_mode=True")
    smooth = kernels.RationalQuadratic(_FIRST_SCALE, _FIRST_ALPHA, length_scale_bounds=_SCALES, alpha_bounds=_ALPHAS)
    return process.GaussianProcessClassifier(
        kernels.ConstantKernel() * smooth, n_restarts_optimizer=n_restarts, random_state=int(rng.integers(2**31))
    )
