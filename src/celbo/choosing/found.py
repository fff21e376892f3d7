"""What can be seen in data without training: what they hold, where the counts are, which columns could be of use."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd
from anndata import AnnData

from ..data.access import is_mudata
from ..data.count_places import count_places, part_of
from ..data.counts import is_count_matrix
from ..data.fields.values import all_finite
from ..data.modalities import gathered_obs
from ..data.modality_roles import ATAC, PROTEIN, RNA, role_of, roles_of
from .table import Need

__all__ = ["Columns", "Found", "look_at"]

_BATCH = re.compile(
    r"batch|donor|sample|patient|plate|lane|\brun\b|library|replicate|individual|subject|tech|assay|dataset|study"
    r"|site|channel|chip|slice|system|species",
    re.I,
)
_LABEL = re.compile(
    r"cell.?type|label|annot|cluster|leiden|louvain|lineage|line|class|identity|population|\btype\b", re.I
)
_FIRST_LABEL = re.compile(r"cell.?type", re.I)
_SAMPLE = re.compile(r"donor|sample|patient|individual|subject|animal|mouse|embryo", re.I)
_PLACES = re.compile(r"spatial|coord|location|centroid|\bxy\b", re.I)
_SPLICED = ({"spliced", "unspliced"}, {"ms", "mu"})
_METHYLATED, _COVERED = re.compile(r"^mc|meth", re.I), re.compile(r"cov|total|depth|reads", re.I)

_MOST_VALUES = 1000
_MOST_MARKERS = 100


class Columns(NamedTuple):
    """Columns of cells with few values, each with their number, by what their names say."""

    batches: dict[str, int]
    labels: dict[str, int]
    others: dict[str, int]

    @property
    def samples(self) -> list[str]:
        """Those of batches that are named like samples or donors."""
        return [name for name in self.batches if _SAMPLE.search(name)]


@dataclass(frozen=True)
class Found:
    """What data hold.

    Attributes
    ----------
    parts
        Modalities by name; of an AnnData itself under ``""``.
    counts
        Where each has counts, as arguments of a setup, likeliest first.
    columns
        Of the cells.
    """

    parts: Mapping[str, AnnData]
    counts: Mapping[str, Sequence[str]]
    columns: Columns

    @cached_property
    def roles(self) -> dict[str, str]:
        """What there are counts of -> name of the modality; the likeliest of several is the first."""
        counted = {name: adata for name, adata in self.parts.items() if self.counts[name]}
        named = roles_of({name: adata.var for name, adata in counted.items() if not _has_methylation(adata)})
        found = {role: names[0] for role, names in named.items()}
        if "" in self.parts and self.counts[""]:
            found = found or {RNA: ""}
            if self.protein_table is not None:
                found[PROTEIN] = ""
        return found

    @property
    def protein_table(self) -> str | None:
        """Key in ``obsm`` of an AnnData's proteins."""
        keys = self.parts[""].obsm if "" in self.parts else ()
        return next((key for key in keys if role_of(key, pd.DataFrame()) == PROTEIN), None)

    @property
    def places(self) -> str | None:
        """Key in ``obsm`` of the coordinates of cells."""
        for adata in self.parts.values():
            for key, table in adata.obsm.items():
                if _PLACES.search(key) and table.shape[1] in (2, 3):
                    return str(key)
        return None

    @cached_property
    def needs_met(self) -> set[Need]:
        """What of the table's needs the data have."""
        roles = set(self.roles)
        is_there = {
            Need.RNA: RNA in roles,
            Need.REGIONS: ATAC in roles,
            Need.PROTEINS: PROTEIN in roles,
            Need.MODALITIES: len(roles & {RNA, ATAC, PROTEIN}) > 1,
            Need.VALUES: any(map(_has_values, self.parts.values())),
            Need.MARKERS: any(one.n_vars <= _MOST_MARKERS and _has_values(one) for one in self.parts.values()),
            Need.SPLICED: any(map(_has_spliced, self.parts.values())),
            Need.METHYLATION: "" not in self.parts and any(map(_has_methylation, self.parts.values())),
            Need.BATCHES: bool(self.columns.batches),
            Need.LABELS: bool(self.columns.labels),
            Need.SAMPLES: bool(self.columns.samples),
            Need.PLACES: self.places is not None,
        }
        return {need for need, met in is_there.items() if met}


def look_at(data: Any) -> Found:
    """Look at data: at all of a matrix in memory, at some rows of one on disk.

    Parameters
    ----------
    data
        AnnData or MuData.
    """
    parts = dict(data.mod) if is_mudata(data) else {"": data}
    counts = {name: count_places(adata, "", None) for name, adata in parts.items()}
    return Found(parts, counts, _columns(gathered_obs(data)))


def _has_values(adata: AnnData) -> bool:
    """Whether ``X`` holds numbers, and nothing else, that are no counts."""
    if adata.X is None or not adata.n_obs or not adata.n_vars:
        return False
    try:
        part = part_of(adata.X)
        return all_finite(part) and not is_count_matrix(part)
    except (TypeError, ValueError, OSError):  # no numbers, or damaged
        return False


def _has_spliced(adata: AnnData) -> bool:
    return any(both <= {str(name).lower() for name in adata.layers} for both in _SPLICED)


def _has_methylation(adata: AnnData) -> bool:
    names = [str(name) for name in adata.layers]
    return any(map(_METHYLATED.search, names)) and any(map(_COVERED.search, names))


def _columns(obs: pd.DataFrame) -> Columns:
    found = Columns({}, {}, {})
    for name, n_values in _numbers(obs):
        part = found.batches if _BATCH.search(name) else found.labels if _LABEL.search(name) else found.others
        part[name] = n_values
    first = sorted(found.labels.items(), key=lambda item: not _FIRST_LABEL.search(item[0]))
    return found._replace(labels=dict(first))


def _numbers(obs: pd.DataFrame) -> Iterator[tuple[str, int]]:
    """Columns of names or whole numbers with few values, and how many; those of a setup left out."""
    for name in map(str, obs.columns):
        if name.startswith("_scvi") or obs[name].dtype.kind == "f":
            continue
        n_values = int(obs[name].nunique())
        if 2 <= n_values <= min(_MOST_VALUES, max(2, len(obs) // 3)):
            yield name, n_values
