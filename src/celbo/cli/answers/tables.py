"""Tables as files, by the suffix of the file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import anndata
import pandas as pd

from ...core import optional
from ..errors import UserError
from ..output import require_suffix

__all__ = ["TABLES", "read_cells", "require_output", "write_as"]


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


def read_cells(path: Path) -> pd.DataFrame:
    """A table of cells by their names: ``obs`` of an ``.h5ad``, or a table whose first column has the names.

    Raises
    ------
    UserError
        No such file, or another suffix.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.suffix == ".h5ad":
        return anndata.read_h5ad(path, backed="r").obs
    if path.suffix == ".parquet":
        _pyarrow()
        return pd.read_parquet(path, engine="pyarrow")
    require_suffix(path, (".h5ad", *TABLES), "tables of cells are read from .h5ad, .csv, .tsv and .parquet")
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype={0: str})
    return table.set_index(table.columns[0])


def write_as(suffix: str, path: Path, table: pd.DataFrame) -> None:
    """Write a table as files of this suffix are; ``path`` may have another one until it is complete."""
    _WRITERS[suffix](path, table)
