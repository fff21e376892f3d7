"""GIMVI: genes that were not measured in space, from dissociated cells."""

from ...core.planned import public_names
from .model import GIMVI
from .module import JVAE

__all__ = ["GIMVI", "JVAE"]

__dir__ = public_names(__name__)
