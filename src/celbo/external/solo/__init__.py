"""SOLO: which cells are two cells."""

from .model import SOLO
from .module import DoubletClassifier

__all__ = ["SOLO", "DoubletClassifier"]
