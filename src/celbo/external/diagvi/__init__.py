"""DIAGVI: two modalities measured in other cells, brought together by features that go together."""

from ...core.planned import public_names
from .graph import GuidanceGraph
from .model import DIAGVI
from .module import DIAGVAE
from .plan import DiagTrainingPlan

__all__ = ["DIAGVAE", "DIAGVI", "DiagTrainingPlan", "GuidanceGraph"]

__dir__ = public_names(__name__)
