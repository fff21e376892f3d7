"""Reading counts from disk into an AnnData, with errors of one line."""

from pathlib import Path
from typing import Annotated, Any

import anndata
import h5py

from ..core import checked
from ..core.kinds import OneOf
from ..formats import (
    ORIENTATIONS,
    Opened,
    Reading,
    Root,
    inputs_in,
    no_modalities,
    open_other,
    open_root,
    recognise,
    shared_obs,
)
from ..store.allowance import Allowance
from ..store.damage import naming_damage
from ..store.matrices.index_structure import check_sparse
from ..store.part import is_group
from ..store.parts import Parts

__all__ = ["read", "read_as"]


@checked
def read(
    path: str | Path,
    *,
    modality: str | None = None,
    orientation: Annotated[str, OneOf(ORIENTATIONS)] | None = None,
) -> anndata.AnnData:
    """Read counts from a file or a folder into memory, whatever the file is called.

    What is read is checked: nothing is taken from other files, the arrays of sparse matrices fit each other, and no
    array is larger than the file can hold. Of ``uns``, ``layers``, ``obsm``, ``varm``, ``obsp``, ``varp`` and ``raw``
    of an AnnData, what cannot be read is left out with a warning.

    Parameters
    ----------
    path
        ``.h5ad``, ``.zarr`` (zipped too), a modality of ``.h5mu``, 10x ``.h5``, a folder of ``matrix.mtx`` or a single
        ``.mtx`` with its names beside it (10x, STARsolo, Parse, kallisto), ``.loom``, or a table of text.
    modality
        Which modality of MuData; which type of feature (``"Antibody Capture"``) or genome of a 10x file. None: the only
        one, or the genes.
    orientation
        ``"genes-by-cells"`` (rows are genes) or ``"cells-by-genes"``, for tables whose names do not tell.

    Returns
    -------
    Cells by genes. Of formats other than AnnData's the counts are CSR; names that come twice get ``-1`` put behind
    them,
    ``var["gene_ids"]`` and ``var["feature_types"]`` are there where the file has them. What was decided is logged.

    Raises
    ------
    FileNotFoundError
        When there is nothing at that path.
    ValueError
        When it is something that celbo does not read, with how to convert it; or when a modality or an orientation must
        be named.
    DamagedDataError
        When the file is damaged or cut short; both an ``OSError`` and a ``ValueError``.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    return read_as(_single(Path(path)), Reading(modality=modality, orientation=orientation))


def _single(path: Path) -> Path:
    """The input that a folder stands for."""
    if not path.is_dir():
        return path
    found = inputs_in(path)
    if len(found) > 1:
        raise ValueError(
            f"The folder {path} holds {len(found)} inputs ({found[0].name}, {found[1].name}, ...): name one of them, "
            "or open them together: celbo.data.open(...)."
        )
    return found[0]


def read_as(path: Path, reading: Reading) -> anndata.AnnData:
    """Read one input into memory; see :func:`read`."""
    kind = recognise(path)
    found = open_other(path, kind, reading) or open_root(path, kind, reading.modality)
    if reading.modality is not None and not found.has_modalities:
        raise no_modalities(path, reading.modality)
    return found.loaded() if isinstance(found, Opened) else _read_root(path, found)


def _read_root(path: Path, place: Root) -> anndata.AnnData:
    root = place.group
    try:
        if not place.has_modalities:
            return _legacy(root, path) if _is_legacy(root, path) else Parts(root, path).anndata()
        adata = Parts(root, path).anndata()
        adata.obs = adata.obs.join(shared_obs(path, place, adata.obs_names, adata.obs.columns))
        return adata
    finally:
        if isinstance(root, h5py.Group):
            root.file.close()


def _is_legacy(root: Any, path: Path) -> bool:
    """Whether anndata before 0.7 wrote it: tables as one array, or ``raw`` beside the rest."""
    with naming_damage(path):
        return any(key.startswith("raw.") or (key in ("obs", "var") and not is_group(root[key])) for key in root)


def _legacy(root: object, path: Path) -> anndata.AnnData:
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
