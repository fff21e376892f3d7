"""Distributions of counts and of the latent space, one family a file."""

from ..core.planned import planned_names, public_names
from .accessibility import Accessibility
from .base import CountDistribution
from .beta import Beta
from .beta_binomial import BetaBinomial
from .gamma import Gamma, ZeroInflatedGamma
from .log_normal import Log1pNormal, LogNormal, ZeroInflatedLogNormal
from .methylation import Methylation
from .negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from .negative_binomial_mixture import NegativeBinomialMixture
from .normal import Normal
from .poisson import Poisson

__all__ = [
    "Accessibility",
    "Beta",
    "BetaBinomial",
    "CountDistribution",
    "Gamma",
    "Log1pNormal",
    "LogNormal",
    "Methylation",
    "NegativeBinomial",
    "NegativeBinomialMixture",
    "Normal",
    "Poisson",
    "ZeroInflatedGamma",
    "ZeroInflatedLogNormal",
    "ZeroInflatedNegativeBinomial",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
