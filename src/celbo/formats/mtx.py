"""Matrix Market with its neighbours: the folders of 10x, STARsolo, Parse, kallisto and alevin-fry, and files with a
prefix.

Which axis has the cells is seen by the number of names that lie beside the matrix.

Dims: n cells, h features as stored.
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from ..store.damage import DamagedDataError, naming_damage
from ..store.matrices.rows import MemoryRows, Rows, SomeColumns
from .naming import chosen_features, numbered, unique
from .opened import Opened, Reading, wanted_layers
from .signatures import begins_with, opened_text

__all__ = ["BEGINS", "Neighbours", "is_mtx_name", "matrices_in", "neighbours_of", "open_mtx", "types_beside"]

BEGINS = b"%%MatrixMarket"
"""First bytes of such a file."""

_SHORTEST = len("1 1\n")
"""Bytes that an entry takes at least."""

_PACKED_AT_MOST = 1100
"""Times that gzip can pack something."""

_MOST_NAMELESS = 10**8
"""Rows or columns that may be numbered where there are no names."""

_ENDING = r"\.(?:tsv|csv|txt|bed)(?:\.gz)?$"
_CELLS = re.compile(
    rf"^(.*?)(?:barcodes?|cell_?metadata|cells?|cell_?names|colnames|obs|quants_mat_rows){_ENDING}", re.I
)
_GENES = re.compile(
    rf"^(.*?)(?:features?|all_genes|genes?|gene_?names|rownames|var|peaks|quants_mat_cols){_ENDING}", re.I
)
_MTX = re.compile(r"\.mtx(?:\.gz|\.bz2)?$", re.I)

_VELOCYTO = ("spliced", "unspliced", "ambiguous")
"""Matrices of STARsolo's Velocyto: layers of one."""

logger = logging.getLogger("celbo")


class Neighbours(NamedTuple):
    """Files with the names of cells and of features; None where there is none."""

    cells: Path | None
    genes: Path | None


class Header(NamedTuple):
    """The first lines of a matrix."""

    layout: str
    values: str
    comments: list[str]
    shape: tuple[int, int]
    n_entries: int


def is_mtx_name(name: str) -> bool:
    """Whether a name ends as a matrix's does."""
    return _MTX.search(name) is not None


def matrices_in(folder: Path) -> list[Path]:
    """The matrices that lie in a folder, each the counts of its cells; those of one run's layers are one."""
    found = [path for path in _files_in(folder) if is_mtx_name(path.name)]
    main = [path for path in found if _MTX.sub("", path.name).lower() in ("matrix", "dge", "count_matrix", "gene_mat")]
    if main:
        return main[:1]
    spliced = [path for path in found if _MTX.sub("", path.name).lower() == _VELOCYTO[0]]
    return spliced[:1] or found


def neighbours_of(matrix: Path) -> Neighbours:
    """The files with names that belong to a matrix: those that share the longest beginning of its name."""
    beside = _files_in(matrix.parent)
    return Neighbours(_nearest(matrix, beside, _CELLS), _nearest(matrix, beside, _GENES))


