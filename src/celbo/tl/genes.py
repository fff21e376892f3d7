"""Genes that set groups of cells apart, as scanpy keeps them.

Dims: n cells, g genes, c groups.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import checked, listed
from ..core.kinds import Number, Text, Whole
from ..verbs.keys import note, ready
from .fitted import KEYWORDS, MODEL, fitted

__all__ = ["rank_genes", "scanpy_layout"]

_KINDS = {"scores": "float32", "logfoldchanges": "float32", "pvals": "float64", "pvals_adj": "float64"}


@checked
def rank_genes(
    adata: AnnData,
    groupby: str,
    batch_key: str | None = None,
    *,
    model: Annotated[object, MODEL] = "scvi",
    groups: str | Sequence[str] = "all",
    reference: Annotated[str, Text()] = "rest",
    delta: Annotated[float, Number(0)] = 0.25,
    batch_correction: bool = True,
    n_genes: Annotated[int | None, Whole(1)] = None,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: Annotated[str, Text()] = "rank_genes_groups",
    copy: bool = False,
    seed: int | None = 0,
    model_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    **setup_kwargs: Any,
) -> Any:
    r"""Rank the genes of each group of cells by a model, in the layout of ``sc.tl.rank_genes_groups``.

    scanpy's pictures and ``sc.get.rank_genes_groups_df`` read it. For each gene the model gives the posterior of the
    log2 fold change :math:`\beta_g` between a group and the others, and from it

    .. math::
        \mathrm{score}_g = \frac{E[\beta_g]}{\mathrm{sd}[\beta_g]}, \qquad
        \mathrm{pval}_g = P(|\beta_g| < \delta), \qquad
        \mathrm{pval\_adj}_g = \operatorname{mean}_{h:\, \mathrm{pval}_h \le \mathrm{pval}_g} \mathrm{pval}_h

    The last is the expected false discovery rate of the list that ends with this gene, so that a cut at 0.05 means what
    it means elsewhere. The second is a posterior probability: scanpy's name for it is kept, it is no p-value.

    Parameters
    ----------
    groupby
        Column of ``adata.obs`` with the groups.
    model
        See :func:`denoise`.
    groups
        Groups to rank genes of; ``"all"``: all.
    reference
        Group to compare with; ``"rest"``: all other cells.
    delta
        Smallest change that counts, log2 fold.
    batch_correction
        Compare as if the cells of both sides came from the same batches.
    n_genes
        Genes to keep of each group; None: all.
    key_added
        Where in ``adata.uns`` to write.
    adata, batch_key, layer, use_raw, copy, seed, model_kwargs, train_kwargs, **setup_kwargs
        See :func:`integrate`.

    Returns
    -------
    The trained model; with ``copy`` the copy of ``adata``. Written is ``adata.uns[key_added]``: ``params``, and of each
    group, best first, ``names``, ``scores``, ``logfoldchanges``, ``pvals`` and ``pvals_adj``; and ``pts`` and
    ``pts_rest``, shares of cells with a count, genes by groups.

    Raises
    ------
    KeyError
        No such column.
    ValueError
        No such group; it names the nearest.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> model = celbo.tl.rank_genes(adata, "labels", train_kwargs={"max_epochs": 2, "verbose": 0})
    >>> adata.uns["rank_genes_groups"]["names"].dtype.names
    ('label_0', 'label_1', 'label_2')
    """
    adata = ready(adata, copy)
    setup = {"batch_key": batch_key, "layer": layer, "use_raw": use_raw, **setup_kwargs}
    found = fitted(adata, model, setup, model_kwargs, train_kwargs, seed, verb="differential_expression")
    wanted = None if groups == "all" else [one for one in listed(groups) if one != reference]
    other = None if reference == "rest" else reference
    if wanted is None and other is not None:
        wanted = [one for one in pd.Categorical(adata.obs[groupby]).categories if str(one) != other]
    options = {"mode": "change", "delta": delta, "batch_correction": batch_correction, "seed": seed}
    table = found.differential_expression(adata, groupby, wanted, other, **options)
    params: dict[str, Any] = {"groupby": groupby, "reference": reference, "method": f"celbo {type(found).__name__}"}
    params |= {"use_raw": use_raw, "corr_method": "expected false discovery rate", "delta": delta}
    if (from_layer := found.get_setup_arg("layer")) is not None:
        params["layer"] = from_layer
    adata.uns[key_added] = {"params": params, **scanpy_layout(table, n_genes)}
    note(adata, key_added, "rank_genes", found, {"seed": seed, "delta": delta, "model_kwargs": model_kwargs})
    return adata if copy else found


def scanpy_layout(table: pd.DataFrame, n_genes: int | None = None) -> dict[str, Any]:
    """A table of ``differential_expression(mode="change")`` as arrays with a field for each group.

    Parameters
    ----------
    table
        Named comparisons, rows by gene.
    n_genes
        Genes to keep of each group; None: all.

    Returns
    -------
    What :func:`rank_genes` writes, without ``params``.
    """
    ranked = {str(name): _ranked(part).iloc[:n_genes] for name, part in table.groupby("group1", sort=False)}
    made: dict[str, Any] = {"names": _record(ranked, None, object)}
    for kind, dtype in _KINDS.items():
        made[kind] = _record(ranked, kind, dtype)
    if "non_zeros_proportion1" in table:
        for kind, column in (("pts", "non_zeros_proportion1"), ("pts_rest", "non_zeros_proportion2")):
            made[kind] = pd.DataFrame({name: part[column] for name, part in ranked.items()})
    return made


def _record(ranked: Mapping[str, pd.DataFrame], column: str | None, dtype: Any) -> np.recarray:
    """A column of each group, or its index, as an array with a field for each group."""
    kinds = np.dtype([(name, dtype) for name in ranked])
    made = np.recarray((len(next(iter(ranked.values()))),), dtype=kinds)
    for name, part in ranked.items():
        made[name] = (part.index if column is None else part[column]).to_numpy(dtype)
    return made


def _ranked(part: pd.DataFrame) -> pd.DataFrame:
    """One group, its genes in falling order of the score."""
    null_g = part["proba_not_de"].to_numpy(float)
    score_g = part["lfc_mean"].to_numpy(float) / np.maximum(part["lfc_std"].to_numpy(float), 1e-12)
    figures = {
        "scores": score_g,
        "logfoldchanges": part["lfc_mean"],
        "pvals": null_g,
        "pvals_adj": _expected_rate(null_g),
    }
    return part.assign(**figures).sort_values("scores", ascending=False, kind="stable")


def _expected_rate(null_g: np.ndarray) -> np.ndarray:
    """Mean of the probabilities that are no larger than each, ``(g,)``."""
    order = np.argsort(null_g, kind="stable")
    mean_g = np.cumsum(null_g[order]) / np.arange(1, len(null_g) + 1)
    last_g = np.searchsorted(null_g[order], null_g, side="right") - 1  # equal ones share a rate
    return mean_g[last_g]
