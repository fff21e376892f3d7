"""Which model for which question and data: one table for :func:`which`, ``celbo check`` and the documentation."""

from ..core.planned import public_names
from .advice import Advice, Fit
from .which import which

__all__ = ["Advice", "Fit", "which"]

__dir__ = public_names(__name__)
