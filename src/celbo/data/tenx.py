"""Data as 10x Genomics' software writes them: reading folders, sorting features by modality, reads to fragments."""

import gzip
import logging
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.request import Request, urlopen

import anndata
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
from anndata import AnnData

from ..core import checked, unknown_name
from ..core.kinds import Text
from .access import anndata_value
from .reading import read

__all__ = [
    "dataset_10x",
    "fetch",
    "organize_cite_seq_10x",
    "organize_multiome_anndatas",
    "read_10x_atac",
    "read_10x_multiome",
    "reads_to_fragments",
]

logger = logging.getLogger("celbo")

_PEAK = ["chr", "start", "end"]
_NAMES = ("{}_feature_bc_matrix.h5", "{}_feature_bc_matrix.tar.gz", "{}_gene_bc_matrices.tar.gz")
"""Names of 10x's files of counts, with ``filtered`` or ``raw``."""


def fetch(url: str, target: Path) -> None:
    """Fetch a file from an address, whole or not at all; one that is there stays."""
    if target.exists():
        logger.info(f"{target} is there already.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial-{target.name}")
    with urlopen(Request(url, headers={"User-Agent": "celbo"})) as answer, partial.open("wb") as file:
        shutil.copyfileobj(answer, file)
    partial.replace(target)


@checked
def dataset_10x(
    dataset_name: Annotated[str, Text()] | None = None,
    filename: Annotated[str, Text()] | None = None,
    save_path: str | Path = "data/10X",
    url: Annotated[str, Text()] | None = None,
    return_filtered: bool = True,
    remove_extracted_data: bool = False,
    *,
    modality: str | None = None,
) -> AnnData:
    """Counts of a data set of 10x Genomics, from a folder or from its address.

    Parameters
    ----------
    dataset_name
        Folder of the data set below ``save_path``; None: ``save_path`` itself.
    filename
        Name of the file, ``.h5`` or ``.tar.gz``; None: that of the address, or ``filtered_feature_bc_matrix.h5`` and
        other names that 10x gives its files.
    save_path
        Folder of data sets.
    url
        Address to fetch the file from, where it is not there: https://www.10xgenomics.com/datasets has them.
    return_filtered
        Take the counts of cells, or of all droplets (``raw_...``).
    remove_extracted_data
        Accepted for compatibility with scvi-tools: what an archive holds is read and never left behind.
    modality
        See :func:`celbo.data.read`.

    Raises
    ------
    FileNotFoundError
        No such file, and no address.
    """
    folder = Path(save_path) / (dataset_name or "")
    names = [one.format("filtered" if return_filtered else "raw") for one in _NAMES]
    if url is not None:
        names = [filename or url.rpartition("/")[2]]
        fetch(url, folder / names[0])
    elif filename is not None:
        names = [filename]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(names)}: fetch one from https://www.10xgenomics.com/datasets, or pass "
            "its address as url=."
        )
    return read(path, modality=modality) if path.suffix == ".h5" else _read_archive(path, modality)


def _read_archive(path: Path, modality: str | None) -> AnnData:
    with TemporaryDirectory(dir=path.parent) as unpacked, tarfile.open(path) as archive:
        archive.extractall(unpacked, filter="data")
        found = sorted(one.parent for one in Path(unpacked).rglob("matrix.mtx*"))
        if len(found) != 1:
            raise FileNotFoundError(f"{path} holds {len(found)} matrices (matrix.mtx), wanted one.")
        return read(found[0], modality=modality)


@checked
def reads_to_fragments(adata: AnnData, read_layer: str | None = None, fragment_layer: str = "fragments") -> None:
    r"""Fragments from counts of reads: a fragment has two ends, so :math:`\lceil x / 2 \rceil` (Martens et al. 2024).

    Parameters
    ----------
    adata
        Cells by regions; gets the layer.
    read_layer
        Layer with the reads; None: ``X``.
    fragment_layer
        Layer that the fragments go to.
    """
    x = anndata_value(adata, "X" if read_layer is None else "layers", read_layer)
    if sp.issparse(x):
        fragments = x.copy()
        fragments.data = np.ceil(fragments.data / 2).astype(x.dtype)
    else:
        fragments = np.ceil(np.asarray(x) / 2).astype(np.asarray(x).dtype)
    adata.layers[fragment_layer] = fragments


