r"""Log-probability of methylated reads among all reads: entry by entry, the specification.

.. math::
    y \sim \mathrm{Binomial}(N, \mu), \quad \text{or} \quad
    y \sim \mathrm{BB}(N, \alpha, \beta), \qquad \alpha = \mu\tfrac{1 - \gamma}{\gamma},\
    \beta = (1 - \mu)\tfrac{1 - \gamma}{\gamma}

with :math:`\mu` and :math:`\gamma` given as log-odds: :math:`1 - \mu` and :math:`(1 - \gamma)/\gamma` lose no digits.
Given the sum :math:`N` of two negative binomial counts with one success probability, the first is beta-binomial:

.. math:: \mathrm{BB}(y; N, \alpha, \beta) = \frac{\mathrm{NB}(y; N\frac{\alpha}{s}, \alpha)\;
          \mathrm{NB}(N - y; N\frac{\beta}{s}, \beta)}{\mathrm{NB}(N; N, s)}, \qquad s = \alpha + \beta

three factors whose logarithms are exact and small, whereas those of the three beta functions cancel.

Any float dtype and device, differentiable in all but counts; everything is in nats. Dims: n cells, g regions.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .elementwise import nb_log_prob

__all__ = ["SMALLEST", "beta_binomial_log_prob", "concentrations", "methylation_log_prob"]

SMALLEST = 1e-8
"""Smallest concentration, that of scvi-tools."""


def beta_binomial_log_prob(y: Tensor, total: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Beta-binomial, in the broadcast shape; more successes than trials have probability 0."""
    failures, size = total - y, alpha + beta
    successes_p = nb_log_prob(y, total * (alpha / size), alpha)
    failures_p = nb_log_prob(failures.clamp(min=0), total * (beta / size), beta)
    log_prob = successes_p + failures_p - nb_log_prob(total, total, size)
    return torch.where(failures < 0, -torch.inf, log_prob)


def concentrations(logits: Tensor, gamma_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two concentrations of the file's formula."""
    size = (-gamma_logits).exp()
    return (logits.sigmoid() * size).clamp(min=SMALLEST), ((-logits).sigmoid() * size).clamp(min=SMALLEST)


def methylation_log_prob(y: Tensor, total: Tensor, logits: Tensor, gamma_logits: Tensor | None = None) -> Tensor:
    """Log-probabilities in the broadcast shape; 0 where there are no reads.

    Parameters
    ----------
    y, total
        Methylated reads, and all reads.
    logits
        Log-odds of a read being methylated.
    gamma_logits
        Log-odds of the dispersion; None: binomial.
    """
    if gamma_logits is not None:
        return beta_binomial_log_prob(y, total, *concentrations(logits, gamma_logits))
    failures = total - y
    ways = torch.lgamma(total + 1) - torch.lgamma(y + 1) - torch.lgamma(failures.clamp(min=0) + 1)
    log_prob = ways + y * logsigmoid(logits) + failures * logsigmoid(-logits)
    return torch.where(failures < 0, -torch.inf, log_prob)
