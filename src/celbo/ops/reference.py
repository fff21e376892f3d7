r"""Row sums of count log-probabilities from a decoder's logits, in plain torch: the specification.

The mean of gene :math:`g` in cell :math:`n` is :math:`\mu_{ng} = L_n\,\mathrm{softmax}(a_n)_g`, with :math:`\log L` and
:math:`a` given. A gene whose share underflows keeps its log-probability and its gradient: below a floor :math:`\mu_0`,
where :math:`\mu` has left every term but :math:`x \log\mu`, the mean is held at the floor and the rest added in logs,

.. math:: \log p(x; \mu) = \log p(x; \mu_0) + x (\log\mu - \log\mu_0), \qquad \mu < \mu_0 .

Any float dtype and device (half precision is computed in float32), differentiable in every argument.
"""

import torch
from torch import Tensor

from .accessibility import accessibility_log_prob
from .calls import check_shapes
from .elementwise import nb_log_prob, nb_mixture_log_prob, poisson_log_prob, zinb_log_prob
from .methylation import methylation_log_prob

__all__ = [
    "accessibility_log_prob_sum",
    "methylation_log_prob_sum",
    "nb_log_prob_sum",
    "nb_mixture_log_prob_sum",
    "poisson_log_prob_sum",
    "zinb_log_prob_sum",
]

# At these log-means mu / theta vanishes beside 1, while x / mu does not yet overflow.
_LOG_MEAN_FLOOR = {torch.float32: -60.0, torch.float64: -500.0}


def nb_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor) -> Tensor:
    r"""Log-probability of each cell's counts under negative binomials.

    .. math:: \sum_g \log \mathrm{NB}(x_{ng}; \mu_{ng}, \theta_{ng}), \qquad
              \mu = \exp(\text{log\_library})\,\mathrm{softmax}(\text{scale\_logits})

    Parameters
    ----------
    x
        Raw counts, ``(n, g)``.
    scale_logits
        Logits of the genes' shares of a cell, ``(n, g)``.
    log_library
        Natural log of the total expected of a cell, ``(n, 1)``; -inf for an empty cell, whose mean is 0.
    log_theta
        Natural log of the inverse dispersion, ``(g,)``, ``(1, g)`` or ``(n, g)``; the variance is mu + mu^2 / theta.

    Returns
    -------
    ``(n,)`` log-probabilities in nats, summed over genes.

    Raises
    ------
    ValueError
        When a shape is another one; the message gives all of them.
    """
    check_shapes(x, scale_logits, log_library, log_theta)
    x, scale_logits, log_library, log_theta = _to_common_dtype(x, scale_logits, log_library, log_theta)
    mu, rest = _mean_and_rest(x, scale_logits, log_library)
    return (nb_log_prob(x, mu, log_theta.exp()) + rest).sum(1)


def zinb_log_prob_sum(
    x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    r"""Log-probability of each cell's counts under negative binomials whose counts are sometimes lost.

    .. math:: \sum_g \log\left(\pi_{ng}\,[x_{ng} = 0] + (1-\pi_{ng})\,\mathrm{NB}(x_{ng}; \mu_{ng}, \theta_{ng})\right),
              \qquad \pi = \mathrm{sigmoid}(\text{zi\_logits})

    Parameters
    ----------
    x, scale_logits, log_library, log_theta
        As in :func:`nb_log_prob_sum`.
    zi_logits
        Log-odds of an added zero, ``(n, g)``.

    Returns
    -------
    ``(n,)`` log-probabilities in nats, summed over genes.

    Raises
    ------
    ValueError
        When a shape is another one; the message gives all of them.
    """
    check_shapes(x, scale_logits, log_library, log_theta, zi_logits)
    x, scale_logits, log_library, log_theta, zi_logits = _to_common_dtype(
        x, scale_logits, log_library, log_theta, zi_logits
    )
    mu, rest = _mean_and_rest(x, scale_logits, log_library)
    return (zinb_log_prob(x, mu, log_theta.exp(), zi_logits) + rest).sum(1)


def poisson_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor) -> Tensor:
    r"""Log-probability of each cell's counts under Poisson distributions.

    .. math:: \sum_g x_{ng} \log\mu_{ng} - \mu_{ng} - \log x_{ng}!

    Parameters
    ----------
    x, scale_logits, log_library
        As in :func:`nb_log_prob_sum`.

    Returns
    -------
    ``(n,)`` log-probabilities in nats, summed over genes.

    Raises
    ------
    ValueError
        When a shape is another one; the message gives all of them.
    """
    check_shapes(x, scale_logits, log_library)
    x, scale_logits, log_library = _to_common_dtype(x, scale_logits, log_library)
    mu, rest = _mean_and_rest(x, scale_logits, log_library)
    return (poisson_log_prob(x, mu) + rest).sum(1)


