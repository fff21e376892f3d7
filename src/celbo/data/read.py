"""Reading an AnnData from disk, with errors of one line."""

from pathlib import Path

import anndata
import h5py

from ..core import optional
from .file_mark import naming_damage
from .hdf5_heap import require_sound_heaps

__all__ = ["read"]

_READERS = {".h5ad": "h5ad", ".zarr": "zarr"}


def read(path: str | Path) -> anndata.AnnData:
    """Read an AnnData from ``.h5ad`` or ``.zarr``.

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
        When the file is damaged, cut short or no AnnData; both an ``OSError`` and a ``ValueError``.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    path = Path(path)
    kind = _READERS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; an AnnData is read from .h5ad or .zarr.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if kind == "zarr":
        optional("zarr", extra="zarr", purpose="Reading .zarr")
    with naming_damage(path):
        if kind == "zarr":
            return anndata.read_zarr(path)
        with h5py.File(path, "r") as file:
            require_sound_heaps(file)
        return anndata.read_h5ad(path)
