"""What the data of a model are: cells, features, how deep, how sparse, in which groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..core import REGISTRY_KEYS

__all__ = ["DataSummary", "depths"]

_MOST_GROUPS = 12


@dataclass(frozen=True, eq=False)
class DataSummary:
    """The data in figures.

    Attributes
    ----------
    n_cells, n_features
        Their shape.
    n_looked
        Cells that the figures of counts are of; 0: the data hold no counts.
    share_zero
        Share of entries that are 0.
    depth
        Quantiles of the total count of a cell: 5%, 50%, 95%.
    n_detected
        Median number of features with a count in a cell.
    groups
        Kind of group (``"batch"``, ``"label"``) -> name -> number of cells, largest first.
    depth_of_batch
        Median total count of a cell of each batch.
    """

    n_cells: int
    n_features: int
    groups: Mapping[str, Mapping[str, int]]
    n_looked: int = 0
    share_zero: float = float("nan")
    depth: tuple[float, float, float] = (float("nan"),) * 3
    n_detected: float = float("nan")
    depth_of_batch: Mapping[str, float] | None = None

    def rows(self, of: tuple[str, str]) -> list[tuple[str, str]]:
        """Name and text of each figure; ``of`` says what rows and columns are."""
        cells, features = of
        found = [(cells, f"{self.n_cells:,}"), (features, f"{self.n_features:,}")]
        if self.n_looked:
            low, median, high = self.depth
            found += [
                ("total count, median (5% to 95%)", f"{median:,.0f} ({low:,.0f} to {high:,.0f})"),
                (f"{features} detected, median", f"{self.n_detected:,.0f}"),
                ("entries that are zero", f"{self.share_zero:.1%}"),
            ]
        for kind, count_of in self.groups.items():
            found.append((f"{_plural(kind)}", self._listed(kind, count_of)))
        if 0 < self.n_looked < self.n_cells:
            found.append(("counts were looked at in", f"{self.n_looked:,} of the {cells}, drawn at random"))
        return found

    def _listed(self, kind: str, count_of: Mapping[str, int]) -> str:
        shown = []
        for name, n in list(count_of.items())[:_MOST_GROUPS]:
            deep = self.depth_of_batch.get(name) if kind == "batch" and self.depth_of_batch else None
            shown.append(f"{name} ({n:,}" + (f", median count {deep:,.0f})" if deep is not None else ")"))
        more = len(count_of) - len(shown)
        return f"{len(count_of)}: " + ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("ch") else f"{kind}s"


def depths(model: Any, rows: np.ndarray, batch_n: np.ndarray | None) -> dict[str, Any]:
    """The figures of counts of a :class:`DataSummary`.

    Parameters
    ----------
    model
        A model of counts, with its data.
    rows
        Cells to look at.
    batch_n
        Their batches, ``(n,)`` names, or None.
    """
    total, detected = [], []
    for tensors in model._make_data_loader(model.adata, indices=rows):
        x_ng = tensors[REGISTRY_KEYS.X_KEY].cpu()
        total.append(x_ng.sum(1, dtype=torch.float64))
        detected.append((x_ng != 0).sum(1))
        n_features = int(x_ng.shape[1])
    total_n, detected_n = torch.cat(total).numpy(), torch.cat(detected).numpy()
    by_batch = None
    if batch_n is not None:
        median_b = pd.Series(total_n).groupby(batch_n.astype(str)).median()
        by_batch = {str(name): float(one) for name, one in median_b.items()}
    low, median, high = np.quantile(total_n, (0.05, 0.5, 0.95))
    return {
        "n_looked": len(rows),
        "share_zero": float(1 - detected_n.mean() / n_features),
        "depth": (float(low), float(median), float(high)),
        "n_detected": float(np.median(detected_n)),
        "depth_of_batch": by_batch,
    }
