"""From AnnData to a registry: fields, the manager, the count check, simulated data, reading files. No torch here."""

from anndata.io import read_csv, read_h5ad, read_loom, read_text

from ..core.planned import planned_names
from .attrdict import attrdict
from .count_report import CountReport, Finding, TotalsSummary
from .counts import check_counts
from .genes import GeneMatch, align_genes, top_variable_genes
from .manager import AnnDataManager, AnnDataManagerValidationCheck
from .opening import open
from .read import read
from .registry import data_registry_of, state_registry_of, summary_stats_of
from .simulate import simulate_counts
from .simulate_spots import simulate_spots
from .stored_matrix import StoredMatrix
from .synthetic import synthetic_iid

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
    "read",
    "read_csv",
    "read_h5ad",
    "read_loom",
    "read_text",
    "simulate_counts",
    "simulate_spots",
    "state_registry_of",
    "summary_stats_of",
    "synthetic_iid",
    "top_variable_genes",
]

__getattr__ = planned_names(__name__)
