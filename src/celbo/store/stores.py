"""Opening an HDF5 file or a zarr store that somebody else made: what is checked before anything of it is read."""

from pathlib import Path
from typing import Any

import h5py

from ..core import optional
from .damage import naming_damage, require_regular
from .hdf5.heap import require_sound_heaps
from .hdf5.walk import refuse_outside
from .zarr.inside import guarded_group

__all__ = ["open_hdf5", "open_zarr"]


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file, open for reading, that is whole as far as libhdf5 must rely on, and keeps nothing in other files.

    Raises
    ------
    DamagedDataError
        When it is no HDF5 file, is damaged, or is no regular file.
    OutsideDataError
        When part of it is in another file.
    """
    require_regular(path)
    with naming_damage(path):
        file = h5py.File(path, "r")
        try:
            require_sound_heaps(file, refuse_outside(file))
        except BaseException:
            file.close()
            raise
    return file


def open_zarr(path: Path) -> Any:
    """A zarr store in a folder, open for reading, that has no link out of the folder.

    Raises
    ------
    DamagedDataError
        When it is no store, is damaged, or is no folder.
    OutsideDataError
        When part of it is in another place.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    optional("zarr", extra="zarr", purpose="Reading .zarr")
    require_regular(path, folder=True)
    with naming_damage(path):
        return guarded_group(path)
