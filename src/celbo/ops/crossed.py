r"""Log-probabilities of every cell's counts under every one of some decoded means.

Importance weights ask how likely the counts of anchor a are at sample i, for each pair. Means differ between anchors by
the library alone, :math:`\mu_{aig} = \ell_a \rho_{ig}`, so that the sample is decoded once, and with

.. math::
    \log \mathrm{NB}(x; \mu, \theta) = \log\frac{\Gamma(x + \theta)}{\Gamma(\theta)\,x!\,\theta^x} + x \log \mu
        - (x + \theta) \log(1 + \mu/\theta)

the first term is one of anchor and gene, the second a product of matrices. What is left for each pair are logarithms:
in float32 where the count is zero, in float64 where it is not, because there large terms cancel.

Dims: a anchors, i samples, g genes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import log_gamma_ratio

__all__ = ["nb_log_prob_sums", "poisson_log_prob_sums"]

_NOTHING = -1e4


def nb_log_prob_sums(
    x_ag: Tensor,
    log_library_a: Tensor,
    scale_logits_ig: Tensor,
    log_theta_g: Tensor,
    zi_logits_ig: Tensor | None = None,
) -> Tensor:
    """Negative binomial, with added zeros or without.

    Parameters
    ----------
    x_ag
        Counts, ``(a, g)``.
    log_library_a
        Natural log of the anchors' libraries, ``(a,)``.
    scale_logits_ig
        Logits of the samples' shares, ``(i, g)``.
    log_theta_g
        Natural log of the inverse dispersion, ``(g,)``.
    zi_logits_ig
        Log-odds of an added zero, ``(i, g)``; None: there are none.

    Returns
    -------
    ``(a, i)`` float64, nats, summed over genes.
    """
    log_share_gi, x64_ag = _log_shares(scale_logits_ig), x_ag.double()
    log_theta_g, log_library_a = log_theta_g.double(), log_library_a.double()
    theta_g, dtype = log_theta_g.exp(), scale_logits_ig.dtype
    narrow_theta_g1 = theta_g.to(dtype)[:, None]
    ratio_gi = (log_share_gi - log_theta_g[:, None]).exp()
    narrow_gi = ratio_gi.to(dtype)
    zi_gi = None if zi_logits_ig is None else zi_logits_ig.t().contiguous()
    constant_ag = log_gamma_ratio(x64_ag, theta_g) - x64_ag * log_theta_g - torch.lgamma(x64_ag + 1)
    sums = _log_means(x64_ag, log_library_a, log_share_gi) + constant_ag.sum(-1, keepdim=True)
    if zi_gi is not None:  # each count is not lost; of zeros more below
        sums -= F.softplus(zi_gi).sum(0, dtype=torch.float64)
    for a, library in enumerate(log_library_a.exp()):
        seen = x_ag[a] > 0
        found, rest = seen.nonzero()[:, 0], (~seen).nonzero()[:, 0]
        sums[a] -= (x64_ag[a, found] + theta_g[found]) @ ratio_gi[found].mul_(library).log1p_()
        # The log-probability of a zero, negated.
        lost = narrow_gi[rest].mul_(library).log1p_().mul_(narrow_theta_g1[rest])
        if zi_gi is not None:
            lost -= F.softplus(zi_gi[rest].add_(lost))
        sums[a] -= lost.sum(0, dtype=torch.float64)
    return sums


def poisson_log_prob_sums(x_ag: Tensor, log_library_a: Tensor, scale_logits_ig: Tensor) -> Tensor:
    """Poisson; arguments and answer as :func:`nb_log_prob_sums`."""
    x64_ag = x_ag.double()
    log_library_a = log_library_a.double()
    constant_a = log_library_a.exp() + torch.lgamma(x64_ag + 1).sum(-1)
    return _log_means(x64_ag, log_library_a, _log_shares(scale_logits_ig)) - constant_a[:, None]


def _log_shares(scale_logits_ig: Tensor) -> Tensor:
    """``(g, i)`` float64; none is 0, whose logarithm times no count would not be a number."""
    return scale_logits_ig.double().log_softmax(-1).clamp(min=_NOTHING).t().contiguous()


def _log_means(x_ag: Tensor, log_library_a: Tensor, log_share_gi: Tensor) -> Tensor:
    """Sum of count times log mean, ``(a, i)``; 0 where there are no counts, whatever the mean."""
    of_library = torch.where(x_ag.sum(-1) > 0, x_ag.sum(-1) * log_library_a, 0)
    return x_ag @ log_share_gi + of_library[:, None]
