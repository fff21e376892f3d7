"""Which inputs a folder holds: those of AnnData, of a pipeline's output, or of samples side by side."""

import logging
from pathlib import Path

from ..store.damage import require_regular
from .mtx import is_mtx_name, matrices_in
from .recognise import is_zarr
from .signatures import READ_HERE

__all__ = ["inputs_in"]

_STORES = (".h5ad", ".zarr")
_OTHERS = (".h5", ".h5mu", ".loom", ".zip")
_FILES = (".h5ad", ".h5", ".h5mu", ".loom")
"""No folder is called so, unless by mistake."""

_TABLES = (".csv", ".tsv", ".txt")

_OF_PIPELINES = (
    "filtered_feature_bc_matrix.h5",
    "sample_filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "sample_filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices_h5.h5",
    "filtered_gene_bc_matrices",
    "filtered_peak_bc_matrix.h5",
    "filtered_peak_bc_matrix",
    "outs",
    "count",
    "Solo.out",
    "Gene",
    "GeneFull",
    "filtered",
    "all-sample",
    "DGE_filtered",
    "counts_filtered",
    "counts_unfiltered",
    "raw",
)
"""What Cell Ranger, STARsolo, Parse and kallisto call their results, the one that is taken of several first."""

_DEEPEST = 4
_SHOWN = 5

logger = logging.getLogger("celbo")


def inputs_in(folder: Path) -> list[Path]:
    """The inputs that a folder stands for.

    Parameters
    ----------
    folder
        A zarr store; a folder of one matrix (``.mtx``); of files that celbo reads; the output of a pipeline, of which
        the filtered counts are taken; or a folder of such folders.

    Raises
    ------
    ValueError
        When there is none, or several tables of text.
    DamagedDataError
        For a folder that is called as a file is.
    """
    if folder.suffix.lower() in _FILES:
        require_regular(folder)
    found = _within(folder, 0)
    if found:
        return found
    there = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "") or "nothing"
    raise ValueError(f"The folder {folder} holds no counts that celbo knows, but {shown}. {READ_HERE}.")


def _within(folder: Path, depth: int) -> list[Path]:
    if is_zarr(folder):
        return [folder]
    children = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    stores = [path for path in children if path.suffix.lower() in _STORES]
    if stores:
        return stores
    matrices = matrices_in(folder)
    if matrices:
        return [folder] if len(matrices) == 1 else matrices
    return _of_pipeline(folder, depth) or _of_others(folder, children) or _of_samples(children, depth)


def _of_pipeline(folder: Path, depth: int) -> list[Path]:
    for name in _OF_PIPELINES if depth < _DEEPEST else ():
        path = folder / name
        found = [path] if path.is_file() else _within(path, depth + 1) if path.is_dir() else []
        if found:
            logger.info("Of the folder %s, %s is taken.", folder, name)
            return found
    return []


def _of_others(folder: Path, children: list[Path]) -> list[Path]:
    others = [path for path in children if path.suffix.lower() in _OTHERS and path.is_file()]
    if others:
        return others
    tables = [path for path in children if path.is_file() and _is_table_name(path)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:_SHOWN]) + (", ..." if len(tables) > _SHOWN else "")
        raise ValueError(
            f"The folder {folder} holds {len(tables)} tables of text ({names}), some of which may not be counts: name "
            "the "
            "ones that are."
        )
    return tables


def _is_table_name(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(_TABLES) and not is_mtx_name(path.name)


def _of_samples(children: list[Path], depth: int) -> list[Path]:
    if depth >= _DEEPEST:
        return []
    return [path for child in children if child.is_dir() for path in _within(child, depth + 1)]
