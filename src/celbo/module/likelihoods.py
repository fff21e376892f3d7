r"""Likelihoods of counts by name: from a decoder's logits to a distribution.

With the softmax the logits are handed on, so that the sum over genes takes the fused path (:mod:`celbo.ops`); with
another activation the mean is worked out here.

Dims: n cells, g genes, s samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Distribution

from ..distributions import NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from ..distributions.base import CountDistribution

__all__ = ["LIKELIHOODS", "CountLikelihood", "log_likelihood"]

Build = Callable[..., Distribution]


@dataclass(frozen=True)
class CountLikelihood:
    """How one likelihood is made.

    Attributes
    ----------
    from_logits
        Takes ``scale_logits``, ``log_library``, ``log_theta``, ``zi_logits``; None where the family has no fused form.
    from_rate
        Takes ``rate``, ``scale``, ``log_theta``, ``zi_logits``.
    zero_inflated
        Whether it looks at ``zi_logits``.
    """

    from_logits: Build | None
    from_rate: Build
    zero_inflated: bool = False

    def __call__(
        self,
        scale_logits: Tensor,
        log_library: Tensor,
        log_theta: Tensor,
        zi_logits: Tensor | None,
        activation: Callable[[Tensor], Tensor],
        is_softmax: bool,
    ) -> Distribution:
        r"""Distribution of mean :math:`\ell\,f(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits
            ``(n, g)`` or ``(s, n, g)``.
        log_library
            Natural log of library or size factor, ``(n, 1)`` or ``(s, n, 1)``; ``-inf`` for an empty cell.
        log_theta
            Natural log of the inverse dispersion (of the standard deviation for the normal), ``(g,)`` or ``(n, g)``.
        zi_logits
            Logits of an added zero, as ``scale_logits``; None where not looked at.
        activation, is_softmax
            The function :math:`f`, and whether it is the softmax over genes.
        """
        if is_softmax and self.from_logits is not None:
            return self.from_logits(scale_logits, log_library, log_theta, zi_logits)
        scale = activation(scale_logits)
        return self.from_rate(log_library.exp() * scale, scale, log_theta, zi_logits)


LIKELIHOODS: Mapping[str, CountLikelihood] = {
    "zinb": CountLikelihood(
        from_logits=ZeroInflatedNegativeBinomial.from_logits,
        from_rate=lambda rate, scale, log_theta, zi_logits: ZeroInflatedNegativeBinomial(
            mu=rate, theta=log_theta.exp(), zi_logits=zi_logits, scale=scale
        ),
        zero_inflated=True,
    ),
    "nb": CountLikelihood(
        from_logits=lambda scale_logits, log_library, log_theta, _: NegativeBinomial.from_logits(
            scale_logits, log_library, log_theta
        ),
        from_rate=lambda rate, scale, log_theta, _: NegativeBinomial(mu=rate, theta=log_theta.exp(), scale=scale),
    ),
    "poisson": CountLikelihood(
        from_logits=lambda scale_logits, log_library, *_: Poisson.from_logits(scale_logits, log_library),
        from_rate=lambda rate, scale, *_: Poisson(rate, scale=scale, validate_args=False),
    ),
    "normal": CountLikelihood(
        from_logits=None,
        from_rate=lambda rate, scale, log_theta, _: Normal(rate, log_theta.exp(), normal_mu=scale, validate_args=False),
    ),
}
"""The likelihoods that ``gene_likelihood`` names."""


def log_likelihood(px: Distribution, x: Tensor) -> Tensor:
    """Log-likelihood of each cell in nats, summed over genes: ``(n,)`` or ``(s, n)``."""
    return px.log_prob_sum(x) if isinstance(px, CountDistribution) else px.log_prob(x).sum(-1)