def _files_in(folder: Path) -> list[Path]:
    """Files of a folder, without hidden ones: macOS puts a ``._barcodes.tsv`` beside each file of an archive."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _nearest(matrix: Path, beside: list[Path], pattern: re.Pattern[str]) -> Path | None:
    found = [(match[1], path) for path in beside if (match := pattern.match(path.name))]
    mine = [(len(prefix), path) for prefix, path in found if matrix.name.startswith(prefix.rstrip("._-"))]
    longest = max((length for length, _ in mine), default=0)
    nearest = [path for length, path in mine if length == longest]
    return min(nearest, key=lambda path: (_rank(path), path.name), default=None)


def _rank(path: Path) -> int:
    """The usual names of such a file first."""
    first = ("barcode", "feature", "all_genes", "cell_metadata")
    return 0 if any(word in path.name.lower() for word in first) else 1


def open_mtx(path: Path, reading: Reading) -> Opened:
    """Read a matrix, and the names that lie beside it.

    Parameters
    ----------
    path
        The matrix, or its folder.
    reading
        ``modality``: a type of feature; ``orientation``, where the names do not tell; ``layers`` of Velocyto.

    Raises
    ------
    FileNotFoundError
        For a folder without a matrix.
    ValueError
        When it cannot be told which axis has the cells.
    DamagedDataError
        When the matrix is damaged, or no list of names fits it.
    """
    matrix = path if path.is_file() else _matrix_of(path)
    beside = neighbours_of(matrix)
    header, counts = _read(matrix)
    cells, genes = (_names(file) for file in beside)
    by_cells = _has_cells_in_rows(matrix, header, cells, genes, reading.orientation)
    rows: Rows = MemoryRows(sparse.csr_matrix(counts if by_cells else counts.T))
    obs = _cell_table(matrix, beside, cells, rows.shape[0])
    var, types = _gene_table(matrix, beside, genes, rows.shape[1])
    layers = _layers(matrix, by_cells, reading)
    chosen = chosen_features(path, types, reading.modality, not reading.is_part)
    if chosen is not None:
        rows, var = SomeColumns(rows, chosen), var.iloc[chosen]
    var.index = unique(path, "gene", var.index, "var['gene_ids'] tells them apart" if "gene_ids" in var else "")
    return Opened(path, obs, var, {None: rows, **layers}, has_modalities=len(types) > 0)


def types_beside(path: Path) -> list[str]:
    """Types of the features in the list of names beside a matrix, in the order in which they come."""
    matrix = path if path.is_file() else _matrix_of(path)
    beside = neighbours_of(matrix)
    genes = _names(beside.genes)
    types = [] if genes is None else _gene_table(matrix, beside, genes, len(genes))[1].tolist()
    return list(dict.fromkeys(map(str, types)))


def _matrix_of(folder: Path) -> Path:
    found = matrices_in(folder)
    if len(found) != 1:
        raise FileNotFoundError(f"The folder {folder} holds {len(found)} .mtx files, wanted one.")
    return found[0]


def _read(path: Path) -> tuple[Header, sparse.coo_matrix]:
    if not begins_with(path):
        raise DamagedDataError(f"{path} is empty: copy or download it again, as matrix.mtx or matrix.mtx.gz.")
    with naming_damage(path, what="a matrix (.mtx)"):
        header = _header(path)
        _require_honest(path, header)
        with opened_text(path) as file:
            counts = scipy.io.mmread(file)
    if header.values == "complex":
        raise DamagedDataError(f"{path} holds complex numbers, and counts are whole ones: it is no matrix of counts.")
    return header, sparse.coo_matrix(counts)


def _header(path: Path) -> Header:
    with opened_text(path) as file:
        first = file.readline(1000).decode("utf-8", "replace").lower().split()
        comments: list[str] = []
        line = file.readline(10**6).decode("utf-8", "replace")
        while line.startswith("%") or (line and not line.strip()):
            comments.append(line)
            line = file.readline(10**6).decode("utf-8", "replace")
    sizes = [int(size) for size in line.split()]
    if len(first) < 4 or len(sizes) not in (2, 3):
        raise ValueError("its first lines do not say how large the matrix is")
    n_entries = sizes[2] if len(sizes) == 3 else sizes[0] * sizes[1]
    return Header(first[2], first[3], comments, (sizes[0], sizes[1]), n_entries)


def _require_honest(path: Path, header: Header) -> None:
    """Refuse a matrix that announces more than the file can hold, before memory is taken for it."""
    size = path.stat().st_size
    is_packed = not begins_with(path, len(BEGINS)).startswith(BEGINS[:2])
    most = size * (_PACKED_AT_MOST if is_packed else 1) // (_SHORTEST if header.layout == "coordinate" else 2)
    if not 0 <= header.n_entries <= most or max(header.shape) >= 2**31 or min(header.shape) < 0:
        raise ValueError(
            f"it announces {header.n_entries} entries of {header.shape[0]} x {header.shape[1]}, more than {size} "
            "bytes hold"
        )


def _layers(matrix: Path, by_cells: bool, reading: Reading) -> dict[str | None, Rows]:
    """The parts of a Velocyto matrix that lie beside the spliced one."""
    name = _MTX.sub("", matrix.name).lower()
    if name != _VELOCYTO[0]:
        wanted_layers(matrix, [], reading.layers)
        return {}
    files = {part: matrix.with_name(matrix.name.replace(matrix.name[: len(name)], part)) for part in _VELOCYTO}
    there = {part: file for part, file in files.items() if file.is_file()}
    found: dict[str | None, Rows] = {}
    for part in wanted_layers(matrix, sorted(there), reading.layers):
        counts = _read(there[part])[1]
        found[part] = MemoryRows(sparse.csr_matrix(counts if by_cells else counts.T))
    return found


def _names(path: Path | None) -> pd.DataFrame | None:
    """Lines of a list of names as text, no header."""
    if path is None:
        return None
    with naming_damage(path, what="a list of names"), opened_text(path) as file:
        first = file.readline(10**6).decode("utf-8-sig", "replace")
    if not first.strip():
        return pd.DataFrame()
    separator = max("\t,; ", key=first.count) if re.search(r"[\t,;]", first) else "\t"
    with naming_damage(path, what="a list of names"), opened_text(path) as file:
        table = pd.read_csv(
            file, sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig", comment=None
        )
    return table


def _fit(table: pd.DataFrame | None, size: int) -> int:
    """How well a list of names fits an axis: as many (2), one more for a header (1), or not (0)."""
    return 2 if table is None or len(table) == size else int(len(table) == size + 1)


def _has_cells_in_rows(
    path: Path, header: Header, cells: pd.DataFrame | None, genes: pd.DataFrame | None, orientation: str | None
) -> bool:
    """Whether the rows of the matrix are cells."""
    first, second = header.shape
    fits = {
        by_cells: min(_fit(cells, n), _fit(genes, h))
        for by_cells, n, h in ((False, second, first), (True, first, second))
    }
    is_known = cells is not None or genes is not None
    if is_known and fits[True] != fits[False]:
        return fits[True] > fits[False]
    if is_known and not fits[True]:
        raise DamagedDataError(
            f"{path} is {first} x {second}, and beside it there are {_lengths(cells, genes)}. Name the files that "
            "belong "
            "together, and copy those that were cut short again."
        )
    if orientation is not None:
        return orientation == "cells-by-genes"
    said = " ".join(header.comments).lower().replace(" ", "")
    if "rows=cells" in said or "rows=genes" in said:
        return "rows=cells" in said
    if is_known:  # as many cells as genes: nearly everyone has genes in rows
        is_parse = _MTX.sub("", path.name).lower() in ("dge", "count_matrix", "gene_mat", "quants_mat", "cells_x_genes")
        logger.info("%s has as many rows as columns: the %s are cells.", path, "rows" if is_parse else "columns")
        return is_parse
    raise ValueError(
        f"{path} is {first} x {second}, and beside it there are no names of cells and genes (barcodes.tsv, "
        "features.tsv), "
        "so it cannot be told which are the cells. Put the names beside it, or say it: orientation='genes-by-cells' "
        "(rows "
        "are genes) or orientation='cells-by-genes'."
    )


def _lengths(cells: pd.DataFrame | None, genes: pd.DataFrame | None) -> str:
    parts = [(cells, "names of cells"), (genes, "names of genes")]
    return " and ".join(f"{len(table)} {what}" for table, what in parts if table is not None)


def _with_header(table: pd.DataFrame, size: int) -> tuple[pd.DataFrame, list[str] | None]:
    """Names without the header, and the header where there is one."""
    if len(table) != size + 1:
        return table, None
    return table.iloc[1:].reset_index(drop=True), [str(name) for name in table.iloc[0]]


def _without_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Without the running numbers that R and pandas put into a first column."""
    if table.shape[1] < 2:
        return table
    first = table.iloc[:, 0].tolist()
    is_running = first in ([str(i) for i in range(len(first))], [str(i + 1) for i in range(len(first))])
    return table.iloc[:, 1:] if is_running else table


