r"""Methylation: what reads say of groups of cells, and tables of differences.

.. math:: \bar{m}_r = \frac{1}{|C_r|} \sum_{n \in C_r} \frac{y_{nr}}{N_{nr}}, \qquad C_r = \{n : N_{nr} > 0\}

Dims: n cells, g regions, m groups.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ...posterior import Comparison, Counts
from ...store.matrices.paired import paired_rows

__all__ = ["methylated_shares", "methylation_table"]


def methylated_shares(methylated: Counts, covered: Counts, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Mean share of methylated reads over the cells of each group that have reads, ``(m, g)``; NaN where none has.

    Parameters
    ----------
    methylated, covered
        Methylated reads, and all reads, of the same cells and regions.
    groups
        Row numbers of each group's cells.
    """
    rows = [cells if methylated.rows is None else methylated.rows[cells] for cells in groups]
    member_nm = np.stack([np.bincount(one, minlength=methylated.x.shape[0]) for one in rows], 1).astype(float)
    sums_mg, cells_mg = (np.zeros((len(groups), methylated.x.shape[1])) for _ in range(2))
    for start, of_piece, all_of_piece in paired_rows(methylated.x, covered.x):
        member = sp.csr_array(member_nm[start : start + of_piece.shape[0]].T)
        reads = all_of_piece.astype(float)
        reads.eliminate_zeros()
        has = reads.copy()
        has.data[:] = 1
        inverse = reads.copy()
        inverse.data = 1 / reads.data
        sums_mg += (member @ of_piece.astype(float).multiply(inverse)).toarray()
        cells_mg += (member @ has).toarray()
    share_mg = np.divide(sums_mg, cells_mg, out=np.full_like(sums_mg, np.nan), where=cells_mg > 0)
    return share_mg if methylated.columns is None else share_mg[:, methylated.columns]


def methylation_table(
    table: pd.DataFrame, comparisons: Sequence[Comparison], names: np.ndarray, share_mg: np.ndarray | None
) -> pd.DataFrame:
    """Columns of differential methylation.

    Parameters
    ----------
    table
        From :func:`~celbo.posterior.differential_expression`.
    comparisons
        What it compares, in its order.
    names
        Names of the regions, ``(g,)``.
    share_mg
        From :func:`methylated_shares`, of the two groups of each comparison in turn; None: without.

    Returns
    -------
    The same rows. Effects are called ``effect_mean`` and so on, being differences of shares and no fold changes; after
    ``scale1`` and ``scale2`` come ``emp_mean1``, ``emp_mean2`` and their difference ``emp_effect``.
    """
    named = table.rename(columns=lambda name: name.replace("lfc_", "effect_")).drop(
        columns="pseudocounts", errors="ignore"
    )
    if share_mg is None:
        return named
    g = len(names)
    of_name = pd.Index(names)
    place = np.concatenate([of_name.get_indexer(table.index[i * g : (i + 1) * g]) for i in range(len(comparisons))])
    which = np.repeat(np.arange(len(comparisons)), g)
    first, second = share_mg[2 * which, place], share_mg[2 * which + 1, place]
    after = list(named).index("scale2") + 1
    for i, (name, values) in enumerate((("emp_mean1", first), ("emp_mean2", second), ("emp_effect", first - second))):
        named.insert(after + i, name, values)
    return named
