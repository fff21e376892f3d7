"""Contributed models: one file or folder each, none of which imports another."""

from ..core.planned import planned_names
from .solo import SOLO

__all__ = ["SOLO"]

__getattr__ = planned_names(__name__)
