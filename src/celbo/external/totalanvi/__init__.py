"""TOTALANVI: RNA and surface proteins, with cell types of which some cells have a label."""

from ...core.planned import public_names
from .model import TOTALANVI
from .module import TOTALANVAE

__all__ = ["TOTALANVAE", "TOTALANVI"]

__dir__ = public_names(__name__)
