"""From AnnData to a registry: fields, the manager, the count check, simulated data, reading files. No torch here."""

from anndata.io import read_csv, read_h5ad, read_loom, read_text

from ..core.planned import planned_names, public_names
from ..store.matrices.matrix import StoredMatrix
from .attrdict import attrdict
from .count_report import CountReport, Finding, TotalsSummary
from .counts import check_counts
from .gene_selection import poisson_gene_selection
from .genes import GeneMatch, align_genes, top_variable_genes
from .manager import AnnDataManager
from .opening import open
from .read import read
from .registry import data_registry_of, state_registry_of, summary_stats_of
from .simulated.counts import simulate_counts
from .simulated.spots import simulate_spots
from .simulated.synthetic import synthetic_iid
from .tenx import (
    organize_cite_seq_10x,
    organize_multiome_anndatas,
    read_10x_atac,
    read_10x_multiome,
    reads_to_fragments,
)
from .validation_check import AnnDataManagerValidationCheck

__all__ = [
    "AnnDataManager",
    "AnnDataManagerValidationCheck",
    "CountReport",
    "Finding",
    "GeneMatch",
    "StoredMatrix",
    "TotalsSummary",
    "align_genes",
    "attrdict",
    "check_counts",
    "data_registry_of",
    "open",
    "organize_cite_seq_10x",
    "organize_multiome_anndatas",
    "poisson_gene_selection",
    "read",
    "read_10x_atac",
    "read_10x_multiome",
    "read_csv",
    "read_h5ad",
    "read_loom",
    "read_text",
    "reads_to_fragments",
    "simulate_counts",
    "simulate_spots",
    "state_registry_of",
    "summary_stats_of",
    "synthetic_iid",
    "top_variable_genes",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
