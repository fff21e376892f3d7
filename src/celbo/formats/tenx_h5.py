"""The ``.h5`` of Cell Ranger: counts of features x cells by columns (CSC), so cells x features by rows (CSR) as they
lie.

Version 2: a group a genome, each with names of its own. Version 3: the group ``matrix`` with ``features``, of several
types; of Flex also with a row a probe. CellBender writes either.

Dims: n cells, h features as stored.
"""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from ..store.allowance import Allowance
from ..store.damage import DamagedDataError, naming_damage
from ..store.matrices.rows import MemoryRows, Rows, SomeColumns
from ..store.part import StoredPart
from .naming import chosen_features, numbered, only_one, unique
from .opened import Opened, Reading

__all__ = ["MATRIX", "is_matrix", "open_tenx", "types_in"]

MATRIX = ("data", "indices", "indptr", "shape")
"""What a group with counts has."""

_NAMED = {"feature_type": "feature_types", "id": "gene_ids"}
_OF_PROBES = {"feature_type": "feature_types", "id": "probe_ids", "gene_id": "gene_ids"}
"""Features of the file -> columns of var, as the field calls them."""

logger = logging.getLogger("celbo")


class CellsOfTenx(StoredPart):
    """Rows of the counts of a 10x file: its columns."""

    def _open(self, element: Any) -> None:
        h, n = (int(size) for size in element["shape"][:])
        self._open_rows(element, n, h)


def is_matrix(group: object) -> bool:
    """Whether this is a group with counts, by what it has."""
    return isinstance(group, h5py.Group) and all(name in group for name in MATRIX)


def open_tenx(path: Path, file: h5py.File, reading: Reading) -> Opened:
    """Open a 10x ``.h5``.

    Parameters
    ----------
    path
        For messages.
    file
        Open for reading.
    reading
        ``modality``: a type of feature (``"Antibody Capture"``) of version 3, a genome of version 2.

    Raises
    ------
    ValueError
        When the modality is not there, or several genomes are and none is named.
    DamagedDataError
        When the parts do not fit each other.
    """
    with naming_damage(path):
        groups = {name: file[name] for name in file if is_matrix(file[name])}
        sizes = {name: _size(group) for name, group in groups.items()}
    if "matrix" in groups:
        return _version_3(path, groups["matrix"], reading)
    genome = only_one(path, "genomes", sizes, reading.modality)
    return _version_2(path, groups[genome], genome, len(groups) > 1)


def types_in(path: Path, file: h5py.File) -> list[str]:
    """Types of the features of a 10x ``.h5`` of version 3, in the order in which they come; of others none."""
    with naming_damage(path):
        types = file.get("matrix/features/feature_type")
        if types is None:
            return []
        Allowance(path).require(types)
        return list(dict.fromkeys(_texts(types).tolist()))


def _size(group: h5py.Group) -> str:
    h, n = (int(size) for size in group["shape"][:])
    return f"{n} cells, {h} genes"


def _version_3(path: Path, group: h5py.Group, reading: Reading) -> Opened:
    rows = _rows(path, group)
    with naming_damage(path):
        columns = _columns(group["features"], rows.shape[1]) if "features" in group else {}
        obs = pd.DataFrame(index=_cells(path, group, rows.shape[0]))
        if "filtered_barcodes" in group:
            obs["filtered_barcodes"] = group["filtered_barcodes"][:].astype(bool)
    named = _OF_PROBES if "gene_id" in columns else _NAMED
    names = columns.get("name", columns.get("id"))
    var = pd.DataFrame(
        {named.get(name, name): column for name, column in columns.items() if name != "name"},
        index=range(rows.shape[1]),
    )
    types = var["feature_types"].to_numpy() if "feature_types" in var else np.array([], dtype=str)
    chosen = chosen_features(path, types, reading.modality, not reading.is_part)
    if chosen is not None:
        rows, var, names = SomeColumns(rows, chosen), var.iloc[chosen], None if names is None else names[chosen]
    var.index = _features(path, names, rows.shape[1])
    _say_probes(path, var, obs)
    return Opened(path, obs, var, {None: rows}, has_modalities=True, whole=group)


