"""VELOVI: how fast and where to each cell moves, from spliced and unspliced RNA."""

from ...core.planned import public_names
from .model import VELOVI
from .module import VELOVAE
from .preprocess import moments, preprocess_data

__all__ = ["VELOVAE", "VELOVI", "moments", "preprocess_data"]

__dir__ = public_names(__name__)
