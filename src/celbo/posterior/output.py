"""What a model explains, and how a normalized value of it is read: one record for each, which the model declares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..core import REGISTRY_KEYS

__all__ = ["EXPRESSION", "Library", "Output", "read", "scale_of"]

Library = float | Literal["latent"]


def scale_of(px: Distribution, library_size: Library = 1) -> Tensor:
    """Normalized value of counts: each feature's share of the cell's counts, times a library.

    Parameters
    ----------
    px
        A distribution of :mod:`celbo.distributions`.
    library_size
        What a cell sums to over all features, or ``"latent"``: the library the model has for the cell.

    Raises
    ------
    NotImplementedError
        A distribution that has no scale.
    """
    values = px.get_normalized("mu" if library_size == "latent" else "scale")  # type: ignore[attr-defined]
    if values is None:
        raise NotImplementedError(
            f"{type(px).__name__} was made without a normalized scale: use library_size='latent'."
        )
    return values if library_size in ("latent", 1) else values * library_size


@dataclass(frozen=True)
class Output:
    """One of the things that a model explains.

    Attributes
    ----------
    name
        What a verb calls it: ``"expression"``, ``"protein"``.
    distribution
        Key of its distribution in what the module's ``generative`` gives.
    data
        Registry key of the data; the features are named as that field's columns.
    value
        Reads the normalized value ``(..., n, g)`` off the distribution. Further arguments are options, see
        :meth:`reading`.
    part
        Which columns of the data are its own; None: all.
    """

    name: str
    distribution: str = "px"
    data: str = REGISTRY_KEYS.X_KEY
    value: Callable[..., Tensor] = scale_of
    part: slice | None = None

    def reading(self, **options: Any) -> "Output":
        """The same output, its value read with these options."""
        return replace(self, value=partial(self.value, **options))

    def at_library(self, library_size: Library) -> "Output":
        """The same output at a library; at 1 as it is, since not every value knows of one."""
        return self if library_size == 1 else self.reading(library_size=library_size)


EXPRESSION = Output("expression")
"""What a model of counts explains."""


def read(outputs: Sequence[Output], decoded: Mapping[str, Any], columns: Tensor | None = None) -> Tensor:
    """Normalized values of all outputs beside each other, ``(..., n, g)``.

    Parameters
    ----------
    outputs
        Outputs, one or several.
    decoded
        What ``generative`` gave.
    columns
        Columns to give; None for all.
    """
    values = [output.value(decoded[output.distribution]) for output in outputs]
    beside = values[0] if len(values) == 1 else torch.cat(values, dim=-1)
    return beside if columns is None else beside[..., columns]
