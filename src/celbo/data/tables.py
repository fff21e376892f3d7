"""Tables in which a registry is shown."""

from collections.abc import Iterable, Sequence

from rich.table import Table

__all__ = ["table"]

_STYLES = ("dodger_blue1", "green", "dark_violet")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A rich table with one coloured, centred column for each name."""
    made = Table(title=title)
    for name, style in zip(columns, _STYLES):
        made.add_column(name, justify="center", style=style, no_wrap=True, overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made
