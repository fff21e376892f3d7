"""A registry in tables for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core import Summary
from .access import place
from .constants import ATTR_KEY, ATTR_NAME, MOD_KEY, MODEL_NAME, SETUP_ARGS, SETUP_METHOD_NAME

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["places_table", "print_setup_call", "screen", "sizes_text", "summary_of", "summary_table", "table"]

_STYLES = ("dodger_blue1", "green", "dark_violet")


def summary_of(name: str, registry: Mapping[str, Any], stats: Mapping[str, Any], places: Mapping[str, Any]) -> Summary:
    """A registry in a few lines: arguments of the setup, sizes, and where each field lies."""
    given = registry[SETUP_ARGS] or {}
    rows = {argument: repr(value) for argument, value in given.items() if value is not None}
    if sizes := sizes_text(stats):
        rows["sizes"] = sizes
    rows |= {key: _shown_place(where) for key, where in places.items()}
    return Summary(f"{name} of {registry[MODEL_NAME]}" if registry[MODEL_NAME] else name, rows)


def screen() -> "Console":
    """Where tables are printed. rich loads here, which takes a tenth of the time that the first model does."""
    from rich.console import Console

    return Console()


def print_setup_call(registry: Mapping[str, Any]) -> None:
    """The call that set the data up; nothing where the registry does not know it."""
    if registry[MODEL_NAME] is not None and registry[SETUP_ARGS] is not None:
        from rich.pretty import Pretty

        console = screen()
        method = registry.get(SETUP_METHOD_NAME, "setup_anndata")  # which managers made by hand may leave out
        console.print(f"Setup via `{registry[MODEL_NAME]}.{method}` with arguments:")
        console.print(Pretty(registry[SETUP_ARGS]))


def summary_table(stats: Mapping[str, Any]) -> "Table":
    """Sizes by name."""
    return table("Summary Statistics", ["Summary Stat Key", "Value"], sorted(stats.items()))


def places_table(data_registry: Mapping[str, Mapping[str, Any]]) -> "Table":
    """Where each field's data lie."""
    rows = [[key, _shown_place(where)] for key, where in data_registry.items()]
    return table("Data Registry", ["Registry Key", "scvi-tools Location"], rows)


def sizes_text(stats: Mapping[str, Any]) -> str:
    """Sizes in one line, as ``400 cells, 100 vars``; those that are 0 are left out."""
    return ", ".join(f"{value} {name.removeprefix('n_').replace('_', ' ')}" for name, value in stats.items() if value)


def _shown_place(where: Mapping[str, Any]) -> str:
    shown = place(where[ATTR_NAME], where[ATTR_KEY])
    return shown.replace("adata.", f"adata.mod[{where[MOD_KEY]!r}].", 1) if MOD_KEY in where else shown


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> "Table":
    """A rich table with one coloured, centred column for each name."""
    from rich.table import Table

    made = Table(title=title)
    for name, style in zip(columns, _STYLES):
        made.add_column(name, justify="center", style=style, no_wrap=True, overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made
