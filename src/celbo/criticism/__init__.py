"""Does a model reproduce its data? Posterior predictive checks of models of counts."""

from ..core.planned import planned_names, public_names
from .check import PosteriorPredictiveCheck

__all__ = ["PosteriorPredictiveCheck"]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
