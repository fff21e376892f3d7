"""From the names a user gives to codes and columns, with errors that list what there is."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..core import listed, position_of, settings, unknown_name

__all__ = ["batch_codes", "gene_columns"]


def batch_codes(
    names: object, categories: Sequence[Any] | np.ndarray, argument: str = "transform_batch"
) -> list[int | None]:
    """Codes of batches that are given by name.

    Parameters
    ----------
    names
        A category, several of them, or None.
    categories
        The categories in the order of their codes.
    argument
        The argument that names them, for messages.

    Returns
    -------
    Codes; ``[None]``, the observed batch, for None.

    Raises
    ------
    ValueError
        A name that is no category, by value or by text (nearest first), or no name at all.
    """
    if names is None:
        return [None]
    given = listed(names)
    if not given:
        raise ValueError(
            f"{argument} is empty: give at least one category of the batch, or None for the observed batches."
        )
    known = list(categories)
    return [None if name is None else position_of(name, known, f"batch category ({argument})") for name in given]


def gene_columns(
    gene_list: Iterable[str] | None, var_names: Sequence[str] | np.ndarray, argument: str = "gene_list"
) -> np.ndarray | None:
    """Columns of the genes of a list, in the order of ``var_names``.

    Parameters
    ----------
    gene_list
        Names, in any order, or a boolean mask over the model's genes; None for all genes.
    var_names
        Names of the model's genes.
    argument
        The argument that names them, for messages: ``"protein_list"`` names proteins.

    Returns
    -------
    Ascending column numbers, or None for all genes. A warning says which names the model does not know.

    Raises
    ------
    ValueError
        When it knows none of them, when there is none, or for a mask of another length.
    """
    if gene_list is None:
        return None
    given, kind = listed(gene_list), argument.removesuffix("_list")
    if not given:
        raise ValueError(f"{argument} is empty: name at least one {kind}, or leave it out for all of them.")
    mask_g = np.asarray(given)
    if mask_g.dtype == bool:
        return _masked(mask_g, len(var_names), argument)
    columns = np.flatnonzero(np.isin(np.asarray(var_names, dtype=object), np.asarray(given, dtype=object)))
    unknown = sorted(set(map(str, given)) - set(np.asarray(var_names)[columns].tolist()))
    if not len(columns):
        numbers = (
            ""
            if any(isinstance(name, str) for name in given)
            else f" {kind.capitalize()}s are called by name, not by number."
        )
        raise ValueError(f"{unknown_name(kind, given[0], var_names)} None of {argument} is there.{numbers}")
    if unknown:
        shown = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        message = f"{argument}: the model does not know {shown}; the answer is about the other {len(columns)} {kind}s."
        warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel + 2)
    return columns


def _masked(mask_g: np.ndarray, n_genes: int, argument: str) -> np.ndarray:
    if mask_g.shape != (n_genes,):
        raise ValueError(
            f"{argument} is a boolean mask of shape {mask_g.shape}; it needs {n_genes} entries, one a feature."
        )
    if not mask_g.any():
        raise ValueError(f"{argument} is a boolean mask that is empty: at least one entry must be True.")
    return np.flatnonzero(mask_g)