def _version_2(path: Path, group: h5py.Group, genome: str, is_one_of_several: bool) -> Opened:
    rows = _rows(path, group)
    with naming_damage(path):
        obs = pd.DataFrame(index=_cells(path, group, rows.shape[0]))
        ids = _texts(group["genes"]) if "genes" in group else None
        names = _texts(group["gene_names"]) if "gene_names" in group else ids
    var = pd.DataFrame(index=_features(path, names, rows.shape[1]))
    if ids is not None:
        var["gene_ids"] = ids
    var["genome"] = genome
    return Opened(path, obs, var, {None: rows}, has_modalities=is_one_of_several, whole=group)


def _rows(path: Path, group: h5py.Group) -> Rows:
    with naming_damage(path):
        allowance = Allowance(path)
        for name in ("shape", "indptr", "barcodes", "features", "genes", "gene_names"):
            if name in group:
                allowance.require(group[name])
        h, n = (int(size) for size in group["shape"][:])
        n_pointers = int(group["indptr"].shape[0])
    if n_pointers == n + 1 or n_pointers != h + 1:
        return CellsOfTenx(group, path)
    logger.info("%s is stored by genes, not by cells, which cannot be streamed: it is loaded.", path)
    allowance.require(group)
    by_genes = _ByGenes(group, path)
    return MemoryRows(sparse.csr_matrix(by_genes.read(0, h).T))


class _ByGenes(StoredPart):
    """Rows of counts that are stored the other way round."""

    def _open(self, element: Any) -> None:
        h, n = (int(size) for size in element["shape"][:])
        self._open_rows(element, h, n)


def _columns(features: h5py.Group, h: int) -> dict[str, np.ndarray]:
    """What is known of each feature, by name; tags that list other tags are no such thing."""
    found = {name: features[name] for name in features if isinstance(features[name], h5py.Dataset)}
    of_each = {name: item for name, item in found.items() if item.shape == (h,) and not name.startswith("_")}
    return {name: _values(item) for name, item in of_each.items()}


def _values(dataset: h5py.Dataset) -> np.ndarray:
    return dataset[:] if dataset.dtype.kind in "biuf" else _texts(dataset)


def _texts(dataset: h5py.Dataset) -> np.ndarray:
    return np.array([_text(value) for value in dataset[:]], dtype=object)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _cells(path: Path, group: h5py.Group, n: int) -> pd.Index:
    if "barcodes" not in group:
        return numbered(path, "cell", n)
    return unique(path, "cell", _of_length(path, "barcodes", _texts(group["barcodes"]), n))


def _features(path: Path, names: np.ndarray | None, h: int) -> pd.Index:
    if names is None:
        return numbered(path, "gene", h)
    return unique(path, "gene", _of_length(path, "gene names", names, h), "var['gene_ids'] tells them apart")


def _of_length(path: Path, what: str, names: np.ndarray, wanted: int) -> np.ndarray:
    if len(names) != wanted:
        raise DamagedDataError(f"{path} is damaged: it has {len(names)} {what} for {wanted} in the matrix.")
    return names


def _say_probes(path: Path, var: pd.DataFrame, obs: pd.DataFrame) -> None:
    if "probe_ids" not in var:
        return
    cells = ""
    if "filtered_barcodes" in obs:
        cells = f"; obs['filtered_barcodes'] marks the {int(obs['filtered_barcodes'].sum())} barcodes called cells"
    logger.info(
        "%s holds counts of %d probes of %d genes (Flex)%s. Counts of genes are in filtered_feature_bc_matrix.h5 "
        "beside "
        "it.",
        path,
        len(var),
        var["gene_ids"].nunique(),
        cells,
    )
