"""What :func:`~celbo.choosing.which` answers."""

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from .table import Choice, Need

__all__ = ["Advice", "Fit"]

_SHOWN = 6


@dataclass(frozen=True)
class Fit:
    """How one model suits the data.

    Attributes
    ----------
    name
        As one writes it, such as ``celbo.model.SCVI``.
    question
        What it is for.
    gives
        What one gets.
    needs
        What it needs.
    missing
        What the data lack; empty: it fits.
    brings
        What one brings beside the data; empty: nothing.
    begin
        Code to begin with; empty: its page tells how.
    paper
        Its paper.
    page
        Its page of the documentation, below ``docs``.
    """

    name: str
    question: str
    gives: str
    needs: str
    missing: tuple[str, ...]
    brings: str
    begin: str
    paper: str
    page: str

    @classmethod
    def of(cls, choice: Choice, missing: Sequence[Need], begin: str) -> "Fit":
        """The row of a model, with what the data lack and how to begin."""
        return cls(
            name=f"celbo.{choice.names[0]}",
            question=choice.head.gives,
            gives=choice.gives,
            needs=choice.needs_text,
            missing=tuple(need.value for need in missing),
            brings=choice.brings,
            begin=begin,
            paper=choice.head.reference.replace("*", ""),
            page=choice.page,
        )


@dataclass(frozen=True)
class Advice:
    """Which models suit some data.

    Attributes
    ----------
    data
        What the data are, in one line.
    counts
        Where counts are, in words; empty: there are none.
    columns
        ``{"batches": ..., "labels": ...}``: columns that are named like these, each with its number of values.
    fits
        Models that the data have all for, those that use most of them first.
    with_more
        Models that need something beside the data.
    others
        All others, with what is missing.
    """

    data: str
    counts: str
    columns: dict[str, dict[str, int]]
    fits: tuple[Fit, ...]
    with_more: tuple[Fit, ...]
    others: tuple[Fit, ...]

    def table(self) -> pd.DataFrame:
        """All models as a table: index by name, columns as the attributes of :class:`Fit`, and ``fits``."""
        rows = [vars(fit) | {"fits": not fit.missing} for fit in (*self.fits, *self.with_more, *self.others)]
        return pd.DataFrame(rows).set_index("name")

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield from self._head()
        if not self.fits:
            yield "No model fits these data as they are."
        for title, fits in (("These fit:", self.fits), ("These fit with something more:", self.with_more)):
            if fits:
                yield from ("", title)
            for fit in fits:
                yield f"  {fit.name}: {_small(fit.question)}"
                yield f"      you get  {fit.gives}"
                if fit.brings:
                    yield f"      bring    {fit.brings}"
                if fit.begin:
                    yield f"      begin    {fit.begin}"
        lacking = ", ".join(f"{fit.name.rpartition('.')[2]} (no {fit.missing[0]})" for fit in self.others)
        if lacking:
            yield from ("", *textwrap.wrap(f"These do not: {lacking}.", 110, subsequent_indent="  "))

    def _head(self) -> Iterator[str]:
        yield self.data
        yield f"counts   {self.counts or 'none: counts are whole, not negative and not all zero'}"
        for what, names in self.columns.items():
            shown = ", ".join(f"{name} ({n:,})" for name, n in list(names.items())[:_SHOWN])
            yield f"{what:8} {shown or 'no column is named like one'}"

    def _repr_html_(self) -> str:
        head = "".join(f"<div>{html.escape(line)}</div>" for line in self._head())
        rows = "".join(
            f"<tr><td><code>{html.escape(fit.name)}</code></td><td>{html.escape(fit.question)}</td>"
            f"<td>{html.escape(fit.gives)}</td><td>{html.escape(fit.brings)}</td>"
            f"<td><code>{html.escape(fit.begin)}</code></td></tr>"
            for fit in (*self.fits, *self.with_more)
        )
        titles = "".join(f"<th>{title}</th>" for title in ("model", "for", "you get", "bring", "begin"))
        return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"


def _small(text: str) -> str:
    """A phrase in the middle of a line: its first letter small, unless it is of an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
