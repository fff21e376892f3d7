"""Report of a topic model: AmortizedLDA.

Dims: n cells, g genes, k topics.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from ..model import AmortizedLDA
from .page import Section, table

__all__ = ["N_DRAWS", "TopicDetail", "topics_of_cells"]

N_DRAWS = 500
"""Draws for means on the simplex: their standard error is below a twentieth of the posterior's standard deviation."""

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class TopicDetail:
    """Topics, their genes, and how well they explain the counts.

    Attributes
    ----------
    feature_gk
        Genes by topics, columns that sum to 1.
    share_k
        Mean share of each topic in the cells, ``(k,)``.
    perplexity
        See :meth:`celbo.model.AmortizedLDA.get_perplexity`.
    """

    feature_gk: pd.DataFrame
    share_k: np.ndarray
    perplexity: float

    @classmethod
    def of(cls, model: AmortizedLDA, seed: int) -> "TopicDetail":
        """Ask a model about its training data, with draws of this seed."""
        features = model.get_feature_by_topic(n_samples=N_DRAWS, seed=seed)
        shares = topics_of_cells(model, seed=seed).mean(0, dtype=np.float64)
        with np.errstate(over="ignore"):  # infinite while training has hardly begun
            return cls(features, shares, model.get_perplexity(seed=seed))

    @property
    def figures(self) -> Mapping[str, float]:
        """Perplexity, where it is a number."""
        return {"perplexity": self.perplexity} if np.isfinite(self.perplexity) else {}

    def top_genes(self, k: int, n: int = _SHOWN) -> pd.Series:
        """The genes that topic ``k`` has most of, and how much."""
        return self.feature_gk.iloc[:, k].nlargest(n)

    def sections(self) -> list[Section]:
        """Topics with their top genes, those with most of the counts first."""
        text = (
            f"Topics by their mean share in the cells, each with its {_SHOWN} most frequent genes and their part "
            f"in it. The perplexity, {self.perplexity:.1f} for {len(self.feature_gk):,} genes, is the number of "
            "equally likely genes that would surprise as much: lower is better."
        )
        order = np.argsort(-self.share_k, kind="stable")
        rows = [(self.feature_gk.columns[k], f"{self.share_k[k]:.1%}", self._listed(k)) for k in order]
        return [Section("Topics", text, table(["topic", "share", "genes"], rows))]

    def _listed(self, k: int) -> str:
        return ", ".join(f"{gene} {part:.1%}" for gene, part in self.top_genes(k).items())


def topics_of_cells(
    model: AmortizedLDA, adata: AnnData | None = None, seed: int = 0, indices: np.ndarray | None = None
) -> np.ndarray:
    """Topics of each cell, ``(n, k)``, rows that sum to 1; None: of the training data, of all its cells."""
    rows = None if indices is None else indices.tolist()
    return model.get_latent_representation(adata, rows, n_samples=N_DRAWS, seed=seed).to_numpy()
