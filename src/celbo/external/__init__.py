"""Contributed models: one file or folder each, none of which imports another."""

from ..core.planned import planned_names

__all__: list[str] = []

__getattr__ = planned_names(__name__)
