"""Genes: matching them by name, and choosing the variable ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd

from ..core import DataMismatchError, checked
from ..core.argument_names import MATRIX
from ..core.kinds import Text
from ..store.matrices.blocks import DenseBlock, blocks, shape_of

__all__ = ["GeneMatch", "align_genes", "top_variable_genes"]

_SHOWN = 5

Names = Sequence[str] | Sequence[int] | np.ndarray | pd.Index


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Where the reference's genes are in other data.

    Parameters
    ----------
    indexer
        ``(g,)`` integers: reference gene ``j`` is column ``indexer[j]`` of the data, -1 when it is missing.
    found, missing
        Names of the reference genes that the data have, and have not, in the reference's order.
    extra
        Names that only the data have, in their order.
    where
        How messages call the data's names.
    """

    indexer: np.ndarray
    found: np.ndarray
    missing: np.ndarray
    extra: np.ndarray
    where: str = "var_names"

    @property
    def is_identity(self) -> bool:
        """Whether the data have the reference's genes, all and only, in its order."""
        return not len(self.extra) and np.array_equal(self.indexer, np.arange(len(self.indexer)))

    def raise_if_missing(self) -> None:
        """Raise a ``DataMismatchError`` that says how many reference genes are missing, and names the first ones."""
        if len(self.missing):
            raise DataMismatchError(self._missing_in_python(), self._missing_on_command_line())

    def _missing_in_python(self) -> str:
        return (
            f"{self.where} lacks {len(self.missing)} of the {len(self.indexer)} reference names: "
            f"{_listed(self.missing)}. Received: {len(self.found)} of them and {len(self.extra)} others "
            f"({_listed(self.extra)}). Use the same kind of names as the reference (symbols or identifiers), or pad "
            "missing genes explicitly by mapping the data as a query."
        )

    def _missing_on_command_line(self) -> str:
        return (
            f"The input lacks {len(self.missing)} of the {len(self.indexer)} genes of the model: "
            f"{_listed(self.missing)}. It has {len(self.found)} of them and {len(self.extra)} others "
            f"({_listed(self.extra)}). Give a file with all of these genes under the same kind of names (symbols or "
            "identifiers), or train a model on the genes that all files have; in Python, prepare_query_anndata fills "
            "missing genes with zeros."
        )

    def summary(self) -> str:
        """One sentence on what was done to match."""
        text = f"{self.where}: {len(self.found)} columns are matched by name"
        text += " in another order" if not np.array_equal(np.sort(self.indexer), self.indexer) else ""
        return text + (f", {len(self.extra)} others are not used" if len(self.extra) else "")


def _listed(names: np.ndarray) -> str:
    return ", ".join(repr(str(name)) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "none"


@checked
def align_genes(var_names: Names, reference_names: Names, *, where: Annotated[str, Text()] = "var_names") -> GeneMatch:
    """Find each reference gene among the genes of other data, by name.

    Parameters
    ----------
    var_names
        ``(h,)`` names of the data's columns.
    reference_names
        ``(g,)`` names in the order a model wants them.
    where
        How messages call ``var_names``.

    Returns
    -------
    The match, with missing genes left at -1: call :meth:`GeneMatch.raise_if_missing` unless they are to be padded.

    Raises
    ------
    ValueError
        When a name that must be found occurs twice, so that it could mean either column. Two equal lists are
        matched by position, also with repeated names.
    """
    names, reference = pd.Index(np.asarray(var_names)), pd.Index(np.asarray(reference_names))
    if names.equals(reference):
        nothing = np.array([], dtype=object)
        return GeneMatch(np.arange(len(reference)), np.asarray(reference), nothing, nothing, where)
    _require_unique(reference, "the reference's names")
    is_known = names.isin(reference)
    _require_unique(names[is_known], where)
    within = names[is_known].get_indexer(reference)
    has = within >= 0
    indexer = np.full(len(reference), -1)
    indexer[has] = np.flatnonzero(is_known)[within[has]]
    extra = np.asarray(names[~is_known])
    return GeneMatch(indexer, np.asarray(reference[has]), np.asarray(reference[~has]), extra, where)


def _require_unique(names: pd.Index, where: str) -> None:
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"{where} holds {len(twice)} names more than once ({_listed(np.asarray(twice))}), so genes cannot be "
            "matched by name. Make them unique: adata.var_names_make_unique(), and check which of the columns is meant."
        )


@checked
def top_variable_genes(x: Annotated[Any, MATRIX], n_top: int) -> np.ndarray:
    r"""Mark the genes that vary most beyond counting noise.

    .. math:: d_g = \mathrm{var}_n(x_{ng}) / \mathrm{mean}_n(x_{ng})

    The variance-to-mean ratio of raw counts is 1 for a Poisson gene whatever its mean.

    Parameters
    ----------
    x
        ``(n, g)`` raw counts in any storage that :func:`~celbo.store.matrices.blocks.blocks` reads; one
        pass, bounded memory.
    n_top
        How many genes.

    Returns
    -------
    ``(g,)`` booleans with exactly ``n_top`` true. Of equal genes the first is taken; genes without counts come last.

    Raises
    ------
    ValueError
        Unless ``1 <= n_top <= g``.
    """
    n, g = shape_of(x)
    if not 1 <= n_top <= g:
        raise ValueError(f"n_top must be between 1 and the number of genes ({g}), got {n_top}.")
    sum_g, square_g = _moments(x, g)
    mean_g = sum_g / max(n, 1)
    ratio_g = np.divide(square_g / max(n, 1) - mean_g**2, mean_g, out=np.full(g, -1.0), where=mean_g > 0)
    chosen_g = np.zeros(g, dtype=bool)
    chosen_g[np.argsort(-ratio_g, kind="stable")[:n_top]] = True
    return chosen_g


def _moments(x: object, g: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over cells of the counts and of their squares, each ``(g,)`` float64."""
    sum_g, square_g = np.zeros(g), np.zeros(g)
    for block in blocks(x):
        if isinstance(block, DenseBlock):
            values = block.values.astype(np.float64)
            sum_g += values.sum(axis=0)
            square_g += np.einsum("ng,ng->g", values, values)
        else:
            data, columns = block.data.astype(np.float64), block.column_of_entry()
            sum_g += np.bincount(columns, weights=data, minlength=g)
            square_g += np.bincount(columns, weights=data**2, minlength=g)
    return sum_g, square_g
