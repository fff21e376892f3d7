r"""Log-probability that a region is open in a cell, and seen to be: entry by entry, the specification.

With log-odds :math:`a` (the region is open), :math:`d` (the cell is sequenced deeply enough to tell) and :math:`f` (the
region is one that shows), and :math:`\sigma` the logistic function,

.. math::
    \log P &= \log\sigma(a_{ng}) + \log\sigma(d_n) + \log\sigma(f_g) \\
    \log (1 - P) &= \log\bigl(\sigma(-a_{ng}) + \sigma(a_{ng})\, (1 - \sigma(d_n)\,\sigma(f_g))\bigr)

in logarithms throughout: neither a value nor a gradient is lost where a probability rounds to 0 or 1.

Any float dtype and device, differentiable in all but ``x``; everything is in nats. Dims: n cells, g regions.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["accessibility_log_prob", "accessibility_log_probs"]


def accessibility_log_probs(
    logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of an open and of a closed region.

    Parameters
    ----------
    logits
        Log-odds that a region is open, ``(..., g)``.
    depth_logits
        Log-odds of the cell's factor, ``(..., 1)``; None: the factor is 1.
    region_logits
        Log-odds of each region's factor, ``(g,)``; None: the factor is 1.

    Returns
    -------
    Two of the broadcast shape.
    """
    opened, closed = logsigmoid(logits), logsigmoid(-logits)
    factors = [given for given in (depth_logits, region_logits) if given is not None]
    if not factors:
        return opened, closed
    log_seen, log_unseen = logsigmoid(factors[0]), logsigmoid(-factors[0])
    for given in factors[1:]:
        log_unseen = torch.logaddexp(log_unseen, log_seen + logsigmoid(-given))
        log_seen = log_seen + logsigmoid(given)
    return opened + log_seen, torch.logaddexp(closed, opened + log_unseen)


def accessibility_log_prob(
    x: Tensor, logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None
) -> Tensor:
    """Log-probabilities of what was seen, in the broadcast shape.

    Parameters
    ----------
    x
        Counts, ``(..., g)``: a region is open where there is any.
    logits, depth_logits, region_logits
        As in :func:`accessibility_log_probs`.
    """
    opened, closed = accessibility_log_probs(logits, depth_logits, region_logits)
    return torch.where(x > 0, opened, closed)
