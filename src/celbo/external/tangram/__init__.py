"""Tangram: cells of a reference, mapped onto the spots of a tissue."""

from ...core.planned import public_names
from .model import Tangram
from .module import TangramMapper
from .projecting import by_clusters

__all__ = ["Tangram", "TangramMapper", "by_clusters"]

__dir__ = public_names(__name__)
