"""SysVI: integration of systems that differ much, as species or organoids and tissue."""

from ...core.planned import public_names
from .model import SysVI
from .module import SysVAE

__all__ = ["SysVAE", "SysVI"]

__dir__ = public_names(__name__)
