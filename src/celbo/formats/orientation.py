"""Whether the rows of a table are genes or cells, by what rows and columns are called.

Names of genes are recognised by their identifiers, by a few genes that every data set of man or mouse has, and by words
of a header; names of cells by barcodes and by words. Nothing is guessed from the shape alone: panels have fewer genes
than cells, plates more.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Evidence", "are_rows_cells"]

_GENE_WORDS = re.compile(r"^(gene|genes|symbol|feature|hgnc|ensembl|ensg|transcript|geneid|peak|probe|antibod)", re.I)
_CELL_WORDS = re.compile(r"^(cell|barcode|bc_?wells?|sample|obs|well|spot|nucle|cb$)", re.I)

_IDENTIFIERS = re.compile(
    r"^(ENS[A-Z]{0,6}[GTP]\d{6,}|FBgn\d+|WBGene\d+|AT[1-5CM]G\d{5}|Y[A-P][LR]\d{3}[WC]|MGI:\d+|"
    r"hsa-mir|MT-[A-Z0-9]+$|RP[LS]\d+[ALXY]?\d*$|LINC\d{5}|RP\d+-\d+|LOC\d{5,}|ERCC-\d{5}|\w+Rik$|chr[\w.]+[:_-]\d+[-_]\d+)",
    re.I,
)
_BARCODES = re.compile(r"(?<![A-Za-z])[ACGTN]{8,}(?![A-Za-z])")
_NUMBERED_GENE = re.compile(r"^(gene|g|ensg|feature|symbol)[ _.-]?\d+$", re.I)
_NUMBERED_CELL = re.compile(r"^(cell|c|sample|barcode|spot|well|nucleus|donor|plate|s)[ _.-]?\d+", re.I)
_WELLS = re.compile(r"(^|[_.-])[A-P](0?[1-9]|1\d|2[0-4])$")
_RUNS = re.compile(r"^([SED]RR|GSM)\d{4,}")

_NAMES = """
ACTB GAPDH B2M MALAT1 EEF1A1 TPT1 FTL FTH1 TMSB4X TMSB10 CD3D CD3E CD4 CD8A CD8B MS4A1 CD19 CD79A NKG7 GNLY
LYZ CD14 FCGR3A S100A4 S100A8 S100A9 PPBP PF4 CST3 HLA-A HLA-B HLA-DRA CD74 EPCAM KRT8 KRT18 KRT19 COL1A1
COL1A2 COL3A1 VIM PTPRC PECAM1 VWF MKI67 TOP2A PCNA HBB HBA1 HBA2 ALB APOE APOA1 GFAP SLC17A7 GAD1 GAD2 SNAP25
MBP PLP1 MOG AQP4 XIST TP53 MYC SOX2 SOX9 POU5F1 NANOG GATA1 GATA3 FOXP3 CD34 KIT CD44 ITGAM CD68 CD163 IL7R
CCR7 SELL JUN FOS STAT1 RBFOX3 A1BG A2M TSPAN6 TNMD DPM1 SCYL3 FGR CFH NFYA AXIN1 NEUROD6 RELN
"""
_EVERYWHERE = frozenset(_NAMES.split())
"""Genes that nearly all data of man or mouse have."""

_LOOKED_AT = 20_000
"""Names of an axis that are looked at."""

_MANY = 0.5
"""Share of names that must be of a kind."""


class Evidence(NamedTuple):
    """What was found, and why: ``reason`` ends a sentence."""

    rows_are_cells: bool
    reason: str


def are_rows_cells(corner: str, rows: Sequence[str], columns: Sequence[str]) -> Evidence | None:
    """Whether the rows are cells; None where the names do not tell.

    Parameters
    ----------
    corner
        What the column of names is called; may be empty.
    rows, columns
        Names of the two axes, or the first of them.
    """
    genes = [_share_of_genes(rows), _share_of_genes(columns)]
    cells = [_share_of_cells(rows), _share_of_cells(columns)]
    for_cells_in_rows = max(genes[1], cells[0])
    for_genes_in_rows = max(genes[0], cells[1])
    if for_cells_in_rows >= _MANY > for_genes_in_rows:
        return Evidence(True, "by the names of the " + ("columns" if genes[1] >= cells[0] else "rows"))
    if for_genes_in_rows >= _MANY > for_cells_in_rows:
        return Evidence(False, "by the names of the " + ("rows" if genes[0] >= cells[1] else "columns"))
    is_gene_word, is_cell_word = (words.match(corner.strip()) is not None for words in (_GENE_WORDS, _CELL_WORDS))
    if is_gene_word != is_cell_word and for_cells_in_rows < _MANY:
        return Evidence(is_cell_word, f"by the word {corner.strip()!r} in the first line")
    return None


def _share_of_genes(names: Sequence[str]) -> float:
    """How many look like genes; two genes that are in all data are enough."""
    some = names[:_LOOKED_AT]
    if sum(name.upper() in _EVERYWHERE for name in some) >= 2:
        return 1.0
    return _share(some, lambda name: bool(_IDENTIFIERS.match(name) or _NUMBERED_GENE.match(name)))


def _share_of_cells(names: Sequence[str]) -> float:
    some = names[:_LOOKED_AT]
    patterns = (_BARCODES.search, _NUMBERED_CELL.match, _WELLS.search, _RUNS.match)
    return max(_share(some, lambda name, look=look: look(name) is not None) for look in patterns)


def _share(names: Sequence[str], looks_so: object) -> float:
    return float(np.mean([looks_so(name) for name in names])) if len(names) else 0.0  # type: ignore[operator]
