"""What one kind of model has to say beside its curves and latents: numbers, and the sections that show them."""

from collections.abc import Mapping
from typing import Protocol

from .page import Section

__all__ = ["Detail"]


class Detail(Protocol):
    """Answers of a model of one kind, asked once and drawn on the page."""

    @property
    def figures(self) -> Mapping[str, float]:
        """The few numbers that belong at the top of the page, by what they are called."""
        ...

    def sections(self) -> list[Section]:
        """The sections of the page."""
        ...
