"""Counts observed, and counts that a model draws for the same cells; how much each latent dimension says.

Dims: n cells, g genes, k latents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core import REGISTRY_KEYS
from ..posterior.passes import evaluating

__all__ = ["GeneFit", "gene_fit", "kl_to_standard_normal", "some_rows"]

_MAX_ENTRIES = 10_000_000
_MAX_FIT_CELLS = 4000
_ENOUGH_COUNTS = 500.0


@dataclass(frozen=True, eq=False)
class GeneFit:
    """Counts observed, and counts drawn from the model for the same cells.

    Attributes
    ----------
    mean_observed_g, mean_predicted_g
        Mean count of each gene, ``(g,)``.
    zeros_observed_g, zeros_predicted_g
        Share of cells without a count of the gene, ``(g,)``.
    n_cells
        Cells looked at.
    variance_observed_g, variance_predicted_g
        Variance of the counts of each gene, ``(g,)``.
    """

    mean_observed_g: np.ndarray
    mean_predicted_g: np.ndarray
    zeros_observed_g: np.ndarray
    zeros_predicted_g: np.ndarray
    n_cells: int
    variance_observed_g: np.ndarray
    variance_predicted_g: np.ndarray

    @property
    def median_change(self) -> float:
        """Median over genes of the size of log2(predicted mean / observed mean).

        Genes of fewer than 500 counts in all these cells are left out, unless none has more: of those chance alone
        makes a difference.
        """
        total_g = self.mean_observed_g * self.n_cells
        seen_g = total_g >= max(1e-9, min(_ENOUGH_COUNTS, float(total_g.max(initial=0.0))))
        if not seen_g.any():
            return 0.0
        predicted_g = np.maximum(self.mean_predicted_g[seen_g], 0.5 / self.n_cells)
        return float(np.median(np.abs(np.log2(predicted_g / self.mean_observed_g[seen_g]))))

    @property
    def mean_gap_of_zeros(self) -> float:
        """Mean over genes of the difference of the shares of zeros."""
        return float(np.abs(self.zeros_predicted_g - self.zeros_observed_g).mean())


def some_rows(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or ``most`` of them at random, ascending."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def kl_to_standard_normal(mean_nk: np.ndarray, variance_nk: np.ndarray) -> np.ndarray:
    """KL divergence of each latent dimension from N(0, 1), in nats, mean over cells, ``(k,)``."""
    kl_nk = 0.5 * (np.square(mean_nk) + variance_nk - 1 - np.log(variance_nk))
    return kl_nk.mean(0, dtype=np.float64)


def gene_fit(model: Any, rng: np.random.Generator, seed: int) -> GeneFit:
    """Draw counts for some cells, and look at them gene by gene beside those observed.

    Parameters
    ----------
    model
        A model of counts, with its data.
    rng
        Draws the cells, of more than can be looked at.
    seed
        Of the counts drawn.
    """
    n_genes = len(model.get_state_registry(REGISTRY_KEYS.X_KEY)["column_names"])
    rows = some_rows(model.adata.n_obs, min(_MAX_FIT_CELLS, max(100, _MAX_ENTRIES // n_genes)), rng)
    sums = torch.zeros(2, 3, n_genes, dtype=torch.float64)
    with evaluating(model.module, seed):
        for tensors in model._make_data_loader(model.adata, indices=rows):
            drawn = model.module.sample(tensors)
            drawn_ng = drawn if isinstance(drawn, torch.Tensor) else drawn[0]  # of genes and of proteins
            for i, x_ng in enumerate((tensors[REGISTRY_KEYS.X_KEY].cpu(), drawn_ng.cpu())):
                sums[i, 0] += x_ng.sum(0, dtype=torch.float64)
                sums[i, 1] += x_ng.double().square().sum(0)
                sums[i, 2] += (x_ng == 0).sum(0)
    observed, predicted = (sums / len(rows)).numpy()
    return GeneFit(
        mean_observed_g=observed[0],
        mean_predicted_g=predicted[0],
        zeros_observed_g=observed[2],
        zeros_predicted_g=predicted[2],
        n_cells=len(rows),
        variance_observed_g=np.maximum(observed[1] - observed[0] ** 2, 0),
        variance_predicted_g=np.maximum(predicted[1] - predicted[0] ** 2, 0),
    )
