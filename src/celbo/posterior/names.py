"""From the names a user gives to codes and columns, with errors that list what there is."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..core import settings, unknown_name

__all__ = ["batch_codes", "gene_columns"]


def batch_codes(names: Any, categories: Sequence[Any] | np.ndarray) -> list[int | None]:
    """Codes of batches that are given by name.

    Parameters
    ----------
    names
        A category, several of them, or None.
    categories
        The categories in the order of their codes.

    Returns
    -------
    Codes; ``[None]``, the observed batch, for None.

    Raises
    ------
    ValueError
        A name that is no category (nearest first), or no name at all.
    """
    if names is None:
        return [None]
    given = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if not given:
        raise ValueError(
            "No batch is named: give at least one category of the batch, or None for the observed batches."
        )
    known = list(categories)
    return [_code(name, known) for name in given]


def _code(name: Any, known: list[Any]) -> int | None:
    if name is None:
        return None
    if name not in known:
        raise ValueError(unknown_name("batch category", name, known))
    return known.index(name)


def gene_columns(gene_list: Iterable[str] | None, var_names: Sequence[str] | np.ndarray) -> np.ndarray | None:
    """Columns of the genes of a list, in the order of ``var_names``.

    Parameters
    ----------
    gene_list
        Names, in any order; None for all genes.
    var_names
        Names of the model's genes.

    Returns
    -------
    Ascending column numbers, or None for all genes. A warning says which names the model does not know.

    Raises
    ------
    ValueError
        When it knows none of them.
    """
    if gene_list is None:
        return None
    given = [gene_list] if isinstance(gene_list, str) else list(gene_list)
    columns = np.flatnonzero(np.isin(np.asarray(var_names, dtype=object), np.asarray(given, dtype=object)))
    unknown = sorted(set(map(str, given)) - set(np.asarray(var_names)[columns].tolist()))
    if not len(columns):
        raise ValueError(f"{unknown_name('gene', next(iter(given), None), var_names)} None of gene_list is there.")
    if unknown:
        shown = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        message = f"gene_list: the model does not know {shown}; the answer is about the other {len(columns)} genes."
        warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel + 2)
    return columns
