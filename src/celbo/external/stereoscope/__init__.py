"""Stereoscope: cell types of tissue spots, by way of single cells of known type."""

from .model import RNAStereoscope, SpatialStereoscope
from .module import RNADeconv, SpatialDeconv

__all__ = ["RNADeconv", "RNAStereoscope", "SpatialDeconv", "SpatialStereoscope"]
