"""RESOLVI: counts of cells in tissue without those of their neighbours and of the background."""

from ...core.planned import public_names
from .model import RESOLVI
from .module import RESOLVAE

__all__ = ["RESOLVAE", "RESOLVI"]

__dir__ = public_names(__name__)
