"""What a file is by its first bytes, and what to do with one that celbo does not read.

Nothing here looks at a file's ending, save for the words of an advice.
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["READ_HERE", "Foreign", "begins_with", "foreign", "opened_text", "unpacked"]

READ_HERE = (
    "celbo reads .h5ad, .zarr (zipped too), .h5mu, 10x .h5, .loom, .mtx (folders of 10x, STARsolo and Parse) and "
    "tables of text (.csv, .tsv)"
)

_HEAD = 2**16
"""Bytes that are looked at."""

_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class Foreign(NamedTuple):
    """Something that celbo does not read: what it is, and what to do; ``{name}`` and ``{stem}`` are the file's."""

    what: str
    advice: str


_R = Foreign(
    "an R data file",
    'write an .h5ad from R: anndataR::write_h5ad({object}, "{stem}.h5ad"), for a Seurat or SingleCellExperiment '
    "object; "
    'or the counts alone as a folder of 10x: DropletUtils::write10xCounts("{stem}_mtx", counts), and name that folder',
)
_READS = Foreign(
    "sequencing reads, not counts",
    "count them first, with Cell Ranger, STARsolo, alevin-fry or kallisto | bustools, and name the folder of counts "
    "(filtered_feature_bc_matrix, Gene/filtered) that comes out",
)
_ARCHIVE = Foreign(
    "an archive of files", "unpack it (tar -xf {name}) and name the file, or the folder, with the counts"
)
_NOT_DATA = Foreign(
    "a web page or other document, not data", "the download went wrong: take the link to the raw file, and try again"
)
_EXCEL = Foreign(
    "an Excel workbook",
    'save its sheet as .csv: pandas.read_excel("{name}", index_col=0).to_csv("{stem}.csv"), or Save As in Excel; look '
    "for gene names that became dates (1-Mar, 2-Sep)",
)
_COLUMNS = Foreign(
    "a table of Apache Arrow", 'write it as text: pandas.read_{reader}("{name}").to_csv("{stem}.csv", index=False)'
)
_NUMPY = Foreign(
    "arrays of numpy, without names of cells and genes",
    'give them names: anndata.AnnData(x, obs=..., var=...).write_h5ad("{stem}.h5ad")',
)

_BEGINNINGS: dict[bytes, Foreign] = {
    b"RDX": _R,
    b"RDA": _R,
    b"X\n\x00\x00\x00": _R,
    b"A\n": _R,
    b"PAR1": _COLUMNS,
    b"ARROW1": _COLUMNS,
    b"FEA1": _COLUMNS,
    b"\xd0\xcf\x11\xe0": _EXCEL,
    b"\x93NUMPY": _NUMPY,
    b"BAM\x01": _READS,
    b"CRAM": _READS,
    b"BUS\x00": _READS,
    b"MATLAB 5.0": Foreign(
        "a MATLAB file",
        'write it as .h5ad: anndata.AnnData(scipy.io.loadmat("{name}")["counts"]).write_h5ad("{stem}.h5ad"), by the '
        "name that the counts have there",
    ),
    b"\x80\x02": Foreign("a pickle", "pickles can run code, so celbo opens none: write its AnnData with write_h5ad"),
    b"%PDF": _NOT_DATA,
    b"<!DOCTYPE": _NOT_DATA,
    b"<!doctype": _NOT_DATA,
    b"<html": _NOT_DATA,
    b"<HTML": _NOT_DATA,
    b"<?xml": _NOT_DATA,
    b"\x89PNG": _NOT_DATA,
    b"version https://git-lfs": Foreign("a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    b"##fileformat=VCF": Foreign("variants (VCF), not counts", "name the file with the counts"),
    b"\x28\xb5\x2f\xfd": Foreign("packed with zstd", "unpack it: zstd -d {name}"),
    b"Rar!": _ARCHIVE,
    b"7z\xbc\xaf": _ARCHIVE,
}
for _protocol in (b"\x80\x03", b"\x80\x04", b"\x80\x05"):
    _BEGINNINGS[_protocol] = _BEGINNINGS[b"\x80\x02"]


def begins_with(path: Path, n: int = _HEAD) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(n)


def unpacked(path: Path) -> bytes | None:
    """The first bytes of what is packed by gzip, bzip2 or xz; None for a file that is not packed.

    Raises
    ------
    OSError, EOFError
        When it cannot be unpacked.
    """
    head = begins_with(path, 8)
    if not any(head.startswith(magic) for magic in _PACKED):
        return None
    with opened_text(path) as file:
        return file.read(_HEAD)


@contextmanager
def opened_text(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is packed."""
    head = begins_with(path, 8)
    opening = next((opening for magic, opening in _PACKED.items() if head.startswith(magic)), None)
    with path.open("rb") if opening is None else opening(path, "rb") as file:
        yield file


def foreign(path: Path, head: bytes) -> Foreign | None:
    """What a file that begins with these bytes is, where celbo does not read it; the advice has the file's name."""
    if not head:
        return Foreign("empty", "copy or download it again")
    found = next((row for magic, row in _BEGINNINGS.items() if head.startswith(magic)), None)
    if found is None and head[257:262] == b"ustar":
        found = _ARCHIVE
    if found is None and _is_fastq(head):
        found = _READS
    return None if found is None else found._replace(advice=_named(found.advice, path))


def _is_fastq(head: bytes) -> bool:
    lines = head.split(b"\n", 3)
    return len(lines) == 4 and lines[0].startswith(b"@") and lines[2].startswith(b"+") and b"\t" not in lines[1]


def _named(advice: str, path: Path) -> str:
    stem = path.name.split(".")[0] or path.name
    is_image = path.suffix.lower() in (".rda", ".rdata")
    words = {
        "{name}": path.name,
        "{stem}": stem,
        "{object}": f'get(load("{path.name}"))' if is_image else f'readRDS("{path.name}")',
        "{reader}": "parquet" if path.suffix == ".parquet" else "feather",
    }
    for word, value in words.items():
        advice = advice.replace(word, value)
    return advice
