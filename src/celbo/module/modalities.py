r"""One posterior from those of several modalities, and what keeps these close to each other.

.. math::

    q(z_n) = N\Bigl(\sum_m w_{nm} \mu_{nm},\; \sum_m w_{nm}^2 \sigma^2_{nm}\Bigr), \qquad
    w_n = \mathrm{softmax}_{m \in M_n}(a_m)

over the modalities :math:`M_n` that the cell has: the distribution of the weighted mean of independent draws.
scvi-tools takes :math:`\sqrt{w}` for :math:`w^2` (with two equal weights a variance 2.8 times as large).

Dims: n cells, k latents, m modalities.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

__all__ = ["ModalityPenalty", "mixed", "modality_weights", "pair_penalty"]

ModalityPenalty = Literal["Jeffreys", "MMD", "None"]


def modality_weights(logits: Tensor, has_nm: Tensor) -> Tensor:
    """Weight of each modality among those that a cell has.

    Parameters
    ----------
    logits
        ``(m,)`` or ``(n, m)``.
    has_nm
        Which modalities a cell has, ``(n, m)`` booleans.

    Returns
    -------
    ``(n, m)``; zeros for a cell that has none.
    """
    lowest = torch.finfo(logits.dtype).min
    return logits.expand(has_nm.shape).masked_fill(~has_nm, lowest).softmax(-1) * has_nm


def mixed(posteriors: Sequence[Normal], weights_nm: Tensor, scvi_tools_figures: bool = False) -> Normal:
    """The joint posterior of the file's formula; that of a cell without modalities is the prior.

    Parameters
    ----------
    posteriors
        Of each modality, ``(n, k)``.
    weights_nm
        ``(n, m)``.
    scvi_tools_figures
        Weigh variances by the root of the weight.
    """
    of_variances = _root(weights_nm) if scvi_tools_figures else weights_nm.square()
    mean_nk = sum(weights_nm[:, [m]] * q.loc for m, q in enumerate(posteriors))
    variance_nk = sum(of_variances[:, [m]] * q.scale.square() for m, q in enumerate(posteriors))
    assert isinstance(variance_nk, Tensor)
    assert isinstance(mean_nk, Tensor)
    has_none_n1 = weights_nm.sum(1, keepdim=True) == 0
    return Normal(mean_nk, (variance_nk + has_none_n1).sqrt(), validate_args=False)


def _root(weights: Tensor) -> Tensor:
    """Their root, whose gradient at 0 is 0."""
    positive = weights > 0
    return torch.where(positive, weights, 1.0).sqrt() * positive


def pair_penalty(
    posteriors: Mapping[int, Normal], has_nm: Tensor, penalty: ModalityPenalty, scvi_tools_figures: bool = False
) -> Tensor:
    r"""How far the posteriors of a cell's modalities are from each other, summed over pairs that it has.

    Parameters
    ----------
    posteriors
        Of modalities by column of ``has_nm``.
    has_nm
        Which modalities a cell has, ``(n, m)`` booleans.
    penalty
        ``"Jeffreys"``: the symmetric divergence :math:`\mathrm{KL}(q_1 \| q_2) + \mathrm{KL}(q_2 \| q_1)` in nats;
        ``"MMD"``: the distance of the means; ``"None"``: nothing.
    scvi_tools_figures
        Take the root of the standard deviations for these, give every cell the distances of all, and one 0 for no
        penalty.

    Returns
    -------
    ``(n,)``.
    """
    total_n = torch.zeros(len(has_nm), device=has_nm.device)
    if penalty == "None":
        return total_n.sum() if scvi_tools_figures else total_n
    for one, other in combinations(posteriors, 2):
        both_n = has_nm[:, one] & has_nm[:, other]
        apart_n = _apart(posteriors[one], posteriors[other], penalty, scvi_tools_figures)
        apart_n = torch.where(both_n, apart_n, 0.0)
        total_n = total_n + (apart_n.sum() if penalty == "MMD" and scvi_tools_figures else apart_n)
    return total_n


def _apart(p: Normal, q: Normal, penalty: ModalityPenalty, rooted: bool) -> Tensor:
    if penalty == "MMD":
        return torch.linalg.vector_norm(p.loc - q.loc, dim=-1)
    if rooted:
        p, q = (Normal(one.loc, one.scale.sqrt(), validate_args=False) for one in (p, q))
    return (kl_divergence(p, q) + kl_divergence(q, p)).sum(-1)
