"""Report of zero-inflated genes: AUTOZI.

Dims: n cells, g genes, j batches or labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import beta

from ..core import REGISTRY_KEYS
from ..model import AUTOZI
from . import figures
from .page import Section, picture, table

__all__ = ["ZeroInflationDetail", "gene_table"]

EXPRESSED = 1.0
"""Mean count from which a gene says enough to be ranked."""

_SHOWN = 20


def gene_table(model: AUTOZI, seed: int = 0) -> pd.DataFrame:
    r"""How probable it is that each gene has added zeros, the most probable first.

    Parameters
    ----------
    model
        A trained AUTOZI with its data.
    seed
        Of what is drawn for ``zero_inflation="gene-cell"``.

    Returns
    -------
    Frame of genes with ``mean_count``, ``zeros`` (share of cells without a count) and ``zero_inflated``,
    :math:`P(\delta_g < 1/2)`; where a gene has several :math:`\delta` (one a batch or label), the largest of these.
    """
    found = model.get_alphas_betas(seed=seed)
    probability_gj = beta.cdf(0.5, found["alpha_posterior"], found["beta_posterior"])
    probability_g = probability_gj.reshape(len(probability_gj), -1).max(1)
    mean_g, zeros_g = _moments(model)
    frame = pd.DataFrame(
        {"mean_count": mean_g, "zeros": zeros_g, "zero_inflated": probability_g},
        index=pd.Index(model.get_var_names(), name="gene"),
    )
    return frame.sort_values(["zero_inflated", "mean_count"], ascending=False, kind="stable")


def _moments(model: AUTOZI) -> tuple[np.ndarray, np.ndarray]:
    """Mean count of each gene, and share of the cells without one."""
    assert model.adata is not None
    sums = torch.zeros(2, len(model.get_var_names()), dtype=torch.float64)
    for tensors in model._make_data_loader(model.adata):
        x_ng = tensors[REGISTRY_KEYS.X_KEY]
        sums += torch.stack([x_ng.sum(0, dtype=torch.float64), (x_ng == 0).sum(0).double()])
    mean_g, zeros_g = (sums / model.adata.n_obs).numpy()
    return mean_g, zeros_g


@dataclass(frozen=True, eq=False)
class ZeroInflationDetail:
    """Genes by the probability that they are zero-inflated.

    Attributes
    ----------
    genes
        As of :func:`gene_table`.
    """

    genes: pd.DataFrame

    @classmethod
    def of(cls, model: AUTOZI, seed: int) -> "ZeroInflationDetail":
        """Ask a model about its genes."""
        return cls(gene_table(model, seed))

    @property
    def ranked(self) -> pd.DataFrame:
        """The genes that are expressed enough to be ranked; all where none is."""
        expressed = self.genes[self.genes["mean_count"] >= EXPRESSED]
        return expressed if len(expressed) else self.genes

    @property
    def figures(self) -> Mapping[str, float]:
        """Number of genes that are rather zero-inflated than not."""
        return {"zero-inflated genes, of those ranked": int((self.ranked["zero_inflated"] > 0.5).sum())}

    def sections(self) -> list[Section]:
        """Probability beside mean count, and the first genes of the ranking."""
        text = (
            "Probability that a gene has more zeros than its mean and dispersion explain, of all genes. Genes with few "
            "counts cannot be told apart, whatever their probability."
        )
        drawn = figures.zero_inflation(self.genes["mean_count"].to_numpy(), self.genes["zero_inflated"].to_numpy())
        image = picture(figures.as_data_uri(drawn), "Probability of zero inflation by mean count of each gene")
        rows = [
            (gene, f"{row.zero_inflated:.3f}", f"{row.mean_count:.2f}", f"{row.zeros:.1%}")
            for gene, row in self.ranked.head(_SHOWN).iterrows()
        ]
        few = len(self.ranked) == len(self.genes) and (self.genes["mean_count"] < EXPRESSED).any()
        which = "all genes, as none has a mean count of 1" if few else "genes with a mean count of 1 or more"
        head = ["gene", "probability", "mean count", "cells without"]
        return [
            Section("Zero inflation", text, image),
            Section("Zero-inflated genes", f"The first {len(rows)} of {which}.", table(head, rows)),
        ]
