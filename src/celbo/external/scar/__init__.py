"""SCAR: counts without those of the ambient RNA."""

from ...core.planned import public_names
from .model import SCAR
from .module import SCAR_VAE

__all__ = ["SCAR", "SCAR_VAE"]

__dir__ = public_names(__name__)
