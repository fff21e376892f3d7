r"""Open chromatin: how probably each region is open in each cell, the cells' factors, and tables of differences.

.. math:: p_{ng}, \quad \text{or}\quad p_{ng}\, d_n,\ p_{ng}\, f_g,\ p_{ng}\, d_n f_g, \qquad p_n = \sigma(h(z_n, b))

Dims: n cells, g regions.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from ..distributions import Accessibility
from ..module.base import BaseModuleClass
from .passes import Batches, Rows, encode, evaluating, on_device

__all__ = [
    "accessibility_table",
    "cell_factors",
    "encoded_column",
    "open_probability",
    "probability_difference",
    "sparse_rows",
    "with_shares_of_cells",
]


def open_probability(px: Accessibility, cells: bool = False, regions: bool = False) -> Tensor:
    """Value of an output: the probability that a region is open, times the factors of cells, of regions, or both."""
    return px.open_probability(cells, regions)


def sparse_rows(blocks: Iterable[Tensor | np.ndarray], threshold: float) -> sp.csr_matrix:
    """Blocks of rows as one CSR matrix of the values from ``threshold`` on; no dense table of all cells is made."""
    return sp.vstack([_above(np.asarray(torch.as_tensor(block).cpu()), threshold) for block in blocks], format="csr")


def _above(block_ng: np.ndarray, threshold: float) -> sp.csr_matrix:
    return sp.csr_matrix(block_ng * (block_ng >= threshold))


def cell_factors(module: BaseModuleClass, batches: Batches, *, n_cells: int | None = None) -> np.ndarray:
    """How much each cell's sequencing depth leaves of the probabilities, or its library where the module has one.

    Parameters
    ----------
    module
        Its ``inference`` gives ``d`` ``(n, 1)``, or ``library``, the natural log of the total.
    batches
        Minibatches.
    n_cells
        Number of cells, if known.

    Returns
    -------
    ``(n,)``.

    Raises
    ------
    RuntimeError
        The module has no such factors.
    """
    rows = Rows(n_cells)
    with evaluating(module):
        for tensors in on_device(batches, module):
            encoded = encode(module, tensors)
            d_n1 = encoded["library"].exp() if "library" in encoded else encoded["d"]
            if d_n1 is None:
                raise RuntimeError("This model has no library size factors: it was made with model_depth=False.")
            rows.append(d_n1.squeeze(-1))
    return rows.array()


def encoded_column(module: BaseModuleClass, batches: Batches, key: str, n_cells: int | None = None) -> np.ndarray:
    """One number a cell of what ``inference`` gives under a key, ``(n,)``."""
    rows = Rows(n_cells)
    with evaluating(module):
        for tensors in on_device(batches, module):
            rows.append(encode(module, tensors)[key].squeeze(-1))
    return rows.array()


def probability_difference(probability1_rg: np.ndarray, probability2_rg: np.ndarray) -> np.ndarray:
    """Effect of accessibility in draws ``(r, g)`` of two groups: the first minus the second."""
    return probability1_rg - probability2_rg


def accessibility_table(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of differential accessibility.

    Parameters
    ----------
    table
        From :func:`~celbo.posterior.differential_expression`.

    Returns
    -------
    The same rows. ``prob_da`` (probability of a difference), ``is_da_fdr`` (called at the false discovery rate asked
    for; several: ``is_da_fdr_0.05``, ...), ``bayes_factor``, ``est_prob1``, ``est_prob2`` (estimated probabilities of
    being open in the groups), ``effect_size`` (``est_prob2 - est_prob1``); where the counts are there ``emp_prob1``,
    ``emp_prob2`` (shares of cells with a count) and ``emp_effect`` (``emp_prob2 - emp_prob1``); the groups' names.
    """
    has_sign = "proba_de" not in table  # the hypotheses of mode="vanilla" are the two signs
    proba = table[["proba_m1", "proba_m2"]].max(axis=1) if has_sign else table["proba_de"]
    called = [name for name in map(str, table) if name.startswith("is_de_fdr_")]
    columns = {"prob_da": proba}
    columns |= {"is_da_fdr" if len(called) == 1 else name.replace("_de_", "_da_"): table[name] for name in called}
    columns["bayes_factor"] = table["bayes_factor"]
    columns["effect_size"] = table["scale2"] - table["scale1"]
    if "non_zeros_proportion1" in table:
        emp = {i: table[f"non_zeros_proportion{i}"] for i in (1, 2)}
        columns["emp_effect"] = emp[2] - emp[1]
    columns |= {"est_prob1": table["scale1"], "est_prob2": table["scale2"]}
    if "non_zeros_proportion1" in table:
        columns |= {"emp_prob1": emp[1], "emp_prob2": emp[2]}
    return pd.DataFrame(columns | {name: table[name] for name in ("comparison", "group1", "group2") if name in table})


def with_shares_of_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table of differential expression that calls the shares of cells with a count as scvi-tools does for regions.

    Parameters
    ----------
    table
        From :func:`~celbo.posterior.differential_expression`.

    Returns
    -------
    The same with ``emp_prob1``, ``emp_prob2`` and their difference ``emp_effect``, where the counts are there.
    """
    shares = {f"non_zeros_proportion{i}": f"emp_prob{i}" for i in (1, 2)}
    if not shares.keys() <= set(table):
        return table
    renamed = table.rename(columns=shares)
    return renamed.assign(emp_effect=renamed["emp_prob1"] - renamed["emp_prob2"])
