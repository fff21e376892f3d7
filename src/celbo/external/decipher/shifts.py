r"""How far a perturbation moves cells of the same kind in a latent space.

.. math:: \Delta_{gc} = \bar v_{gc} - \bar v_{g0}, \qquad
          s_{gc} = \frac{\lVert \Delta_{gc} \rVert}{\sqrt{\tfrac{1}{2} (\sigma^2_{gc} + \sigma^2_{g0})}}

for group g and condition c against the control 0, with the mean squared distance :math:`\sigma^2` of cells from their
mean. The p-value is the share of permutations of the condition, within the group, that move the mean as far.

Dims: n cells, k latents, g groups, c conditions.
"""

from typing import Annotated, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, checked, settings, unknown_name
from ...core.kinds import Text, Whole
from .lookup import column_of, latents_of

__all__ = ["perturbation_shifts"]

_FEWEST = 2


@checked
def perturbation_shifts(
    adata: AnnData,
    rep_key: Annotated[str, Text()],
    condition_key: Annotated[str, Text()],
    control: Any,
    groupby: Annotated[str | None, Text()] = None,
    n_permutations: Annotated[int, Whole(1)] = 1000,
    seed: int | None = None,
) -> pd.DataFrame:
    """How far, and which way, each condition moves the cells of each group from those of the control.

    Parameters
    ----------
    adata
        Cells, with a latent space in ``adata.obsm``.
    rep_key
        Its key.
    condition_key
        Column of ``adata.obs`` with the perturbation, disease or treatment of each cell.
    control
        The value of cells under none.
    groupby
        Column of ``adata.obs`` with the group of each cell, as its type; None: all are one group.
    n_permutations
        Permutations of the condition within a group; the smallest p-value is one over their number plus one.
    seed
        Of the permutations; None: ``celbo.settings.seed``, or fresh randomness.

    Returns
    -------
    A row for each group and condition that have two cells at least, as has the control: ``group``, ``condition``,
    ``n_cells``, ``n_control``, ``from_0`` and so on (mean of the control), ``shift_0`` and so on, ``length``,
    ``in_spreads`` (length over the spread within) and ``p_value``.

    Raises
    ------
    ArgumentError
        A column, a key or a control that is not there, numbers that are not finite, or no group with both.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(n_genes=20, seed=0)
    >>> adata.obsm["v"] = np.random.default_rng(0).normal(size=(400, 2))  # yours: model.get_latent_representation()
    >>> shifts = perturbation_shifts(adata, "v", "labels", "label_0", seed=0)
    >>> list(shifts["condition"])
    ['label_1', 'label_2']
    """
    v_nk = _finite(latents_of(adata, rep_key).astype(float), rep_key)
    condition_n = column_of(adata, condition_key)
    if not (condition_n == control).any():
        raise ArgumentError(unknown_name(f"value in {condition_key!r}", control, list(condition_n.unique())))
    group_n = pd.Series("all", adata.obs_names) if groupby is None else column_of(adata, groupby)
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    rows = []
    for group in pd.unique(group_n.dropna().sort_values()):
        in_group_n = (group_n == group).to_numpy()
        base_mk = v_nk[in_group_n & (condition_n == control).to_numpy()]
        for condition in pd.unique(condition_n[in_group_n].dropna().sort_values()):
            moved_mk = v_nk[in_group_n & (condition_n == condition).to_numpy()]
            if condition != control and min(len(base_mk), len(moved_mk)) >= _FEWEST:
                rows.append({"group": group, "condition": condition} | _shift(base_mk, moved_mk, n_permutations, rng))
    if not rows:
        raise ArgumentError(
            f"No group has {_FEWEST} cells under {control!r} and {_FEWEST} under another value of {condition_key!r}: "
            "take larger groups, or leave groupby out."
        )
    return pd.DataFrame(rows)


def _shift(
    base_mk: np.ndarray, moved_mk: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> dict[str, float | int]:
    start_k, n = base_mk.mean(0), len(base_mk)
    shift_k = moved_mk.mean(0) - start_k
    length = float(np.linalg.norm(shift_k))
    spread = float(np.sqrt(0.5 * sum(part.var(0).sum() for part in (base_mk, moved_mk))))
    whole_nk = np.concatenate([base_mk, moved_mk])
    total_k = whole_nk.sum(0)
    as_far = 0
    for _ in range(n_permutations):
        first_k = whole_nk[rng.permutation(len(whole_nk))[:n]].mean(0)
        rest_k = (total_k - n * first_k) / len(moved_mk)
        as_far += bool(np.linalg.norm(rest_k - first_k) >= length)
    places = {f"from_{k}": float(x) for k, x in enumerate(start_k)}
    places |= {f"shift_{k}": float(x) for k, x in enumerate(shift_k)}
    return (
        {"n_cells": len(moved_mk), "n_control": n}
        | places
        | {
            "length": length,
            "in_spreads": length / spread if spread else np.inf,
            "p_value": (as_far + 1) / (n_permutations + 1),
        }
    )


def _finite(v_nk: np.ndarray, key: str) -> np.ndarray:
    if not np.isfinite(v_nk).all():
        raise ArgumentError(f"adata.obsm[{key!r}] has numbers that are not finite: leave those cells out.")
    return v_nk
