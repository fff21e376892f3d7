"""Stereoscope: cell types of tissue spots, by way of single cells of known type."""

from ...core.planned import public_names
from .model import RNAStereoscope, SpatialStereoscope
from .module import RNADeconv, SpatialDeconv

__all__ = ["RNADeconv", "RNAStereoscope", "SpatialDeconv", "SpatialStereoscope"]

__dir__ = public_names(__name__)
