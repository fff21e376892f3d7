"""Query data brought into the shape a reference wants: its genes, in its order, with zeros for those not measured."""

import logging
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ....core import settings
from ....data.access import raw_of
from ....data.genes import GeneMatch, align_genes
from ....store.matrices.index_structure import check_sparse

__all__ = ["match_genes", "with_counts_in_x", "with_raw", "with_reference_genes"]

logger = logging.getLogger("celbo")

_ENOUGH = 0.8
"""Share of the reference's genes below which the latents of a query are not to be trusted; scvi-tools' figure."""


def with_counts_in_x(adata: AnnData) -> AnnData:
    """The counts and genes of ``adata.raw`` as an AnnData of their own, without anything else."""
    raw = raw_of(adata)
    return AnnData(raw.X, obs=pd.DataFrame(index=adata.obs_names), var=raw.var)


def with_raw(adata: AnnData, raw: AnnData) -> AnnData:
    """Copy of an AnnData with other counts and genes in ``raw``."""
    prepared = adata.copy()
    prepared.raw = raw
    return prepared


def match_genes(adata: AnnData, reference_names: np.ndarray) -> GeneMatch:
    """Match a query's genes with the reference's by name, and say what was found.

    Parameters
    ----------
    adata
        The query.
    reference_names
        ``(g,)`` in the reference's order.

    Raises
    ------
    ValueError
        No gene of the reference is there, or a name occurs twice.

    Warns
    -----
    UserWarning
        Less than 80% of them are.
    """
    match = align_genes(adata.var_names, reference_names, where="the query's var_names")
    n, found = len(reference_names), len(match.found)
    if not found:
        raise ValueError(
            f"None of the reference's {n} genes is in the query, which has {adata.n_vars}: the reference calls them "
            f"{_some(reference_names)}, the query {_some(adata.var_names)}. Rename the query's var_names "
            "(symbols or identifiers, as the reference has them)."
        )
    logger.info(
        "Query genes: %d of the reference's %d found (%.1f%%), %d missing and padded with zeros%s, %d others left out.",
        *(found, n, 100 * found / n, len(match.missing)),
        f" ({_some(match.missing)})" if len(match.missing) else "",
        len(match.extra),
    )
    if found < _ENOUGH * n:
        warnings.warn(
            f"Only {found} of the reference's {n} genes ({100 * found / n:.1f}%) are in the query; the others count "
            "as zeros. Below 80% latents are distorted: use a query with more of them, or a reference of shared genes.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
    return match


def with_reference_genes(adata: AnnData, match: GeneMatch, reference_names: np.ndarray) -> AnnData:
    """New AnnData with the reference's genes in its order; missing ones are zeros in ``X`` and in every layer.

    ``var`` and ``varm`` of a missing gene are missing values. ``raw`` and ``varp`` are left out.

    Raises
    ------
    ValueError
        The AnnData lies in a file.
    """
    if adata.isbacked:
        raise ValueError("The query lies in a file, where no genes can be added: read it with adata.to_memory() first.")
    for place, x in (("adata.X", adata.X), *((f"adata.layers[{key!r}]", layer) for key, layer in adata.layers.items())):
        check_sparse(x, place)
    known = adata[:, match.found].copy()
    del known.raw, known.varp
    if not len(match.missing):
        return known
    n_missing = len(match.missing)
    blank = AnnData(
        None if adata.X is None else _zeros_like(adata.X, n_missing),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=pd.Index(match.missing)),
        layers={key: _zeros_like(layer, n_missing) for key, layer in adata.layers.items()},
    )
    for key, value in known.varm.items():
        blank.varm[key] = _missing_like(value, blank.var_names)
    padded = ad.concat([known, blank], axis="var", join="outer", merge="first", uns_merge="first")
    return padded[:, list(reference_names)].copy()


def _missing_like(value: Any, index: pd.Index) -> np.ndarray | pd.DataFrame:
    if isinstance(value, pd.DataFrame):
        return pd.DataFrame(np.nan, index=index, columns=value.columns)
    return np.full((len(index), *np.shape(value)[1:]), np.nan)


def _zeros_like(x: Any, n_columns: int) -> Any:
    """``(n, n_columns)`` zeros, dense or sparse as ``x`` is."""
    shape = (x.shape[0], n_columns)
    return sp.csr_matrix(shape, dtype=x.dtype) if sp.issparse(x) else np.zeros(shape, dtype=x.dtype)


def _some(names: np.ndarray | pd.Index) -> str:
    return ", ".join(repr(str(name)) for name in names[:5]) + (", ..." if len(names) > 5 else "")
