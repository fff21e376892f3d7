"""Over: a method of celbo's that has another form while scvi-tools' name is served."""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Over"]


class Over(NamedTuple):
    """Takes the place of an attribute that a class has.

    Parameters
    ----------
    form
        From what is there to what takes its place.
    """

    form: Callable[[Any], Any]
