"""CellAssign: cell types by marker genes."""

from .model import CellAssign
from .module import CellAssignModule

__all__ = ["CellAssign", "CellAssignModule"]
