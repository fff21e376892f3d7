"""What one kind of model has to say beside its curves and latents: numbers, and the sections that show them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .page import Section

__all__ = ["Detail", "Details", "joined"]


class Detail(Protocol):
    """Answers of a model of one kind, asked once and drawn on the page."""

    @property
    def figures(self) -> Mapping[str, float]:
        """The few numbers that belong at the top of the page, by what they are called."""
        ...

    def sections(self) -> list[Section]:
        """The sections of the page."""
        ...


@dataclass(frozen=True, eq=False)
class Details:
    """Answers of several kinds, one after the other.

    Attributes
    ----------
    parts
        The answers.
    """

    parts: Sequence[Detail]

    @property
    def figures(self) -> Mapping[str, float]:
        """Those of all parts."""
        return {name: value for part in self.parts for name, value in part.figures.items()}

    def sections(self) -> list[Section]:
        """Those of all parts."""
        return [section for part in self.parts for section in part.sections()]


def joined(*ask: Callable[[Any, int], Detail]) -> Callable[[Any, int], Details]:
    """What asks a model, with a seed, for answers of several kinds."""
    return lambda model, seed: Details([one(model, seed) for one in ask])
