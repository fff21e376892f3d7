"""Contract tests that authors of models and distributions can run on their own."""

from ..core.planned import public_names
from .distributions import check_distribution
from .model import check_model
from .module import check_module

__all__ = ["check_distribution", "check_model", "check_module"]

__dir__ = public_names(__name__)
