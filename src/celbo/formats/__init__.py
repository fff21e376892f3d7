"""Files of counts as people have them: a kind that is recognised by content, and a reader for each.

A reader gives an :class:`~celbo.formats.opened.Opened`: tables in memory, matrices by rows, on disk where the format
has rows (10x ``.h5``, loom) and in memory where it has none (text). AnnData and MuData are read by anndata.
"""

from pathlib import Path

from ..store.stores import open_hdf5
from .folders import inputs_in
from .loom import open_loom
from .mtx import open_mtx, types_beside
from .naming import no_modalities
from .opened import ORIENTATIONS, Opened, Reading
from .recognise import Kind, recognise
from .roots import Root, open_root, shared_obs
from .table import open_table
from .tenx_h5 import open_tenx, types_in

__all__ = [
    "ORIENTATIONS",
    "Kind",
    "Opened",
    "Reading",
    "Root",
    "inputs_in",
    "no_modalities",
    "open_other",
    "open_root",
    "recognise",
    "shared_obs",
    "types_of_features",
]

_IN_HDF5 = {Kind.TENX: open_tenx, Kind.LOOM: open_loom}
_OF_TEXT = {Kind.MTX: open_mtx, Kind.TABLE: open_table}


def open_other(path: Path, kind: Kind, reading: Reading) -> Opened | None:
    """Open a file of another format than AnnData's and MuData's; None for those.

    Parameters
    ----------
    path, kind
        What :func:`recognise` said.
    reading
        What the user says of it.

    Raises
    ------
    ValueError
        When something must be said that the file does not tell, or what is asked for is not there.
    DamagedDataError
        When the file is damaged.
    """
    if kind in _IN_HDF5:
        return _IN_HDF5[kind](path, open_hdf5(path), reading)
    return _OF_TEXT[kind](path, reading) if kind in _OF_TEXT else None


def types_of_features(path: Path, kind: Kind) -> list[str]:
    """Types of the features of a file of 10x, as ``"Gene Expression"`` and ``"Peaks"``; of other formats none."""
    if kind is Kind.TENX:
        with open_hdf5(path) as file:
            return types_in(path, file)
    return types_beside(path) if kind is Kind.MTX else []
