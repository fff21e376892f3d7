r"""What a conditional autoencoder (CondSCVI) says about cell types: mixtures within, fine labels, swaps.

Dims: n cells, k latents, c labels, f fine labels, p mixture components.
"""

import numpy as np
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS, settings
from ..module.vaec import VAEC
from ..ops.random import fresh_seed
from .passes import Batches, Rows, encode, evaluating, on_device

__all__ = ["fine_label_probabilities", "label_swaps", "mixtures_of_groups"]

_RESTARTS = 10
_ITERATIONS = 50


def mixtures_of_groups(
    mean_nk: np.ndarray, var_nk: np.ndarray, codes_n: np.ndarray, n_groups: int, p: int, *, seed: int | None = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Sum the posteriors of each group of cells up as a mixture of few normal distributions.

    The means are clustered by k-means. A cluster :math:`K` of cells becomes a component with the mean and variance of
    its part of the aggregated posterior, and its share of the group's cells as weight:

    .. math:: \mu_K = \tfrac{1}{|K|} \sum_{n \in K} \mu_n, \qquad
              \sigma^2_K = \tfrac{1}{|K|} \sum_{n \in K} \bigl(\sigma^2_n + (\mu_n - \mu_K)^2\bigr)

    Parameters
    ----------
    mean_nk, var_nk
        Mean and variance of each cell's posterior.
    codes_n, n_groups
        Group of each cell; number of groups.
    p
        Components a group, at least 1.
    seed
        Of the clustering; None: ``celbo.settings.seed``, and fresh randomness where that is None too.

    Returns
    -------
    Means and variances ``(c, p, k)`` and weights ``(c, p)``, float32. Components without cells have weight 0, mean 0
    and variance 1; a group without cells has the one component N(0, I).

    Raises
    ------
    ValueError
        ``p`` below 1.
    """
    if p < 1:
        raise ValueError(f"A mixture needs at least 1 component, got p={p}.")
    rng = np.random.default_rng(fresh_seed(settings.seed if seed is None else seed))
    k = mean_nk.shape[1]
    mean_cpk, var_cpk, weight_cp = np.zeros((n_groups, p, k)), np.ones((n_groups, p, k)), np.zeros((n_groups, p))
    for c in range(n_groups):
        members = codes_n == c
        if not members.any():
            weight_cp[c, 0] = 1
            continue
        mean_mk, var_mk = mean_nk[members].astype(np.float64), var_nk[members].astype(np.float64)
        cluster_m = _k_means(mean_mk, p, rng)
        for j, cluster in enumerate(np.unique(cluster_m)):
            within = cluster_m == cluster
            mean_cpk[c, j] = mean_mk[within].mean(0)
            var_cpk[c, j] = var_mk[within].mean(0) + mean_mk[within].var(0)
            weight_cp[c, j] = within.mean()
    return mean_cpk.astype(np.float32), var_cpk.astype(np.float32), weight_cp.astype(np.float32)


def _k_means(points_nk: np.ndarray, p: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster of each point, ``(n,)``: the best of several runs of Lloyd's algorithm from k-means++ centres."""
    runs = [_lloyd(points_nk, _spread_centres(points_nk, min(p, len(points_nk)), rng)) for _ in range(_RESTARTS)]
    return min(runs, key=lambda run: run[1])[0]


def _lloyd(points_nk: np.ndarray, centre_pk: np.ndarray) -> tuple[np.ndarray, float]:
    """Clusters, and the sum of squared distances from their centres."""
    cluster_n = np.full(len(points_nk), -1)
    for _ in range(_ITERATIONS):
        distance_np = _squared_distances(points_nk, centre_pk)
        nearest_n = distance_np.argmin(1)
        if (nearest_n == cluster_n).all():
            break
        cluster_n = nearest_n
        size_p = np.bincount(cluster_n, minlength=len(centre_pk))
        total_pk = np.zeros_like(centre_pk)
        np.add.at(total_pk, cluster_n, points_nk)
        centre_pk = np.where(size_p[:, None] > 0, total_pk / np.maximum(size_p, 1)[:, None], centre_pk)
    return cluster_n, float(_squared_distances(points_nk, centre_pk).min(1).sum())


def _spread_centres(points_nk: np.ndarray, p: int, rng: np.random.Generator) -> np.ndarray:
    """First centres: points drawn in proportion to their squared distance from those already drawn."""
    centre_pk = points_nk[[rng.integers(len(points_nk))]]
    while len(centre_pk) < p:
        distance_n = _squared_distances(points_nk, centre_pk).min(1)
        total = distance_n.sum()
        drawn = rng.choice(len(points_nk), p=distance_n / total if total > 0 else None)
        centre_pk = np.vstack([centre_pk, points_nk[drawn]])
    return centre_pk


def _squared_distances(points_nk: np.ndarray, centre_pk: np.ndarray) -> np.ndarray:
    squares = (points_nk**2).sum(1)[:, None] - 2 * points_nk @ centre_pk.T + (centre_pk**2).sum(1)
    return np.maximum(squares, 0)


def fine_label_probabilities(
    module: VAEC,
    batches: Batches,
    *,
    use_posterior_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Probability of each fine label for each cell.

    Parameters
    ----------
    module
        With a classifier of fine labels, of which the last is "not labelled".
    batches
        Minibatches.
    use_posterior_mean
        Classify the mean of the latents' posterior, or a draw from it.
    n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.

    Returns
    -------
    ``(n, f)`` float32 without "not labelled", rows that sum to 1.
    """
    rows = Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            encoded = encode(module, tensors)
            z_nk = encoded["qz"].loc if use_posterior_mean else encoded["z"]
            rows.append(fine_probabilities(module, z_nk, tensors[REGISTRY_KEYS.LABELS_KEY]))
    return rows.array()


def fine_probabilities(module: VAEC, z_nk: Tensor, label_n1: Tensor) -> Tensor:
    """Probabilities ``(n, f)`` of the fine labels of latents; "not labelled" is no label."""
    return module.classify(z_nk, label_n1)[:, :-1].softmax(-1)


def label_swaps(module: VAEC, batches: Batches) -> np.ndarray:
    r"""Change of the mean log-likelihood when cells of one label are taken for cells of another.

    Parameters
    ----------
    module
        Encoded and decoded once for each label, at the mean of the latents' posterior.
    batches
        Minibatches.

    Returns
    -------
    ``(c, c)`` nats a cell; row: the cells' own label, column: what they are taken for. NaN for a label without cells.
    """
    c = module.n_labels
    total_cc, size_c = np.zeros((c, c)), np.zeros(c)
    with evaluating(module):
        for tensors in on_device(batches, module):
            own_n = tensors[REGISTRY_KEYS.LABELS_KEY].reshape(-1)
            ll_nc = torch.stack([_log_likelihood_as(module, tensors, label) for label in range(c)], dim=1).double()
            gain_nc = (ll_nc - ll_nc.gather(1, own_n[:, None])).cpu().numpy()
            codes_n = own_n.cpu().numpy()
            np.add.at(total_cc, codes_n, gain_nc)
            size_c += np.bincount(codes_n, minlength=c)
    return total_cc / np.where(size_c > 0, size_c, np.nan)[:, None]


def _log_likelihood_as(module: VAEC, tensors: dict[str, Tensor], label: int) -> Tensor:
    own = tensors[REGISTRY_KEYS.LABELS_KEY]
    relabelled = {**tensors, REGISTRY_KEYS.LABELS_KEY: torch.full_like(own, label)}
    encoded = encode(module, relabelled)
    decoded = module.generative(**module._get_generative_input(relabelled, {**encoded, "z": encoded["qz"].loc}))
    return decoded["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
