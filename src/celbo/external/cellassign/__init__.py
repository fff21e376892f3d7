"""CellAssign: cell types by marker genes."""

from ...core.planned import public_names
from .model import CellAssign
from .module import CellAssignModule

__all__ = ["CellAssign", "CellAssignModule"]

__dir__ = public_names(__name__)
