r"""Where training begins: with directions in which linked features vary alike in both modalities, and each feature's
level, spread and noise.

.. math::

    C &= C_1 + C_2 = E\,\Lambda E^\top, \qquad
    u_{ji} = E_{ji} \sqrt{\left[\min_m e_i^\top C_m e_i - 1\right]_+}

with the correlations :math:`C_m` of the linked features of modality m over its cells. A direction in which features
vary no more than each on its own, in one of the modalities, has no part; of many pairs the 1,000 that vary most are
looked at. From random vectors both modalities would
find directions of their own, and the alignment would match cells that are not alike.

Dims: n cells, g features of a modality, v features of both, l pairs of linked features, k latents.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...module.likelihoods import log_theta_by_moments
from .graph import GuidanceGraph

__all__ = ["COUNTS", "Start", "start_of_features", "start_of_vectors", "unsoftplus"]

COUNTS = ("nb", "zinb", "nbmixture")
"""Likelihoods of counts."""

_LEAST_SPREAD = 0.1
_LEAST = 1e-3
_PER = 1e4
_MOST_LINKS = 1000


class Start(NamedTuple):
    """What the data of a modality say of its features.

    Attributes
    ----------
    values
        Data on the scale of the decoder's logits, ``(n, g)``.
    level, spread
        Mean and standard deviation of the logits that go with them, ``(g,)``.
    log_theta
        Dispersion or noise, as the decoder keeps it, ``(g,)``.
    zi_logits
        Log-odds of an added zero, ``(g,)``; None where the likelihood has none, or counts say it.
    """

    values: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    log_theta: np.ndarray
    zi_logits: np.ndarray | None = None


def start_of_features(x: np.ndarray, likelihood: str, has_library: bool) -> Start:
    """What some cells of a modality say of its features.

    Parameters
    ----------
    x
        Data, ``(n, g)``.
    likelihood
        Name of the likelihood.
    has_library
        Whether the data are shares of a cell's total.
    """
    if has_library:
        return _of_shares(x, likelihood)
    if likelihood == "normal":
        return _of_values(x, x)
    if likelihood == "log1pnormal":
        return _of_values(np.log1p(x), x)
    return _of_positive(x, np.log if likelihood == "ziln" else unsoftplus, likelihood)


def _of_shares(x: np.ndarray, likelihood: str) -> Start:
    total_n1 = x.sum(1, keepdims=True)
    share_g = (x.sum(0) + 0.5) / (x.sum() + 0.5 * x.shape[1])
    values = np.log1p(_PER * x / np.maximum(total_n1, 1e-12))
    log_theta = np.log(np.maximum(x.std(0), _LEAST))
    if likelihood in COUNTS:
        log_theta = log_theta_by_moments(torch.as_tensor(x)).numpy()
    return Start(values, np.log(share_g), np.maximum(values.std(0), _LEAST_SPREAD), log_theta)


def _of_values(values: np.ndarray, x: np.ndarray) -> Start:
    spread = np.maximum(values.std(0), _LEAST)
    return Start(values, values.mean(0), spread, unsoftplus(spread))


def _of_positive(x: np.ndarray, logit: Callable[[np.ndarray], np.ndarray], likelihood: str) -> Start:
    """Zeros tell how often they are added, all else the density."""
    is_there = x > 0
    n_there = np.maximum(is_there.sum(0), 1)
    values = np.where(is_there, logit(np.where(is_there, x, 1.0)), 0.0)
    level = values.sum(0) / n_there
    values = np.where(is_there, values, level)
    spread = np.maximum(np.sqrt(((values - level) ** 2).sum(0) / n_there), _LEAST)
    noise = spread
    if likelihood == "zig":  # the rate: mean over variance
        mean = (x * is_there).sum(0) / n_there
        noise = mean / np.maximum((np.where(is_there, x - mean, 0.0) ** 2).sum(0) / n_there, _LEAST)
    share_0 = np.clip(1 - is_there.mean(0), _LEAST, 1 - _LEAST)
    return Start(values, level, spread, unsoftplus(noise), np.log(share_0) - np.log1p(-share_0))


def unsoftplus(y: np.ndarray) -> np.ndarray:
    """What softplus makes ``y`` of, where that is at least 0.001."""
    y = np.maximum(y, _LEAST)
    return y + np.log(-np.expm1(-y))


def start_of_vectors(graph: GuidanceGraph, values: dict[str, np.ndarray], n_latent: int) -> Tensor:
    """Vectors of all features: those of linked ones as the head of this file says, 0 of the others.

    Parameters
    ----------
    graph
        The guidance graph.
    values
        Of cells of each modality, on the scale of the logits.
    n_latent
        Size of the vectors.

    Returns
    -------
    ``(v, k)``.
    """
    first, second = graph.places.values()
    low, high = np.sort(graph.edge_index, axis=0)
    links = (low < first.stop) & (high >= second.start)
    one_l, other_l, sign_l = np.unique(np.stack([low, high, graph.edge_sign])[:, links], axis=1).astype(np.int64)
    vectors_vk = np.zeros((graph.n_nodes, n_latent))
    if not links.any():
        return torch.as_tensor(vectors_vk, dtype=torch.float32)
    of_first, of_second = values.values()
    kept = _most_varying(of_first.std(0)[one_l], of_second.std(0)[other_l - second.start])
    one_l, other_l, sign_l = one_l[kept], other_l[kept], sign_l[kept]
    correlations = (_correlation(of_first[:, one_l]), _correlation(of_second[:, other_l - second.start] * sign_l))
    _, directions_li = np.linalg.eigh(correlations[0] + correlations[1])
    variance_i = np.min([np.einsum("li,lm,mi->i", directions_li, c, directions_li) for c in correlations], axis=0)
    shared_i = np.maximum(variance_i - 1, 0)
    best_i = np.argsort(-shared_i)[:n_latent]
    loadings_lk = (directions_li * np.sqrt(shared_i))[:, best_i]
    for nodes_l, sign in ((one_l, 1.0), (other_l, sign_l[:, None])):
        np.add.at(vectors_vk[:, : len(best_i)], nodes_l, sign * loadings_lk)
        vectors_vk /= np.maximum(np.bincount(nodes_l, minlength=graph.n_nodes), 1)[:, None]
    return torch.as_tensor(vectors_vk, dtype=torch.float32)


def _most_varying(*spreads_l: np.ndarray) -> np.ndarray:
    """Numbers of at most 1,000 pairs of linked features: those that vary most, by their ranks in both modalities."""
    rank_l = np.sum([spread_l.argsort(kind="stable").argsort(kind="stable") for spread_l in spreads_l], axis=0)
    return np.sort(np.argsort(-rank_l, kind="stable")[:_MOST_LINKS])


def _correlation(values_nl: np.ndarray) -> np.ndarray:
    """Correlations ``(l, l)``; a feature that does not vary has none with others."""
    centered = values_nl - values_nl.mean(0)
    sd = centered.std(0)
    scaled = centered / np.where(sd > 0, sd, 1.0)
    correlation = scaled.T @ scaled / len(scaled)
    np.fill_diagonal(correlation, 1.0)
    return correlation
