"""Decipher: cell states in two readable dimensions, and the trajectories that they lie on."""

from ...core.planned import public_names
from . import plots, utils
from .model import Decipher
from .module import DecipherModule
from .shifts import perturbation_shifts

__all__ = ["Decipher", "DecipherModule", "perturbation_shifts", "plots", "utils"]

__dir__ = public_names(__name__)
