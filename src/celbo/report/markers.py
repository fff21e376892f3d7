"""Report of cell types found by marker genes: CellAssign.

Dims: n cells, g marker genes, c types.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..core import REGISTRY_KEYS
from ..external import CellAssign
from .page import Section, heat_table, table

__all__ = ["MarkerDetail"]

SURE = 0.9
"""Probability from which a cell counts as assigned for sure."""


@dataclass(frozen=True, eq=False)
class MarkerDetail:
    """Types of the cells, and what the cells of each type express.

    Attributes
    ----------
    genes, types
        Names, ``(g,)`` and ``(c,)``.
    is_marker_gc
        Which gene marks which type, ``(g, c)``.
    expression_gc
        Mean of log(1 + count / size factor) over the cells of each type, ``(g, c)``; 0 for a type without cells.
    count_c, sure_c
        Cells of each type, and the share of them whose probability is 0.9 or more.
    """

    genes: tuple[str, ...]
    types: tuple[str, ...]
    is_marker_gc: np.ndarray
    expression_gc: np.ndarray
    count_c: np.ndarray
    sure_c: np.ndarray

    @classmethod
    def of(cls, model: CellAssign, seed: int) -> "MarkerDetail":
        """Ask a model about its training data; ``seed`` is not needed, nothing is drawn."""
        markers = model.cell_type_markers
        probability_nc = model.predict().to_numpy()
        code_n, n_types = probability_nc.argmax(1), probability_nc.shape[1]
        count_c = np.bincount(code_n, minlength=n_types)
        sure_c = np.bincount(code_n, probability_nc.max(1) >= SURE, n_types) / np.maximum(count_c, 1)
        return cls(
            tuple(map(str, markers.index)),
            tuple(map(str, markers.columns)),
            markers.to_numpy() > 0,
            _expression_by_type(model, code_n, n_types) / np.maximum(count_c, 1),
            count_c,
            sure_c,
        )

    @property
    def figures(self) -> Mapping[str, float]:
        """Share of the cells that have a type for sure."""
        share = float(self.count_c @ self.sure_c / max(1, self.count_c.sum()))
        return {f"cells with a type at probability {SURE} or more": share}

    def sections(self) -> list[Section]:
        """Sizes of the types, and the heat map of the markers."""
        n = max(1, int(self.count_c.sum()))
        sizes = [
            (name, f"{count:,}", f"{count / n:.1%}", f"{sure:.1%}" if count else "")
            for name, count, sure in zip(self.types, self.count_c, self.sure_c, strict=True)
        ]
        text = "Each cell counts for its most probable type."
        head = ["type", "cells", "share", f"of these at probability {SURE} or more"]
        how = (
            "Mean of log(1 + count / size factor) of each marker (rows) over the cells of each type (columns), shaded "
            "by the largest of the row. A dot stands where the gene marks the type: those fields should be dark."
        )
        return [
            Section("Cell types", text, table(head, sizes)),
            Section("Markers", how, heat_table(["", *self.types], self._rows())),
        ]

    def _rows(self) -> list[tuple[str, np.ndarray, list[str]]]:
        largest_g1 = self.expression_gc.max(1, keepdims=True)
        shade_gc = self.expression_gc / np.where(largest_g1 > 0, largest_g1, 1.0)
        by_type = np.lexsort((np.arange(len(self.genes)), self.is_marker_gc.argmax(1)))
        return [(self.genes[g], shade_gc[g], self._texts(g)) for g in by_type]

    def _texts(self, g: int) -> list[str]:
        pairs = zip(self.expression_gc[g], self.is_marker_gc[g], strict=True)
        return [f"{value:.2f}{' •' if marks else ''}" for value, marks in pairs]


def _expression_by_type(model: CellAssign, code_n: np.ndarray, n_types: int) -> np.ndarray:
    """Sums over the cells of each type, ``(g, c)``."""
    sum_cg, start = torch.zeros(n_types, len(model.get_var_names()), dtype=torch.float64), 0
    for tensors in model._make_data_loader(model.adata):
        scaled_ng = tensors[REGISTRY_KEYS.X_KEY].double() / tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].double()
        stop = start + len(scaled_ng)
        sum_cg.index_add_(0, torch.from_numpy(code_n[start:stop]), scaled_ng.log1p())
        start = stop
    return sum_cg.numpy().T
