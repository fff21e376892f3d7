"""Objects that explain themselves: a few lines in a terminal, a table in a notebook, public names in ``dir``."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ElboOfWeights", "Explained", "Summary", "elbo_of_weights"]

_WIDTH = 100


@dataclass(frozen=True, repr=False)
class Summary:
    """What an object is, in a few named lines.

    Attributes
    ----------
    title
        What it is.
    rows
        Name -> what there is to say; text, in which line breaks stay.

    Examples
    --------
    >>> Summary("A die", {"sides": "6", "colour": "white"})
    A die
      sides   6
      colour  white
    """

    title: str
    rows: Mapping[str, str]

    def __repr__(self) -> str:
        width = max(map(len, self.rows), default=0)
        wrapped = {name: _wrapped(text, _WIDTH - width - 4) for name, text in self.rows.items()}
        lines = [
            f"  {'' if further else name:<{width}}  {line}"
            for name, text in wrapped.items()
            for further, line in enumerate(text)
        ]
        return "\n".join([self.title, *lines])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The same as a table; names and values of the user's are escaped."""
        style = "text-align: left; vertical-align: top; padding: 0 1em 0 0"
        rows = "".join(
            f'<tr><th scope="row" style="{style}">{escape(name)}</th>'
            f'<td style="{style}">{"<br>".join(map(escape, text.splitlines()))}</td></tr>'
            for name, text in self.rows.items()
        )
        return f"<div><strong>{escape(self.title)}</strong><table>{rows}</table></div>"


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]] or [""]


class Explained(ABC):
    """What shows itself as a table in notebooks, and lists by ``dir`` what is public alone."""

    @abstractmethod
    def summary(self) -> Summary:
        """What it is, in a few lines."""

    def __repr__(self) -> str:
        return repr(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.startswith("__") or not name.startswith("_")]


class ElboOfWeights(NamedTuple):
    """The validation ELBO of the weights that a model has.

    Attributes
    ----------
    value
        Negative ELBO of the validation cells, in nats a cell.
    where
        The epoch, and how its weights came to be the model's.
    """

    value: float
    where: str


def elbo_of_weights(
    history: "Mapping[str, pd.DataFrame] | pd.DataFrame", kept_epoch: int | None
) -> ElboOfWeights | None:
    """The validation ELBO of a model's weights; None where none was computed.

    Parameters
    ----------
    history
        Metrics by epoch.
    kept_epoch
        The epoch whose weights the model has. None: nobody knows, as of archives of earlier versions; then the smallest
        value is given and called so.
    """
    curve = history.get("elbo_validation")
    if curve is None:
        return None
    values = curve.to_numpy(float).ravel()
    by_epoch = {int(epoch): float(value) for epoch, value in zip(curve.index, values, strict=True) if value == value}
    until = [epoch for epoch in by_epoch if kept_epoch is None or epoch <= kept_epoch]
    if not until:
        return None
    if kept_epoch is None:
        smallest = min(by_epoch, key=by_epoch.__getitem__)
        return ElboOfWeights(by_epoch[smallest], f"epoch {smallest}, the smallest")
    how = "the last" if until[-1] == max(by_epoch) else "whose weights were kept"
    return ElboOfWeights(by_epoch[until[-1]], f"epoch {until[-1]}, {how}")
