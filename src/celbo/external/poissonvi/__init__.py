"""POISSONVI: how many fragments the regions of open chromatin have."""

from ...core.planned import public_names
from .model import POISSONVI

__all__ = ["POISSONVI"]

__dir__ = public_names(__name__)
