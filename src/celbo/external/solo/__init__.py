"""SOLO: which cells are two cells."""

from ...core.planned import public_names
from .model import SOLO
from .module import DoubletClassifier

__all__ = ["SOLO", "DoubletClassifier"]

__dir__ = public_names(__name__)