def _cell_table(path: Path, beside: Neighbours, cells: pd.DataFrame | None, n: int) -> pd.DataFrame:
    if cells is None or beside.cells is None:
        _require_few(path, n)
        return pd.DataFrame(index=numbered(path, "cell", n))
    cells, header = _with_header(cells, n)
    if header is not None:
        cells.columns = pd.Index(header)
    cells = _without_numbers(cells)
    names = unique(beside.cells, "cell", cells.iloc[:, 0].to_numpy())
    more = cells.iloc[:, 1:] if header is not None else cells.iloc[:, :0]
    return _typed(more).set_axis(names)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of text as numbers where all are."""
    numbers = {name: pd.to_numeric(table[name].replace("", np.nan), errors="coerce") for name in table.columns}
    is_number = {name: bool((values.notna() | table[name].isin(["", "NA"])).all()) for name, values in numbers.items()}
    columns = {str(name): numbers[name] if is_number[name] else table[name] for name in table.columns}
    return pd.DataFrame(columns, index=table.index)


def _gene_table(path: Path, beside: Neighbours, genes: pd.DataFrame | None, h: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of the features, not yet unique, and the type of each."""
    nothing = np.array([], dtype=str)
    if genes is None or beside.genes is None:
        _require_few(path, h)
        return pd.DataFrame(index=numbered(path, "gene", h)), nothing
    genes, header = _with_header(genes, h)
    genes = _without_numbers(genes if header is None else genes.set_axis(header, axis=1))
    if ".bed" in beside.genes.name.lower() and genes.shape[1] >= 3:
        return pd.DataFrame(index=pd.Index([f"{c}:{s}-{e}" for c, s, e in genes.iloc[:, :3].to_numpy()])), nothing
    if genes.shape[1] == 1:
        return pd.DataFrame(index=pd.Index(genes.iloc[:, 0])), nothing
    ids, names = genes.iloc[:, 0].to_numpy(), genes.iloc[:, 1].to_numpy()
    var = pd.DataFrame({"gene_ids": ids}, index=pd.Index(np.where(names == "", ids, names)))
    if header is not None:
        return var.assign(
            **{str(name): genes.iloc[:, i].to_numpy() for i, name in enumerate(genes.columns) if i > 1}
        ), (nothing)
    if genes.shape[1] >= 3:
        var["feature_types"] = genes.iloc[:, 2].to_numpy()
    if genes.shape[1] >= 6:
        var["chrom"], var["start"], var["end"] = (genes.iloc[:, i].to_numpy() for i in (3, 4, 5))
    return var, var["feature_types"].to_numpy() if "feature_types" in var else nothing


def _require_few(path: Path, n: int) -> None:
    if n > _MOST_NAMELESS:
        raise DamagedDataError(f"{path} announces an axis of {n} without names: it is damaged.")