@checked
def organize_cite_seq_10x(adata: AnnData, copy: bool = False) -> AnnData | None:
    """Move antibody counts from the columns of ``X`` to ``obsm["protein_expression"]``.

    Parameters
    ----------
    adata
        As scanpy reads 10x files with ``gex_only=False``: ``var["feature_types"]`` says ``"Gene Expression"`` or
        ``"Antibody Capture"``.
    copy
        Return a new AnnData and leave this one.

    Raises
    ------
    KeyError
        When ``var`` has no ``feature_types``.
    """
    if "feature_types" not in adata.var:
        raise KeyError(unknown_name("column of adata.var", "feature_types", adata.var.columns))
    is_protein = (adata.var["feature_types"] == "Antibody Capture").to_numpy()
    proteins = adata[:, is_protein].X
    table = pd.DataFrame(
        proteins.toarray() if sp.issparse(proteins) else np.asarray(proteins),
        index=adata.obs_names,
        columns=adata.var_names[is_protein],
    )
    target = adata.copy() if copy else adata
    target.obsm["protein_expression"] = table
    target._inplace_subset_var((adata.var["feature_types"] == "Gene Expression").to_numpy())
    return target if copy else None


@checked
def organize_multiome_anndatas(
    multi_anndata: AnnData,
    rna_anndata: AnnData | None = None,
    atac_anndata: AnnData | None = None,
    modality_key: str = "modality",
) -> AnnData:
    """One AnnData of paired cells and of cells with one modality only, as MULTIVI takes them.

    Parameters
    ----------
    multi_anndata
        Cells with both modalities; its features are kept.
    rna_anndata, atac_anndata
        Cells with expression or accessibility only. What they lack is NaN where dense, zero where sparse.
    modality_key
        Column of ``obs`` that gets ``"paired"``, ``"expression"`` or ``"accessibility"``.

    Returns
    -------
    Paired cells first; names of cells get ``_`` and the modality behind them.
    """
    given = {"paired": multi_anndata, "expression": rna_anndata, "accessibility": atac_anndata}
    parts = []
    for modality, part in given.items():
        if part is None:
            continue
        named = part.copy()
        named.obs_names = [f"{name}_{modality}" for name in part.obs_names]
        named.obs[modality_key] = modality
        parts.append(named)
    if len(parts) == 1:
        return parts[0]
    joined = anndata.concat(parts, join="outer", merge="first")[:, multi_anndata.var_names].copy()
    joined.var = multi_anndata.var.copy()
    return joined


@checked
def read_10x_atac(base_path: str | Path) -> AnnData:
    """Cells by peaks from a folder of Cell Ranger ATAC.

    Parameters
    ----------
    base_path
        Folder with ``matrix.mtx``, ``peaks.bed`` and ``barcodes.tsv``; each may be gzipped.

    Returns
    -------
    CSR counts; ``var``: ``chr``, ``start``, ``end``, named ``chr:start-end``; ``obs``: ``batch_id``, the number behind
    the barcode.
    """
    folder = Path(base_path)
    peaks = pd.read_csv(_file(folder, "peaks.bed"), sep="\t", header=None, comment="#").iloc[:, :3]
    peaks.columns = pd.Index(_PEAK)
    peaks.index = pd.Index([f"{c}:{s}-{e}" for c, s, e in peaks.itertuples(index=False)])
    return _as_anndata(folder, peaks)


@checked
def read_10x_multiome(base_path: str | Path) -> AnnData:
    """Cells by genes and peaks from a folder of Cell Ranger ARC.

    Parameters
    ----------
    base_path
        Folder with ``matrix.mtx``, ``features.tsv`` and ``barcodes.tsv``; each may be gzipped.

    Returns
    -------
    CSR counts; ``var``: ``ID``, ``modality`` (``"Gene Expression"`` or ``"Peaks"``), ``chr``, ``start``, ``end``, named
    by gene or peak; ``obs``: ``batch_id``, the number behind the barcode.
    """
    folder = Path(base_path)
    names = ["ID", "name", "modality", *_PEAK]
    features = pd.read_csv(_file(folder, "features.tsv"), sep="\t", header=None, names=names, index_col="name")
    features.index.name = None
    return _as_anndata(folder, features)


def _as_anndata(folder: Path, var: pd.DataFrame) -> AnnData:
    path = _file(folder, "matrix.mtx")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        counts_ng = sp.csr_matrix(scipy.io.mmread(file).T)
    barcodes = pd.read_csv(_file(folder, "barcodes.tsv"), sep="\t", header=None)[0].astype(str)
    return AnnData(counts_ng, obs=_cells(list(barcodes)), var=var)


def _cells(barcodes: Sequence[str]) -> pd.DataFrame:
    """``ACGT-2`` is barcode ACGT of batch 2."""
    parts: list[Any] = [barcode.rpartition("-") for barcode in barcodes]
    names = pd.Index([name or last for name, _, last in parts], name="barcode")
    return pd.DataFrame({"batch_id": [int(last) if name else 1 for name, _, last in parts]}, index=names)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz: {there}.")
