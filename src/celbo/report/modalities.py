"""Report of several modalities: which cells have which, and whether these lie over one another: MULTIVI.

Dims: n cells, k latents.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.presence import presence
from ..model import MULTIVI
from .metrics import batch_mixing
from .page import Section, table

__all__ = ["ModalityDetail", "share_nearer"]

_MOST_CELLS = 2000
_FEWEST = 10
"""Cells that a figure of them needs."""


@dataclass(frozen=True, eq=False)
class ModalityDetail:
    """Presence and agreement of the modalities.

    Attributes
    ----------
    presence
        Cells by combination of modalities, and of each batch, see :func:`celbo.data.presence.presence_report`; None for
        an AnnData, which does not say.
    mixing
        How cells with different modalities mix in the joint latents: 0 apart, 1 as by chance; None where all have the
        same.
    nearer
        Pair of modalities -> share of other cells that lie nearer to a cell's latents of one modality, among latents of
        the other, than the cell itself: 0 best, 0.5 as by chance.
    """

    presence: pd.DataFrame | None
    mixing: float | None
    nearer: Mapping[tuple[str, str], float]

    @classmethod
    def of(cls, model: MULTIVI, seed: int) -> "ModalityDetail":
        """Ask a model about its training data; ``seed`` is of the cells that are looked at, where there are many."""
        assert model.adata is not None
        rows = np.sort(np.random.default_rng(seed).permutation(model.adata.n_obs)[:_MOST_CELLS])
        manager = model.adata_manager
        found, mixing = None, None
        if manager.may_lack_modalities:
            found = model.get_presence_report()
            if len(found) > 1:
                code_n = presence(manager).to_numpy()[rows] @ (1 << np.arange(presence(manager).shape[1]))
                mixing = _mixing(_latents(model, rows), code_n)
        return cls(found, mixing, _nearer(model, rows))

    @property
    def figures(self) -> Mapping[str, float]:
        """Mixing of the cells, and how near their modalities are."""
        found = {} if self.mixing is None else {"mixing of modalities (1: as by chance)": self.mixing}
        return found | {f"nearer cells, {a} to {b} (0 best)": value for (a, b), value in self.nearer.items()}

    def sections(self) -> list[Section]:
        """Cells by their modalities, and the figures with what they mean."""
        made = []
        if self.presence is not None:
            text = "How many cells have which modalities. What a cell lacks is imputed from what it has."
            counts = [[str(name), *(f"{n:,}" for n in row)] for name, row in self.presence.iterrows()]
            head = ["modalities", *map(str, self.presence.columns)]
            made.append(Section("Cells by their modalities", text, f'<div class="heat">{table(head, counts)}</div>'))
        if self.figures:
            text = (
                "Cells with different modalities should lie over one another where they are alike: mixing 1 is as by "
                "chance, 0 apart. Latents of a cell by one modality should lie near its latents by the other: the "
                "share of other cells that are nearer is 0 at best, and 0.5 as by chance."
            )
            rows = [[name, f"{value:.3f}"] for name, value in self.figures.items()]
            made.append(Section("Agreement of modalities", text, table(["", "this model"], rows)))
        return made


def _latents(model: MULTIVI, rows: np.ndarray, **which: Any) -> np.ndarray:
    """Joint latents of cells, or those of one modality, ``(n, k)``."""
    return np.asarray(model.get_latent_representation(indices=rows.tolist(), **which))


def _mixing(latent_nk: np.ndarray, code_n: np.ndarray) -> float | None:
    return batch_mixing(latent_nk, code_n).foreign_share if len(np.unique(code_n)) > 1 else None


def _nearer(model: MULTIVI, rows: np.ndarray) -> dict[tuple[str, str], float]:
    """For each pair of modalities how near the latents of cells with both are; nothing where only joint ones are."""
    if model.init_params_["non_kwargs"].get("fully_paired") or model.minified_data_type is not None:
        return {}
    names = [output.name for output in model._outputs]
    of_name = {name: _latents(model, rows, modality=name) for name in names}
    found = {}
    for first, second in itertools.pairwise(names):
        both_n = np.isfinite(of_name[first]).all(1) & np.isfinite(of_name[second]).all(1)
        if both_n.sum() >= _FEWEST:
            found[first, second] = share_nearer(of_name[first][both_n], of_name[second][both_n])
    return found


def share_nearer(first_nk: np.ndarray, second_nk: np.ndarray) -> float:
    r"""Share of other cells that are nearer than the cell itself (FOSCTTM), both ways.

    .. math::
        \frac{1}{2 N (N - 1)} \sum_{n \ne m}
            \bigl[d(a_n, b_m) < d(a_n, b_n)\bigr] + \bigl[d(a_m, b_n) < d(a_n, b_n)\bigr]

    Parameters
    ----------
    first_nk, second_nk
        ``(n, k)`` latents of the same cells by two modalities, :math:`a` and :math:`b`.

    References
    ----------
    Liu, Huang, Singh, Vert and Noble, *Jointly embedding multiple single-cell omics measurements*, WABI 2019.
    """
    n = len(first_nk)
    square = np.square(first_nk).sum(1)[:, None] + np.square(second_nk).sum(1) - 2 * first_nk @ second_nk.T
    own_n = np.diag(square)
    nearer = (square < own_n[:, None]).sum() + (square < own_n).sum()
    return float(nearer / (2 * n * (n - 1)))
