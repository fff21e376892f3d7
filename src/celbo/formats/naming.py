"""Names of cells and genes, and which of several kinds of features are taken.

Dims: n cells, h features as stored, g features that come out.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from ..core import unknown_name

__all__ = ["RNA", "chosen_features", "listed", "no_modalities", "numbered", "only_one", "unique"]

RNA = "Gene Expression"
"""What 10x calls a feature that is a gene."""

logger = logging.getLogger("celbo")


def unique(path: Path, what: str, names: Sequence[str] | pd.Index | np.ndarray, kept: str = "") -> pd.Index:
    """Names, ``-1``, ``-2`` put behind those that come again, as anndata does; this is logged.

    Parameters
    ----------
    path, what
        For the message: the file, and what is named.
    names
        As stored.
    kept
        Where they stand as they are stored, for the message.
    """
    index = pd.Index(np.asarray(names, dtype=object).astype(str), dtype=object)
    if index.is_unique:
        return index
    again = index[index.duplicated()].unique()
    with anndata.settings.override(check_uniqueness=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a name such as A-1 was there before
        holder = anndata.AnnData(var=pd.DataFrame(index=index))
        holder.var_names_make_unique()
    logger.info(
        "%s: %d %s more than once (%s): -1, -2, ... are put behind those that come again%s.",
        path,
        len(again),
        f"name of a {what} is there" if len(again) == 1 else f"names of {what}s are there",
        listed(again),
        f"; {kept}" if kept else "",
    )
    return holder.var_names


def numbered(path: Path, what: str, n: int) -> pd.Index:
    """Numbers in place of missing names; this is logged."""
    logger.info("%s has no names of %ss: they are numbered, %s_0 to %s_%d.", path, what, what, what, n - 1)
    return pd.Index([f"{what}_{i}" for i in range(n)], dtype=object)


def listed(names: Sequence[Any] | pd.Index | np.ndarray, limit: int = 3) -> str:
    """The first names, quoted."""
    return ", ".join(repr(str(name)) for name in names[:limit]) + (", ..." if len(names) > limit else "")


def only_one(path: Path, what: str, sizes: Mapping[str, str], modality: str | None) -> str:
    """The part of a file to read.

    Parameters
    ----------
    path, what
        For messages: the file, and what its parts are, in the plural.
    sizes
        The parts -> how large each is.
    modality
        The part that the user asks for.

    Raises
    ------
    ValueError
        For another name, or when none is given and there are several.
    """
    if modality is not None:
        if modality not in sizes:
            raise ValueError(f"{path}: {unknown_name('modality', modality, sizes)}")
        return modality
    if len(sizes) == 1:
        return next(iter(sizes))
    there = ", ".join(f"{name!r} ({size})" for name, size in sizes.items())
    together = " All of them, for a model of several: celbo.data.read_mudata." if what == "modalities" else ""
    raise ValueError(
        f"{path} holds {len(sizes)} {what}, and a model of one matrix takes one of them: {there}. Say which, for "
        f"example modality='{_likeliest(list(sizes))}'.{together}"
    )


def no_modalities(path: Path, modality: str) -> ValueError:
    """The error for a modality that is asked of what has none."""
    return ValueError(f"{path} has no modalities to choose from: leave modality='{modality}' out.")


def _likeliest(names: Sequence[str]) -> str:
    return next((name for name in names if name.lower() in ("rna", "gex", RNA.lower())), names[0])


def chosen_features(
    path: Path, types: Sequence[str] | np.ndarray, modality: str | None, tells: bool = True
) -> np.ndarray | None:
    """Which features are taken: those of the type that is asked for, else the genes; None: all.

    Parameters
    ----------
    path
        For messages.
    types
        Type of each feature, ``(h,)``.
    modality
        The type that the user asks for.
    tells
        Whether to log what is left out.

    Returns
    -------
    Places of the features that are taken, ``(g,)``.

    Raises
    ------
    ValueError
        When there is no such type, or several and none of genes.
    """
    types_h = np.asarray(types).astype(str)
    names, counts = np.unique(types_h, return_counts=True)
    if len(names) <= 1 and modality is None:
        return None
    sizes = {str(name): f"{count} features" for name, count in zip(names, counts)}
    taken = RNA if modality is None and RNA in sizes else only_one(path, "types of features", sizes, modality)
    others = {name: count for name, count in zip(names.tolist(), counts.tolist()) if name != taken}
    if others and tells:
        logger.info(
            "%s: %d features of type %r are taken; left out: %s. For these: modality='%s'.",
            path,
            int(np.count_nonzero(types_h == taken)),
            taken,
            ", ".join(f"{count} of type {name!r}" for name, count in others.items()),
            next(iter(others)),
        )
    return np.flatnonzero(types_h == taken)
