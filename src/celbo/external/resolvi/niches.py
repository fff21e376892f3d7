"""Labels around one group of cells against those around another.

Dims: n cells, c labels, s pairs of cells drawn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...posterior.comparisons import comparisons

__all__ = ["abundance_table"]

_PAIRS = 5000
_LEAST = 1e-8


def abundance_table(
    obs: pd.DataFrame,
    abundance: pd.DataFrame,
    who: Mapping[str, Any],
    *,
    mode: str,
    delta: float,
    pseudocounts: float,
    fdr: float,
    seed: int | None,
) -> pd.DataFrame:
    """Fold changes of the labels' abundance between pairs of cells drawn from two groups.

    Parameters
    ----------
    obs, who
        See :func:`~celbo.posterior.comparisons`.
    abundance
        Of each label around each cell, ``(n, c)``.
    mode, delta, pseudocounts, fdr, seed
        See :meth:`celbo.external.RESOLVI.differential_niche_abundance`.
    """
    rng, values_nc = np.random.default_rng(seed), abundance.to_numpy()
    tables = []
    for pair in comparisons(obs, **who):
        first_sc, second_sc = (values_nc[rng.choice(cells, _PAIRS)] for cells in (pair.cells1, pair.cells2))
        change_sc = np.log2(first_sc + pseudocounts) - np.log2(second_sc + pseudocounts)
        is_different_sc = np.abs(change_sc) > delta if mode == "change" else change_sc > 0
        p_c = is_different_sc.mean(0)
        name1, name2 = pair.group1 or "group1", pair.group2 or "group2"
        table = pd.DataFrame(
            {
                "proba_de": p_c,
                "proba_not_de": 1 - p_c,
                "bayes_factor": np.log(p_c + _LEAST) - np.log(1 - p_c + _LEAST),
                "abundance1": values_nc[pair.cells1].mean(0),
                "abundance2": values_nc[pair.cells2].mean(0),
                "lfc_mean": change_sc.mean(0),
                "lfc_median": np.median(change_sc, axis=0),
                "lfc_std": change_sc.std(0),
            },
            index=abundance.columns,
        ).sort_values("proba_de", ascending=False)
        wrong = (1 - table["proba_de"]).cumsum() / np.arange(1, len(table) + 1)
        named: dict[str, Any] = {"comparison": f"{name1} vs {name2}", "group1": name1, "group2": name2}
        named[f"is_de_fdr_{fdr}"] = wrong <= fdr
        tables.append(table.assign(**named))
    return pd.concat(tables)
