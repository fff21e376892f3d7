"""Tables as files, by the suffix of the file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from ...core import optional
from ..output import require_suffix

__all__ = ["TABLES", "require_output", "write_as"]


def _pyarrow() -> None:
    optional("pyarrow", extra="parquet", purpose="a table as .parquet")


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    _pyarrow()
    table.to_parquet(path, engine="pyarrow")


_WRITERS: Mapping[str, Callable[[Path, pd.DataFrame], None]] = {
    ".csv": lambda path, table: table.to_csv(path),
    ".tsv": lambda path, table: table.to_csv(path, sep="\t"),
    ".parquet": _write_parquet,
}
"""Suffix -> how a table is written."""

TABLES = tuple(_WRITERS)
"""Suffixes of tables."""


def require_output(output: Path, what: str, further: tuple[str, ...] = ()) -> None:
    """Refuse a file that a table cannot be written to, before anything is computed.

    Parameters
    ----------
    output
        The file.
    what
        What is written, for the message: "a table is".
    further
        Suffixes that are no table's and are taken too.

    Raises
    ------
    UserError
        Another suffix.
    ModuleNotFoundError
        ``.parquet`` without its package.
    """
    suffixes = (*TABLES, *further)
    require_suffix(output, suffixes, f"{what} written as {', '.join(suffixes)}")
    if output.suffix == ".parquet":
        _pyarrow()


def write_as(suffix: str, path: Path, table: pd.DataFrame) -> None:
    """Write a table as files of this suffix are; ``path`` may have another one until it is complete."""
    _WRITERS[suffix](path, table)
