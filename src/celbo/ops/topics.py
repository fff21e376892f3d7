r"""Topics of counts by expectation and maximisation: where a topic model may begin.

.. math:: p(x_n) = \prod_g \Bigl(\sum_k \theta_{nk}\, \beta_{kg}\Bigr)^{x_{ng}}, \qquad
          \theta_{nk} \propto \epsilon + \theta_{nk} \sum_g r_{ng} \beta_{kg}, \quad
          \beta_{kg} \propto \epsilon' + \beta_{kg} \sum_n r_{ng} \theta_{nk}, \quad r = x / (\theta \beta)

Where it ends depends on where it begins. So it begins several times with cells that are far apart (by Hellinger's
distance, each drawn with a chance in proportion to its squared distance from those before), and goes on from the best.

Dims: n cells, g features, k topics.
References: Hofmann (1999), probabilistic latent semantic analysis. Arthur and Vassilvitskii (2007), k-means++.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["topics_of_counts"]

_BEGINNINGS, _SHORT, _LONG = 4, 15, 60
"""How often it begins, the steps from each, and the steps from the best."""

_OF_A_CELL, _OF_A_TOPIC = 0.05, 0.01
"""Counts that each topic of a cell, and each feature of a topic, has beforehand."""

_OWN = 0.7
"""Share of a cell in the topic that begins with it; the rest is the mean of all."""


def topics_of_counts(x_ng: Tensor, n_topics: int) -> tuple[Tensor, Tensor]:
    """Find topics of counts. The same counts give the same topics.

    Parameters
    ----------
    x_ng
        Counts of cells, each with one at least.
    n_topics
        Number of topics, at most that of cells.

    Returns
    -------
    Features of each topic ``(k, g)``, rows that sum to 1, all above 0; and the share of counts of each, ``(k,)``.
    Topics with the largest share come first.
    """
    rng = np.random.default_rng(0)
    share_ng, mean_g = x_ng / x_ng.sum(1, keepdim=True), x_ng.sum(0) / x_ng.sum()
    root_ng, even_nk = share_ng.sqrt(), x_ng.new_full((len(x_ng), n_topics), 1 / n_topics)
    beginnings = [_far_apart(root_ng, n_topics, rng) for _ in range(_BEGINNINGS)]
    found = [_improved(x_ng, even_nk, _OWN * share_ng[rows] + (1 - _OWN) * mean_g, _SHORT) for rows in beginnings]
    _, shares_nk, topics_kg = max(found, key=lambda one: one[0])
    _, shares_nk, topics_kg = _improved(x_ng, shares_nk, topics_kg, _LONG)
    weight_k = x_ng.sum(1) @ shares_nk / x_ng.sum()
    order = weight_k.argsort(descending=True)
    return topics_kg[order], weight_k[order]


def _far_apart(root_ng: Tensor, n_chosen: int, rng: np.random.Generator) -> list[int]:
    """Rows of square roots of shares that are far from each other."""
    chosen, distance_n = [int(rng.integers(len(root_ng)))], np.full(len(root_ng), np.inf)
    while len(chosen) < n_chosen:
        to_last_n = (root_ng - root_ng[chosen[-1]]).square().sum(1).double().numpy()
        distance_n = np.minimum(distance_n, to_last_n)
        distance_n[chosen] = 0.0
        total = distance_n.sum()
        left_n = distance_n / total if total > 0 else None  # all alike: any will do
        chosen.append(int(rng.choice(len(root_ng), p=left_n)))
    return chosen


def _improved(x_ng: Tensor, shares_nk: Tensor, topics_kg: Tensor, n_steps: int) -> tuple[float, Tensor, Tensor]:
    """Log-likelihood, shares of topics in cells, and features of topics, after so many steps."""
    tiny = torch.finfo(x_ng.dtype).tiny
    for _ in range(n_steps):
        ratio_ng = x_ng / (shares_nk @ topics_kg).clamp_min(tiny)
        of_cells_nk = _OF_A_CELL + shares_nk * (ratio_ng @ topics_kg.t())
        of_topics_kg = _OF_A_TOPIC + topics_kg * (shares_nk.t() @ ratio_ng)
        shares_nk = of_cells_nk / of_cells_nk.sum(1, keepdim=True)
        topics_kg = of_topics_kg / of_topics_kg.sum(1, keepdim=True)
    log_likelihood = (x_ng * (shares_nk @ topics_kg).clamp_min(tiny).log()).sum()
    return float(log_likelihood), shares_nk, topics_kg
