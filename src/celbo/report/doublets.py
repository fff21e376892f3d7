"""Report of doublets: SOLO.

Dims: n cells, m simulated doublets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..external import SOLO
from . import figures
from .classification import area_under_roc
from .page import Section, picture

__all__ = ["DoubletDetail"]


@dataclass(frozen=True, eq=False)
class DoubletDetail:
    """Doublet scores: the probability of being one.

    Attributes
    ----------
    score_n, simulated_m
        Of the cells, and of the doublets that were made from them.
    """

    score_n: np.ndarray
    simulated_m: np.ndarray

    @classmethod
    def of(cls, model: SOLO, seed: int) -> "DoubletDetail":
        """Ask a model about its training data; ``seed`` is not needed, nothing is drawn."""
        assert model.adata is not None
        score = model.predict(include_simulated_doublets=True)["doublet"].to_numpy()
        is_simulated = model.adata.obs[model.get_setup_arg("labels_key")].to_numpy() == "doublet"
        return cls(score[~is_simulated], score[is_simulated])

    @property
    def n_doublets(self) -> int:
        """Cells that are rather doublets than not."""
        return int((self.score_n > 0.5).sum())

    @property
    def figures(self) -> Mapping[str, float]:
        """Doublets, their share, and how well simulated doublets are told from cells."""
        return {
            "doublets": self.n_doublets,
            "share of doublets": self.n_doublets / max(1, len(self.score_n)),
            "AUROC, simulated doublets against cells": area_under_roc(self.simulated_m, self.score_n),
        }

    def sections(self) -> list[Section]:
        """Histogram of the scores."""
        text = (
            f"{self.n_doublets:,} of {len(self.score_n):,} cells have a score above 0.5 and are called doublets. "
            f"Those of the {len(self.simulated_m):,} simulated doublets should lie at the right, those of most cells "
            "at the left; cells in between are not to be told."
        )
        drawn = figures.score_histogram(self.score_n, self.simulated_m)
        return [Section("Doublet scores", text, picture(figures.as_data_uri(drawn), "Histogram of doublet scores"))]
