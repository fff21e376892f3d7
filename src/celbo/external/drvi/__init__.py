"""DRVI: latent dimensions that stand for one process each."""

from ...core.planned import public_names
from .decoder import DecoderDRVI
from .model import DRVI
from .module import DRVIModule

__all__ = ["DRVI", "DRVIModule", "DecoderDRVI"]

__dir__ = public_names(__name__)
