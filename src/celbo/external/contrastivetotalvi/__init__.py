"""ContrastiveTOTALVI: what varies in genes and proteins of target cells only."""

from ...core.planned import public_names
from .model import ContrastiveTOTALVI
from .module import ContrastiveTOTALVAE

__all__ = ["ContrastiveTOTALVAE", "ContrastiveTOTALVI"]

__dir__ = public_names(__name__)
