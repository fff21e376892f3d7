r"""Genes that are zero more often than depth alone explains (M3Drop, :cite:p:`Andrews18`).

Were gene :math:`g` spread over cells by their depth only, cell :math:`n` would have none of it with probability
:math:`e^{-t_n \rho_g}` (:math:`t_n` total of the cell, :math:`\rho_g` share of the gene in all counts). The mean over
cells is the expected fraction of zeros :math:`e_g`; :math:`o_g` is the observed one. Genes are ranked by the
probability that a cell drawn has a zero where one drawn under the Poisson has none, :math:`o_g (1 - e_g)`.

Dims: n cells, g genes, b batches.
"""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import checked, unknown_name
from ..store.matrices.blocks import CompressedBlock, blocks, shape_of
from .access import anndata_value
from .counts import is_count_matrix

__all__ = ["poisson_gene_selection"]

_ENTRIES = 2**22
"""Entries of the matrix of expected zeros that is held at once: 32 MiB of float64."""


@checked
def poisson_gene_selection(
    adata: AnnData,
    layer: str | None = None,
    n_top_genes: int = 4000,
    accelerator: str = "auto",
    device: int | str = "auto",
    subset: bool = False,
    inplace: bool = True,
    n_samples: int = 10000,
    batch_key: str | None = None,
    silent: bool = False,
    minibatch_size: int = 5000,
) -> pd.DataFrame | None:
    """Find genes with more zeros than depth explains.

    Parameters
    ----------
    adata
        Cells by genes.
    layer
        Layer with the counts; None: ``X``.
    n_top_genes
        Genes to take; all of them where there are fewer.
    accelerator, device, n_samples, silent, minibatch_size
        Accepted for compatibility with scvi-tools: the probability that it draws samples for is computed.
    subset
        Keep only the genes taken.
    inplace
        Write the result into ``adata.var`` (and ``uns["hvg"]``) instead of returning it.
    batch_key
        Column of ``obs``: ranks are found within each batch and their median taken, so that genes whose only
        difference is between batches are not.

    Returns
    -------
    None, or a row for each gene: ``observed_fraction_zeros``, ``expected_fraction_zeros``, ``prob_zero_enrichment``,
    ``prob_zero_enrichment_rank`` (the largest is the best), ``highly_variable``, and with ``batch_key`` (always in
    ``adata.var``) ``prob_zero_enriched_nbatches``, the number of batches in which the gene would be taken.

    Raises
    ------
    KeyError
        Unknown layer or column.
    ValueError
        The matrix holds something else than counts.
    """
    x = anndata_value(adata, "X" if layer is None else "layers", layer)
    if not is_count_matrix(x):
        raise ValueError(
            "`poisson_gene_selection` expects raw count data (non-negative integers): "
            "name the layer that holds them with layer=."
        )
    codes_n, n_batches = _batches(adata, batch_key)
    n_top = min(n_top_genes, shape_of(x)[1])
    table = _ranked(*_fractions_of_zeros(x, codes_n, n_batches), n_top)
    table.index = adata.var_names
    if inplace:
        adata.uns["hvg"] = {"flavor": "poisson_zeros"}
        for name in ("highly_variable", *(name for name in table if name != "highly_variable")):
            adata.var[name] = table[name]
        if subset:
            adata._inplace_subset_var(table["highly_variable"].to_numpy())
        return None
    table = table if batch_key is not None else table.drop(columns="prob_zero_enriched_nbatches")
    return table[table["highly_variable"]] if subset else table


def _batches(adata: AnnData, batch_key: str | None) -> tuple[np.ndarray, int]:
    """Code of each cell's batch, and how many there are."""
    if batch_key is None:
        return np.zeros(adata.n_obs, dtype=np.int64), 1
    if batch_key not in adata.obs:
        raise KeyError(unknown_name("column of adata.obs", batch_key, adata.obs.columns))
    codes_n, found = pd.factorize(adata.obs[batch_key])
    if (codes_n < 0).any():
        raise ValueError(f"adata.obs[{batch_key!r}] has no value for {(codes_n < 0).sum()} cells.")
    return codes_n.astype(np.int64), len(found)


def _fractions_of_zeros(x: object, codes_n: np.ndarray, n_batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Observed and expected fraction of zeros of each gene in each batch, ``(b, g)`` float64."""
    n, g = shape_of(x)
    nonzero_bg, sum_bg = np.zeros((n_batches, g)), np.zeros((n_batches, g))
    total_n = np.zeros(n)
    for block in blocks(x):
        rows, columns, values = _entries(block)
        np.add.at(nonzero_bg, (codes_n[rows], columns), 1.0)
        np.add.at(sum_bg, (codes_n[rows], columns), values)
        np.add.at(total_n, rows, values)
    sizes_b1 = np.bincount(codes_n, minlength=n_batches)[:, None]
    share_bg = sum_bg / np.maximum(sum_bg.sum(1, keepdims=True), 1)
    expected_bg = np.stack([_mean_zeros(total_n[codes_n == b], share_bg[b]) for b in range(n_batches)])
    return 1 - nonzero_bg / sizes_b1, expected_bg


def _entries(block: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of each entry other than zero."""
    if isinstance(block, CompressedBlock):
        kept = block.data != 0
        return block.row_of_entry()[kept], block.column_of_entry()[kept], block.data[kept].astype(np.float64)
    rows, columns = np.nonzero(block.values)
    return rows + block.start, columns, np.asarray(block.values)[rows, columns].astype(np.float64)


def _mean_zeros(total_n: np.ndarray, share_g: np.ndarray) -> np.ndarray:
    """Mean over cells of the Poisson probability of a zero, ``(g,)``; cells of one depth are counted once."""
    depths, counts = np.unique(total_n, return_counts=True)
    step = max(1, _ENTRIES // max(1, len(share_g)))
    sums_g = np.zeros(len(share_g))
    for start in range(0, len(depths), step):
        part = slice(start, start + step)
        sums_g += counts[part] @ np.exp(-np.outer(depths[part], share_g))
    return sums_g / len(total_n)


def _ranked(observed_bg: np.ndarray, expected_bg: np.ndarray, n_top: int) -> pd.DataFrame:
    proba_bg = observed_bg * (1 - expected_bg)
    rank_bg = proba_bg.argsort(1, kind="stable").argsort(1, kind="stable")
    n_genes = proba_bg.shape[1]
    table = pd.DataFrame(
        {
            "observed_fraction_zeros": observed_bg.mean(0).astype(np.float32),
            "expected_fraction_zeros": expected_bg.mean(0).astype(np.float32),
            "prob_zero_enriched_nbatches": (rank_bg >= n_genes - n_top).sum(0),
            "prob_zero_enrichment": np.median(proba_bg, 0).astype(np.float32),
            "prob_zero_enrichment_rank": np.median(rank_bg, 0),
        }
    )
    best = np.lexsort((-table["prob_zero_enrichment_rank"], -table["prob_zero_enriched_nbatches"]))[:n_top]
    table["highly_variable"] = np.isin(np.arange(n_genes), best)
    return table
