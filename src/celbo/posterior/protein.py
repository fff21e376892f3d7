r"""What is read off the counts of proteins, mixtures of background (first) and foreground (second component).

Dims: n cells, p proteins, s samples.
"""

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli

from ..distributions import NegativeBinomialMixture
from ..ops.draws import sample

__all__ = ["background_of", "foreground_of", "protein_of"]


def protein_of(
    py: NegativeBinomialMixture,
    sample_mixing: bool = False,
    scale: bool = False,
    background: bool = False,
    prior_count: float = 0.0,
) -> Tensor:
    r"""Expected counts of foreground, :math:`(1 - \pi)\,\mu_\text{fore}`.

    Parameters
    ----------
    py
        Distribution of the counts.
    sample_mixing
        Draw whether a count is foreground, instead of weighing by the probability.
    scale
        Make each cell's values sum to 1.
    background
        Add the background, :math:`\pi\,\mu_\text{back}`.
    prior_count
        Added to all values.

    Returns
    -------
    ``(n, p)`` or ``(s, n, p)``.
    """
    is_background = py.mixture_probs
    if sample_mixing:
        is_background = sample(Bernoulli(is_background, validate_args=False))
    values = py.mu2 * (1 - is_background)
    values = values + py.mu1 * is_background if background else values
    values = F.normalize(values, p=1, dim=-1) if scale else values
    return values + prior_count if prior_count else values


def foreground_of(py: NegativeBinomialMixture) -> Tensor:
    """Probability that a count is foreground."""
    return (-py.mixture_logits).sigmoid()


def background_of(py: NegativeBinomialMixture) -> Tensor:
    """Expected count of background."""
    return py.mu1
