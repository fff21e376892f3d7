"""AnnData and MuData where they lie in a group: of HDF5, of a zarr store, or of a zipped one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..store.damage import naming_damage
from ..store.parts import Parts
from ..store.stores import open_hdf5, open_zarr
from .naming import only_one
from .recognise import Kind
from .zip_store import open_zip

__all__ = ["Root", "open_root", "open_whole", "shared_obs"]


class Root:
    """An AnnData in a file or store.

    Parameters
    ----------
    group
        Where it lies, of h5py or zarr.
    whole
        The MuData that it is a modality of; None: it stands by itself.
    modality
        Its name there.
    """

    def __init__(self, group: Any, whole: Any = None, modality: str | None = None) -> None:
        self.group, self.whole, self.modality = group, whole, modality

    @property
    def has_modalities(self) -> bool:
        """Whether it is part of MuData."""
        return self.whole is not None


def open_root(path: Path, kind: Kind, modality: str | None) -> Root:
    """Open a file or a store, and of MuData a modality.

    Parameters
    ----------
    path, kind
        What :func:`~celbo.formats.recognise.recognise` said.
    modality
        Which one; None: the only one.

    Raises
    ------
    ValueError
        When there are several modalities and none is named, or another one is.
    DamagedDataError
        When the file is damaged.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    whole = open_whole(path, kind)
    with naming_damage(path):
        if "mod" not in whole:
            return Root(whole)
        sizes = {str(name): _size(whole["mod"][name]) for name in whole["mod"]}
    chosen = only_one(path, "modalities", sizes, modality)
    return Root(whole["mod"][chosen], whole, chosen)


def open_whole(path: Path, kind: Kind) -> Any:
    """The group of a file or store, with all modalities that it has; errors as of :func:`open_root`."""
    return {Kind.HDF5: open_hdf5, Kind.ZARR: open_zarr, Kind.ZIP: open_zip}[kind](path)


def _size(group: Any) -> str:
    """How many cells and features a modality has, as far as it can be told without reading it."""
    sizes = [_length(group[name]) for name in ("obs", "var") if name in group]
    return " cells x ".join(map(str, sizes)) + " features"


def _length(table: Any) -> int:
    if hasattr(table, "shape"):
        return int(table.shape[0])
    index = table[str(table.attrs["_index"])]
    return int((index if hasattr(index, "shape") else index["values"]).shape[0])


def shared_obs(path: Path, root: Root, names: pd.Index, own: Mapping[str, Any] | pd.Index) -> pd.DataFrame:
    """Columns of the MuData's own table of cells that no modality has: a batch often stands only there.

    Parameters
    ----------
    path
        For messages.
    root
        Of a modality; of an AnnData by itself there are none.
    names
        Names of the modality's cells, ``(n,)``.
    own
        Columns that the modality has, which are not replaced.

    Returns
    -------
    Table of the modality's cells, NaN for those that the other table lacks.
    """
    nothing = pd.DataFrame(index=names)
    if root.whole is None or "obs" not in root.whole or int(root.whole.attrs.get("axis", 0)) == 1:
        return nothing
    table = Parts(root.whole, path).table("obs")
    with naming_damage(path):
        modalities = tuple(f"{name}:" for name in root.whole["mod"])
    wanted = [name for name in table.columns if name not in own and not str(name).startswith(modalities)]
    if not wanted or not table.index.is_unique:
        return nothing
    return table[wanted].reindex(names)
