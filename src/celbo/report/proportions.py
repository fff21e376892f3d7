"""Report of tissue spots as mixtures of cell types: DestVI, SpatialStereoscope.

Dims: s spots, c types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from . import figures
from .page import Section, heat_table, picture

__all__ = ["ProportionDetail"]

PLACES = "spatial"
"""Where ``obsm`` has the places of the spots, as everybody calls it."""

_MOST_MAPS = 12


@dataclass(frozen=True, eq=False)
class ProportionDetail:
    """Shares of the cell types in the spots.

    Attributes
    ----------
    share_sc
        Spots by types, rows that sum to 1.
    place_s2
        Where the spots lie, ``(s, 2)``; None where the data do not say.
    """

    share_sc: pd.DataFrame
    place_s2: np.ndarray | None

    @classmethod
    def of(cls, model: Any, seed: int) -> "ProportionDetail":
        """Ask a model about its spots; ``seed`` is not needed, nothing is drawn."""
        places = model.adata.obsm.get(PLACES)
        return cls(model.get_proportions(), None if places is None else np.asarray(places)[:, :2])

    @property
    def figures(self) -> Mapping[str, float]:
        """Mean share of the type that a spot has most of."""
        return {"mean share of a spot's first type": float(self.share_sc.to_numpy().max(1).mean())}

    def sections(self) -> list[Section]:
        """Shares by type, and maps where the places of the spots are known."""
        share_sc = self.share_sc.to_numpy(dtype=np.float64)
        first_c = np.bincount(share_sc.argmax(1), minlength=share_sc.shape[1]) / len(share_sc)
        columns = [share_sc.mean(0), *np.quantile(share_sc, (0.05, 0.5, 0.95), axis=0), first_c]
        order = np.argsort(-columns[0], kind="stable")
        rows = [
            (str(self.share_sc.columns[c]), [one[c] for one in columns], [f"{one[c]:.1%}" for one in columns])
            for c in order
        ]
        text = f"Share of each cell type in {len(share_sc):,} spots; last, the spots that have most of this type."
        head = ["type", "mean", "5% of spots below", "median", "5% of spots above", "first type"]
        return [Section("Cell types of the spots", text, heat_table(head, rows)), *self._maps(order)]

    def _maps(self, order: np.ndarray) -> list[Section]:
        if self.place_s2 is None:
            return []
        drawn = [self._map(c) for c in order[:_MOST_MAPS]]
        text = f"Where the {len(drawn)} most frequent types are: dark spots have most of the type."
        return [Section("Maps", text, f'<div class="pair">{"".join(drawn)}</div>')]

    def _map(self, c: int) -> str:
        name, share_s = str(self.share_sc.columns[c]), self.share_sc.iloc[:, c].to_numpy(dtype=np.float64)
        assert self.place_s2 is not None
        image = figures.as_data_uri(figures.spot_map(self.place_s2, share_s))
        return picture(image, f"Share of {name} in each spot", f"{name}: up to {share_s.max():.1%}")
