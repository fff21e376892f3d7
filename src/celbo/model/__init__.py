"""Models: set up, train, ask."""

from . import base
from .linear_scvi import LinearSCVI
from .scvi import SCVI

__all__ = ["SCVI", "LinearSCVI", "base"]
