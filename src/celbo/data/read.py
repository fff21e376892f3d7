"""Reading an AnnData from disk, with errors of one line."""

from pathlib import Path
from typing import Any

import anndata
import h5py

from .allowance import Allowance
from .file_mark import naming_damage
from .index_structure import check_sparse
from .parts import Parts
from .stored_part import is_group
from .stores import open_store

__all__ = ["read"]

_SUFFIXES = (".h5ad", ".zarr")


def read(path: str | Path) -> anndata.AnnData:
    """Read an AnnData from ``.h5ad`` or ``.zarr``, whoever made it.

    What is read is checked: nothing is taken from other files, the arrays of sparse matrices fit each other, and no
    array is larger than the file can hold. Of ``uns``, ``layers``, ``obsm``, ``varm``, ``obsp``, ``varp`` and ``raw``,
    what cannot be read is left out with a warning.

    Parameters
    ----------
    path
        The file, or the folder for zarr.

    Raises
    ------
    FileNotFoundError
        When there is nothing at that path.
    ValueError
        When the suffix is another one.
    DamagedDataError
        When the file is damaged, cut short, no AnnData, or leads to other files; both an ``OSError`` and a
        ``ValueError``.
    MemoryError
        When it does not fit, with how much is needed.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; an AnnData is read from .h5ad or .zarr.")
    root = open_store(path)
    try:
        return _legacy(root, path) if _is_legacy(root, path) else Parts(root, path).anndata()
    finally:
        if isinstance(root, h5py.File):
            root.close()


def _is_legacy(root: Any, path: Path) -> bool:
    """Whether anndata before 0.7 wrote it: tables as one array, or ``raw`` beside the rest."""
    with naming_damage(path):
        return any(key.startswith("raw.") or (key in ("obs", "var") and not is_group(root[key])) for key in root)


def _legacy(root: Any, path: Path) -> anndata.AnnData:
    with naming_damage(path):
        if not isinstance(root, h5py.File):
            adata = anndata.read_zarr(root)
        else:
            Allowance(path).require(root)
            adata = anndata.read_h5ad(path)
        raw = None if adata.raw is None else adata.raw.X
        for place, x in (("X", adata.X), ("raw", raw), *adata.layers.items(), *adata.obsm.items()):
            check_sparse(x, f"{path} ({place})")
    return adata