def accessibility_log_prob_sum(
    x: Tensor, logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None
) -> Tensor:
    """Log-probability of which regions of each cell are seen to be open; see :mod:`.accessibility`.

    Parameters
    ----------
    x
        Counts, ``(..., g)``, or a CSR tensor ``(n, g)``: a region is open where there is any.
    logits
        Log-odds that a region is open, ``(..., g)``.
    depth_logits, region_logits
        Log-odds of the cells' factors ``(..., 1)``, and of the regions' ``(g,)``; None: 1.

    Returns
    -------
    ``(...)`` in nats, summed over regions.
    """
    dense = x.to_dense() if x.layout == torch.sparse_csr else x
    return accessibility_log_prob(dense, logits, depth_logits, region_logits).sum(-1)


def nb_mixture_log_prob_sum(x: Tensor, mu1: Tensor, mu2: Tensor, theta: Tensor, mixture_logits: Tensor) -> Tensor:
    r"""Log-probability of each cell's counts of proteins, background or foreground.

    .. math:: \sum_p \log\bigl(w_{np}\, \mathrm{NB}(x_{np}; \mu_{1np}, \theta_{np})
              + (1 - w_{np})\, \mathrm{NB}(x_{np}; \mu_{2np}, \theta_{np})\bigr)

    Parameters
    ----------
    x
        Counts, ``(..., p)``; NaN where a protein was not measured, which adds nothing.
    mu1, mu2, theta
        Means and inverse dispersion of both components, ``(..., p)``.
    mixture_logits
        Log-odds of the first component, ``(..., p)``.

    Returns
    -------
    ``(...)`` log-probabilities in nats, summed over proteins.
    """
    log_prob = nb_mixture_log_prob(x.nan_to_num(), mu1, mu2, theta, theta, mixture_logits)
    return torch.where(x.isnan(), 0, log_prob).sum(-1)


def methylation_log_prob_sum(y: Tensor, total: Tensor, logits: Tensor, gamma_logits: Tensor | None = None) -> Tensor:
    """Log-probability of each cell's methylated reads, given all reads.

    Parameters
    ----------
    y, total
        Methylated reads, and all reads, ``(..., g)``.
    logits
        Log-odds of a read being methylated, ``(..., g)``.
    gamma_logits
        Log-odds of the dispersion, ``(g,)`` or ``(..., g)``; None: binomial.

    Returns
    -------
    ``(...)`` log-probabilities in nats, summed over regions. Those without reads add 0 and are not computed; on a
    device they are, for not to would make the host wait.
    """
    if y.device.type != "cpu":
        return methylation_log_prob(y, total, logits, gamma_logits).sum(-1)
    given = [table for table in (y, total, logits, gamma_logits) if table is not None]
    shape = torch.broadcast_tensors(*given)[0].shape
    covered = total.expand(shape).reshape(-1).nonzero().squeeze(-1)
    row, column = covered.div(shape[-1], rounding_mode="floor"), covered % shape[-1]
    picked = (table[column] if table.dim() == 1 else table.expand(shape).reshape(-1)[covered] for table in given)
    entries = methylation_log_prob(*picked)
    return entries.new_zeros(shape[:-1].numel()).index_add(0, row, entries).view(shape[:-1])


def _to_common_dtype(x: Tensor, *parameters: Tensor) -> list[Tensor]:
    """All in the widest float dtype of the parameters, at least float32."""
    dtype = torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return [tensor.to(dtype) for tensor in (x, *parameters)]


def _mean_and_rest(x: Tensor, scale_logits: Tensor, log_library: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, not below the floor where a count is not zero, and what this leaves out of the log-probability."""
    log_mu = log_library + torch.log_softmax(scale_logits, dim=1)
    floor = _LOG_MEAN_FLOOR[log_mu.dtype]
    rest = x * (log_mu - floor).clamp(max=0)
    is_zero = x == 0
    return torch.where(is_zero, log_mu, log_mu.clamp(min=floor)).exp(), torch.where(is_zero, 0, rest)
