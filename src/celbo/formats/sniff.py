"""How a table of text is written: encoding, separator, decimal mark, header, names; by its first lines."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from ..store.damage import DamagedDataError
from .signatures import opened_text

__all__ = ["Layout", "is_number", "layout_of", "opened_lines", "split"]

_SEPARATORS = ("\t", ";", ",", "|", " ")
"""The likeliest first: a comma may be a decimal mark beside a semicolon, a space part of a name."""

_LINES = 60
_LONGEST = 2**28
"""Lines that are looked at, and characters of one."""

_MISSING = frozenset(("", "NA", "NaN", "nan", "N/A", "NULL", "null", "na"))
_NUMBER = re.compile(r"^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$")
_DECIMAL_COMMA = re.compile(r"^[+-]?\d*,\d+$")
_DECIMAL_POINT = re.compile(r"^[+-]?\d*\.\d+$")
_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(,\d{3})+$")
_CORNER = re.compile(r"^(gene|symbol|feature|geneid|ensembl|cell|barcode|sample|index|id$|name)", re.I)


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes
    ----------
    encoding, separator
        Of the text.
    decimal, thousands
        Marks within numbers; ``thousands`` may be None.
    skipped
        Lines before the first row of values, the header among them.
    header
        Name of each column but that of the names; None: there is none.
    corner
        What the column of names is called; empty where it has no name.
    has_names
        Whether the first column has names.
    n_columns, n_fields
        Columns, and fields of a row: one more where rows end with a separator.
    sample
        Fields of the first rows.
    """

    encoding: str
    separator: str
    decimal: str
    thousands: str | None
    skipped: int
    header: list[str] | None
    corner: str
    has_names: bool
    n_columns: int
    n_fields: int
    sample: list[list[str]]


@contextmanager
def opened_lines(path: Path, encoding: str) -> Iterator[IO[str]]:
    """The text of a file, unpacked, its line ends alike."""
    with opened_text(path) as raw:
        yield TextIOWrapper(raw, encoding=encoding, errors="replace", newline=None)  # type: ignore[type-var]


def layout_of(path: Path) -> Layout:
    """Look at the first lines of a table.

    Raises
    ------
    DamagedDataError
        When they are no table.
    """
    encoding = _encoding_of(path)
    with opened_lines(path, encoding) as file:
        lines = _first_lines(file)
    separator = _separator_of([line for _, line in lines])
    if separator is None:
        raise DamagedDataError(
            f"{path} is text, but no table of counts: its lines have no columns separated by commas, tabs or "
            "semicolons "
            f"(the first is {_shortened(lines[0][1]) if lines else ''!r})."
        )
    table = [(number, split(line, separator)) for number, line in lines]
    return _described(path, encoding, separator, _without_comments(table))


def is_number(text: str) -> bool:
    """Whether this is a number, or stands for a missing one."""
    text = text.strip()
    return text in _MISSING or _NUMBER.match(text) is not None or _THOUSANDS.match(text) is not None


def split(line: str, separator: str) -> list[str]:
    """Fields of a line, without quotes; one that ends with a separator has no field after that."""
    line = line.rstrip("\r\n")
    csv.field_size_limit(_LONGEST)
    if separator == " ":
        line = line.strip()
    fields = next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " "), [])
    return [field.strip() for field in fields]


def _encoding_of(path: Path) -> str:
    with opened_text(path) as raw:
        head = raw.read(2**16)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        head[: head.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _first_lines(file: IO[str]) -> list[tuple[int, str]]:
    """Numbers and text of lines that are not empty."""
    found: list[tuple[int, str]] = []
    number = 0
    while len(found) < _LINES:
        line = file.readline(_LONGEST)
        if not line:
            break
        if line.strip():
            found.append((number, line))
        number += 1
    return found


def _separator_of(lines: list[str]) -> str | None:
    """The separator that gives the later lines, where there are no remarks, as many fields each, two or more."""
    later = lines[len(lines) // 2 :]
    for separator in _SEPARATORS:
        counts = [len(split(line, separator)) for line in later]
        if min(counts, default=0) >= 2 and len({*counts[:-1]} or {counts[0]}) == 1:
            return separator
    return None


def _without_comments(table: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows without the remarks before the header: lines with fewer fields than the others have."""
    width = len(table[-1][1]) if len(table) < 3 else len(table[-2][1])
    first = next((place for place, (_, fields) in enumerate(table) if len(fields) >= width - 1), 0)
    return table[first:]


def _described(path: Path, encoding: str, separator: str, table: list[tuple[int, list[str]]]) -> Layout:
    width = len(table[-2][1] if len(table) > 2 else table[-1][1])
    first = table[0][1]
    has_header = _is_header(first, [fields for _, fields in table[1:]], width)
    body = [fields for _, fields in (table[1:] if has_header else table)]
    if not body:
        raise DamagedDataError(f"{path} has a header and no rows: it is empty or was cut short. Copy it again.")
    ends_empty = (
        width > 2 and (len(first) < width or not first[-1]) and all(_ends_empty(fields, width) for fields in body)
    )
    n_columns = width - ends_empty
    decimal, thousands = _marks_of(body, separator)
    names_missing = all(is_number(fields[0]) for fields in body)
    header, corner = _header(first, n_columns) if has_header else (None, "")
    has_names = not names_missing or (header is not None and len(header) < n_columns and _is_index(corner, body))
    if header is not None and not has_names and len(header) < n_columns:
        header = [corner, *header]
    return Layout(
        encoding,
        separator,
        decimal,
        thousands,
        table[1][0] if has_header else table[0][0],
        header,
        corner,
        has_names,
        n_columns,
        width,
        [fields[:n_columns] for fields in body],
    )


def _ends_empty(fields: list[str], width: int) -> bool:
    return len(fields) < width or not fields[width - 1]


def _is_header(first: list[str], body: list[list[str]], width: int) -> bool:
    if len(first) == width - 1 or not first[0] or first[0].startswith("#") or _CORNER.match(first[0]):
        return True
    values = first[1:]
    if not values or not all(is_number(value) for value in values):
        return True
    running = ([str(i) for i in range(len(values))], [str(i + 1) for i in range(len(values))])
    return bool(body) and values in running and not (is_number(first[0]) and first[0])


def _header(first: list[str], n_columns: int) -> tuple[list[str], str]:
    """Names of the columns but the first, and of the first."""
    if len(first) == n_columns - 1:
        return first, ""
    return first[1:n_columns], first[0].lstrip("#").strip()


def _is_index(corner: str, body: list[list[str]]) -> bool:
    """Whether a first column of numbers counts the rows, or is said to."""
    numbers = [fields[0] for fields in body]
    running = ([str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))])
    words = (
        "",
        "index",
        "cell",
        "cell_id",
        "cellid",
        "id",
        "barcode",
        "gene",
        "gene_id",
        "unnamed: 0",
        "entrez",
        "geneid",
    )
    return numbers in running or corner.lower() in words


def _marks_of(body: list[list[str]], separator: str) -> tuple[str, str | None]:
    """The decimal mark, and that of thousands, by the numbers of the first rows."""
    values = [value for fields in body for value in fields[1:] if "," in value and "." not in value]
    commas = [value for value in values if _DECIMAL_COMMA.match(value) or _THOUSANDS.match(value)]
    if not commas or any(_DECIMAL_POINT.match(value) for fields in body for value in fields[1:]):
        return ".", None
    is_thousands = separator == "," and all(_THOUSANDS.match(value) for value in commas)
    return (".", ",") if is_thousands else (",", None)


def _shortened(line: str) -> str:
    return line.strip()[:60]
