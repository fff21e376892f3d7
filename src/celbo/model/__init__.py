"""Models: set up, train, ask."""

from ..core.planned import planned_names
from . import base
from .linear_scvi import LinearSCVI
from .scvi import SCVI

__all__ = ["SCVI", "LinearSCVI", "base"]

__getattr__ = planned_names(__name__)
