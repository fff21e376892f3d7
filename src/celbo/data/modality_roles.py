"""Which modality holds genes, which proteins, which regions of the chromatin: by feature types, else by names."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

__all__ = ["ATAC", "PROTEIN", "RNA", "ROLES", "name_of_type", "role_of", "roles_of"]

RNA, PROTEIN, ATAC = "rna", "protein", "atac"
ROLES: Mapping[str, str] = {RNA: "genes", PROTEIN: "proteins", ATAC: "regions"}
"""Role -> what the features of such a modality are."""

_OF_TYPE = {
    "gene expression": RNA,
    "antibody capture": PROTEIN,
    "peaks": ATAC,
    "chromatin accessibility": ATAC,
}
"""Type of features, as 10x calls it in lower case -> role."""

_WORDS = {
    PROTEIN: {"protein", "proteins", "prot", "adt", "adts", "antibody", "antibodies"},
    ATAC: {"atac", "scatac", "snatac", "peak", "peaks", "accessibility", "chromatin", "region", "regions"},
    RNA: {"rna", "scrna", "snrna", "mrna", "gex", "gene", "genes", "expression", "transcriptome"},
}
"""Words in the name of a modality; the first role counts (``protein_expression`` is of proteins)."""

_REGION = re.compile(r"^(?:chr)?\w+[:\-_]\d+[\-_]\d+$")
_LOOKED_AT = 100


def role_of(name: str, var: pd.DataFrame) -> str | None:
    """What a modality holds.

    Parameters
    ----------
    name
        Its name.
    var
        Table of its features; ``feature_types`` counts where it says one thing.

    Returns
    -------
    One of :data:`ROLES`; None where nothing tells, as of hashtags.
    """
    types = set(var["feature_types"].dropna().astype(str)) if "feature_types" in var else set()
    if len(types) == 1:
        return _OF_TYPE.get(types.pop().lower())
    words = set(re.split(r"[^a-z]+", name.lower()))
    named = next((role for role, known in _WORDS.items() if known & words), None)
    return named or (ATAC if _are_regions(var.index[:_LOOKED_AT]) else None)


def _are_regions(names: Sequence[str] | pd.Index) -> bool:
    return len(names) > 0 and all(_REGION.match(str(name)) for name in names)


def roles_of(tables: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Role -> names of the modalities that have it, one normally; tables of the features by modality are given."""
    found: dict[str, list[str]] = {}
    for name, var in tables.items():
        role = role_of(name, var)
        if role is not None:
            found.setdefault(role, []).append(name)
    return found


def name_of_type(type_of_features: str) -> str:
    """What the modality of a type of features is called: ``"rna"``, ``"protein"``, ``"atac"``, else as the type."""
    return _OF_TYPE.get(type_of_features.lower(), type_of_features)
