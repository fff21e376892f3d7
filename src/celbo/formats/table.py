"""Tables of text, of cells by genes or genes by cells, read in pieces into sparse counts.

Dims: n cells, g genes.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from ..store.damage import DamagedDataError, naming_damage
from ..store.matrices.rows import MemoryRows
from .naming import listed, unique
from .opened import ORIENTATIONS, Opened, Reading, wanted_layers
from .orientation import are_rows_cells
from .signatures import READ_HERE
from .sniff import Layout, is_number, layout_of, opened_lines

__all__ = ["open_table"]

_ENTRIES = 2**22
"""Values that are dense at a time."""

_FEW = 0.1
"""Share of columns that may be no counts."""

_EXACT = 2**24
"""Whole numbers up to this are float32 exactly."""

_ABOUT_CELLS = re.compile(
    r"^(n_?counts?|n_?genes?(_by_counts)?|n_?umis?|nCount_.*|nFeature_.*|percent.*|pct_.*|total_counts.*|log1p_.*|"
    r"(seurat_)?clusters?|leiden.*|louvain.*|batch|donor|patient|sample|cell_?type.*|size_?factors?|library_?size|"
    r"doublet_?scores?|S[._]score|G2M[._]score|phase|umap_?[12]|tsne_?[12]|pc_?\d+|x_?coord.*|y_?coord.*|orig[._]ident|"
    r"array_(row|col)|pxl_.*|in_tissue|condition|age|sex)$",
    re.I,
)
_ABOUT_GENES = re.compile(
    r"^(chr|chrom|chromosome|start|end|strand|length|gene_?(ids?|names?|symbols?|types?|biotype|length)|symbol|description|"
    r"entrez.*|ensembl.*|biotype|feature_types?|genome|means?|dispersions?.*|highly_variable|n_cells.*)$",
    re.I,
)

_WHAT = "a table of counts"

logger = logging.getLogger("celbo")


class Columns(NamedTuple):
    """Which columns of a table are what, by place."""

    counts: list[int]
    others: list[int]


class Parsed(NamedTuple):
    """What the rows of a table hold."""

    names: list[str]
    others: pd.DataFrame
    counts: sparse.csr_matrix


def open_table(path: Path, reading: Reading) -> Opened:
    """Read a table of text.

    Parameters
    ----------
    path
        Separated by commas, tabs, semicolons or spaces; may be packed.
    reading
        ``orientation``; None: by the names of rows and columns.

    Raises
    ------
    ValueError
        When it cannot be told whether rows are genes or cells.
    DamagedDataError
        When it is no table, or is damaged.
    """
    wanted_layers(path, [], reading.layers)
    with naming_damage(path, what=_WHAT):
        layout = layout_of(path)
    _refuse_fragments(path, layout)
    if _is_long(layout):
        return _open_long(path, layout, reading.orientation)
    columns = _columns_of(path, layout)
    with naming_damage(path, what=_WHAT):
        parsed = _parsed(path, layout, columns)
    return _oriented(path, layout, columns, parsed, reading.orientation)


def _column_names(layout: Layout) -> list[str]:
    """A name for each column, that of the names included."""
    first = layout.n_columns - len(layout.header) if layout.header is not None else 0
    names = list(layout.header) if layout.header is not None else [f"column_{i}" for i in range(layout.n_columns)]
    return [*([layout.corner or "names"] * first), *names]


def _columns_of(path: Path, layout: Layout) -> Columns:
    names = _column_names(layout)
    candidates = range(1 if layout.has_names else 0, layout.n_columns)
    is_text = {i: not all(is_number(fields[i]) for fields in layout.sample if i < len(fields)) for i in candidates}
    others = [i for i in candidates if is_text[i] or _ABOUT_CELLS.match(names[i]) or _ABOUT_GENES.match(names[i])]
    counts = [i for i in candidates if i not in set(others)]
    if not counts:
        raise DamagedDataError(
            f"{path} is a table without a column of numbers: its columns are {listed(names)}. It holds no counts; "
            "name the "
            f"file that does. {READ_HERE}."
        )
    return Columns(counts, others)


def _parsed(path: Path, layout: Layout, columns: Columns) -> Parsed:
    names: list[str] = []
    others: list[pd.DataFrame] = []
    blocks: list[sparse.csr_matrix] = []
    for piece in _pieces(path, layout):
        values = _numbers(path, layout, piece, columns, len(names))
        blocks.append(sparse.csr_matrix(values))
        start = len(names)
        names += list(piece[0]) if layout.has_names else [str(start + i) for i in range(len(piece))]
        others.append(piece[columns.others])
    counts = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))
    if not len(counts.data) or np.abs(counts.data).max() < _EXACT:
        counts = counts.astype(np.float32)
    table = pd.concat(others, ignore_index=True)
    all_names = _column_names(layout)
    table.columns = pd.Index([all_names[i] for i in columns.others])
    return Parsed(names, table, counts)


def _pieces(path: Path, layout: Layout) -> Iterator[pd.DataFrame]:
    """Rows of the table, some at a time, columns by place."""
    as_text = {0: str.strip} if layout.has_names else None  # a converter, so that a gene may be called NA
    with opened_lines(path, layout.encoding) as file:
        for _ in range(layout.skipped):
            file.readline()
        yield from pd.read_csv(
            file,
            sep=r"\s+" if layout.separator == " " else layout.separator,
            header=None,
            names=range(layout.n_fields),
            index_col=False,
            converters=as_text,
            decimal=layout.decimal,
            thousands=layout.thousands,
            chunksize=max(1, _ENTRIES // layout.n_columns),
            low_memory=False,
            skip_blank_lines=True,
        )


def _numbers(path: Path, layout: Layout, piece: pd.DataFrame, columns: Columns, start: int) -> np.ndarray:
    """Counts of some rows, dense."""
    counts = piece[columns.counts]
    bad = [i for i in columns.counts if piece[i].dtype.kind not in "biuf"]
    if bad:
        column = piece[bad[0]]
        is_bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
        row = int(np.argmax(is_bad.to_numpy()))
        raise DamagedDataError(
            f"{path}: row {start + row + 1} ({_name(layout, piece, row)!r}) has {str(column.iloc[row])!r} in the "
            "column "
            f"{_column_names(layout)[bad[0]]!r}, where the rows before have numbers. Take that row, or that column, "
            "out."
        )
    values = counts.to_numpy(dtype=np.float64)
    last_is_missing = np.isnan(values[-1])
    if last_is_missing[-1] and values.shape[1] > 1 and not np.isnan(values[:-1]).any():
        raise DamagedDataError(
            f"{path}: row {start + len(values)} ({_name(layout, piece, len(values) - 1)!r}) ends after "
            f"{int(np.argmax(last_is_missing))} of {values.shape[1]} values: the file was cut short. Copy it again."
        )
    return values


def _name(layout: Layout, piece: pd.DataFrame, row: int) -> str:
    return str(piece[0].iloc[row]) if layout.has_names else "no name"


def _without_odd_ones(columns: Columns, parsed: Parsed, names: list[str]) -> tuple[Columns, Parsed]:
    """Columns of fractions among many of whole numbers are no genes (a share of mitochondria): others take them."""
    by_column = parsed.counts.tocsc()
    is_odd_entry = by_column.data != np.floor(by_column.data)
    n_odd = np.add.reduceat(np.append(is_odd_entry, False), by_column.indptr[:-1]) * (np.diff(by_column.indptr) > 0)
    is_odd = n_odd > 0
    if not 0 < is_odd.sum() <= _FEW * len(is_odd):
        return columns, parsed
    odd, rest = np.flatnonzero(is_odd), np.flatnonzero(~is_odd)
    moved = pd.DataFrame(by_column[:, odd].toarray(), columns=[names[columns.counts[i]] for i in odd])
    kept = Columns([columns.counts[i] for i in rest], columns.others)
    counts = sparse.csr_matrix(by_column[:, rest])
    return kept, Parsed(parsed.names, pd.concat([parsed.others, moved], axis=1), counts)


def _oriented(path: Path, layout: Layout, columns: Columns, parsed: Parsed, orientation: str | None) -> Opened:
    """Cells by genes, whatever the table is."""
    all_names = _column_names(layout)
    columns, parsed = _without_odd_ones(columns, parsed, all_names)
    if layout.header is None:
        across = [str(i) for i in range(len(columns.counts))]
    else:
        across = [all_names[i] for i in columns.counts]
    by_cells = _are_rows_cells(path, layout.corner, parsed.names, across, orientation)
    counts = parsed.counts if by_cells else sparse.csr_matrix(parsed.counts.T)
    cells, genes = (parsed.names, across) if by_cells else (across, parsed.names)
    obs, var = pd.DataFrame(index=unique(path, "cell", cells)), pd.DataFrame(index=unique(path, "gene", genes))
    side, called = (obs, "obs") if by_cells else (var, "var")
    for name in parsed.others.columns.unique():
        column = parsed.others[name]
        side[str(name)] = (column if isinstance(column, pd.Series) else column.iloc[:, 0]).to_numpy()
    if len(parsed.others.columns):
        logger.info(
            "%s: %d columns are not counts and stand in %s: %s.",
            path,
            len(parsed.others.columns),
            called,
            listed(parsed.others.columns, 10),
        )
    return Opened(path, obs, var, {None: MemoryRows(counts)})


def _are_rows_cells(
    path: Path, corner: str, rows: Sequence[str], columns: Sequence[str], orientation: str | None
) -> bool:
    if orientation is not None:
        return orientation == "cells-by-genes"
    found = are_rows_cells(corner, rows, columns)
    if found is None:
        raise ValueError(
            f"{path} has {len(rows)} rows ({listed(rows)}) and {len(columns)} columns ({listed(columns)}), and "
            "neither tells "
            "whether it is a gene or a cell. Say it: orientation='genes-by-cells' (a row a gene) or "
            "orientation='cells-by-genes' (a row a cell)."
        )
    what = ("cells", "genes") if found.rows_are_cells else ("genes", "cells")
    other = ORIENTATIONS[0] if found.rows_are_cells else ORIENTATIONS[1]
    logger.info(
        "%s: its %d rows are %s, its %d columns %s, %s. If it is the other way round: orientation='%s'.",
        path,
        len(rows),
        what[0],
        len(columns),
        what[1],
        found.reason,
        other,
    )
    return found.rows_are_cells


def _refuse_fragments(path: Path, layout: Layout) -> None:
    rows = layout.sample
    is_place = all(
        len(fields) >= 3 and fields[1].isdecimal() and fields[2].isdecimal() and not any(map(is_number, fields[3:4]))
        for fields in rows
    )
    if is_place and re.match(r"(chr|GRC|GL|KI|[0-9XYM]+$)", rows[0][0]):
        raise ValueError(
            f"{path} is a list of places in a genome (fragments of ATAC, or .bed), not a matrix: count its fragments "
            "in "
            f"peaks first (Cell Ranger, SnapATAC2, Signac), and name the matrix. {READ_HERE}."
        )


def _is_long(layout: Layout) -> bool:
    """Whether each row is a gene, a cell and a count."""
    return layout.n_columns == 3 and all(
        len(fields) == 3 and is_number(fields[2]) and fields[2] and not any(map(is_number, fields[:2]))
        for fields in layout.sample
    )


def _open_long(path: Path, layout: Layout, orientation: str | None) -> Opened:
    """Read a table of three columns: gene, cell and count."""
    with naming_damage(path, what=_WHAT):
        table = pd.concat([*_pieces(path, layout)], ignore_index=True)
    codes = [pd.factorize(table[i].astype(str)) for i in (0, 1)]
    first, second = (list(map(str, names)) for _, names in codes)
    header = _column_names(layout)
    counts = sparse.csr_matrix(
        (table[2].to_numpy(np.float64), (codes[0][0], codes[1][0])), shape=(len(first), len(second))
    )
    logger.info("%s has a row for each count: %s, %s and %s.", path, *map(repr, header))
    by_cells = _are_rows_cells(path, header[0] if layout.header is not None else "", first, second, orientation)
    counts = sparse.csr_matrix(counts if by_cells else counts.T).astype(np.float32)
    cells, genes = (first, second) if by_cells else (second, first)
    return Opened(
        path,
        pd.DataFrame(index=unique(path, "cell", cells)),
        pd.DataFrame(index=unique(path, "gene", genes)),
        {None: MemoryRows(counts)},
    )
