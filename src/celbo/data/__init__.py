"""From AnnData to a registry: fields, the manager, the count check, simulated data, reading files. No torch here."""

from typing import TYPE_CHECKING

from anndata.io import read_csv, read_h5ad, read_loom, read_text

from ..core.planned import planned_names, public_names
from ..store.matrices.matrix import StoredMatrix
from .count_report import CountReport, Finding, TotalsSummary
from .counts import check_counts
from .genes import GeneMatch, align_genes, top_variable_genes
from .manager import AnnDataManager
from .registry import attrdict, data_registry_of, state_registry_of, summary_stats_of
from .validation_check import AnnDataManagerValidationCheck

if TYPE_CHECKING:
    from .gene_selection import poisson_gene_selection
    from .multimodal import open_mudata, read_mudata
    from .opening import open
    from .reading import read
    from .simulated.counts import simulate_counts
    from .simulated.methylation import simulate_methylation
    from .simulated.spots import simulate_spots
    from .simulated.synthetic import synthetic_iid
    from .tenx import (
        dataset_10x,
        organize_cite_seq_10x,
        organize_multiome_anndatas,
        read_10x_atac,
        read_10x_multiome,
        reads_to_fragments,
    )

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
    "dataset_10x",
    "open",
    "open_mudata",
    "organize_cite_seq_10x",
    "organize_multiome_anndatas",
    "poisson_gene_selection",
    "read",
    "read_10x_atac",
    "read_10x_multiome",
    "read_csv",
    "read_h5ad",
    "read_loom",
    "read_mudata",
    "read_text",
    "reads_to_fragments",
    "simulate_counts",
    "simulate_methylation",
    "simulate_spots",
    "state_registry_of",
    "summary_stats_of",
    "synthetic_iid",
    "top_variable_genes",
]

_HOMES = {
    "dataset_10x": "tenx",
    "open": "opening",
    "open_mudata": "multimodal",
    "organize_cite_seq_10x": "tenx",
    "organize_multiome_anndatas": "tenx",
    "poisson_gene_selection": "gene_selection",
    "read": "reading",
    "read_10x_atac": "tenx",
    "read_10x_multiome": "tenx",
    "read_mudata": "multimodal",
    "reads_to_fragments": "tenx",
    "simulate_counts": "simulated.counts",
    "simulate_methylation": "simulated.methylation",
    "simulate_spots": "simulated.spots",
    "synthetic_iid": "simulated.synthetic",
}
"""Files and simulations load when they are first named: training on cells in memory needs neither."""

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
