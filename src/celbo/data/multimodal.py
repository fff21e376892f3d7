"""MuData from a file: loaded, or with its matrices on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import checked, optional
from ..formats import Kind, Reading, Root, recognise
from ..formats.roots import open_whole
from ..store.damage import naming_damage
from ..store.parts import Parts
from .inputs import Input, open_place
from .opening import fits_said, streamed

__all__ = ["open_mudata", "read_mudata"]

_WHOLE = ("obsm", "varm", "obsp", "varp", "obsmap", "varmap")


@checked
def read_mudata(path: str | Path) -> Any:
    """Read a MuData into memory, checked as :func:`celbo.data.read` checks an AnnData.

    Parameters
    ----------
    path
        ``.h5mu``, or a zarr store of MuData (zipped too).

    Returns
    -------
    The MuData, its cells and modalities in the order of the file.

    Raises
    ------
    FileNotFoundError
        When there is nothing at that path.
    ValueError
        When it is no MuData, or a damaged one.
    ModuleNotFoundError
        When mudata (or zarr) is not installed, with the pip line.
    """
    path = Path(path)
    whole = _open(path)
    try:
        modalities = {key: Parts(whole["mod"][key], path).anndata() for key in _order(whole, path)}
        return _mudata(whole, path, modalities)
    finally:
        if isinstance(whole, h5py.Group):
            whole.file.close()


@checked
def open_mudata(path: str | Path, *, stream: bool | None = None) -> Any:
    """Open a MuData without reading matrices that do not fit in memory.

    Parameters
    ----------
    path
        As of :func:`read_mudata`.
    stream
        Leave the matrices of all modalities on disk. None: unless together they take less than 40% of the available
        memory.

    Returns
    -------
    MuData whose modalities are as :func:`celbo.data.open` leaves an AnnData: models are set up with it and trained on
    it, a minibatch at a time, all modalities of a cell in the same minibatch.

    Raises
    ------
    FileNotFoundError, ValueError, ModuleNotFoundError
        As :func:`read_mudata`; also when a matrix is stored by columns, which cannot be streamed.
    """
    path = Path(path)
    if stream is False:
        return read_mudata(path)
    whole = _open(path)
    opened = {key: open_place(path, Root(whole["mod"][key]), Reading()) for key in _order(whole, path)}
    if stream is None and fits_said(sum(one.loaded_bytes for one in opened.values()), [path]):
        return read_mudata(path)
    return _mudata(whole, path, {key: _streamed(one) for key, one in opened.items()})


def _streamed(opened: Input) -> AnnData:
    return streamed([opened], may_compact=False)


def _open(path: Path) -> Any:
    optional("mudata", extra="mudata", purpose="MuData")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    kind = recognise(path)
    whole = open_whole(path, kind) if kind in (Kind.HDF5, Kind.ZARR, Kind.ZIP) else {}
    with naming_damage(path):
        if "mod" not in whole:
            raise ValueError(f"{path} holds no MuData, which has modalities: celbo.data.read reads what it is.")
    return whole


def _order(whole: Any, path: Path) -> list[str]:
    """Names of the modalities, in the order that was written down if it names them all."""
    with naming_damage(path):
        there = sorted(str(name) for name in whole["mod"])
        told = [str(name) for name in np.asarray(whole["mod"].attrs.get("mod-order", []), dtype=object).ravel()]
    return told if sorted(told) == there else there


def _mudata(whole: Any, path: Path, modalities: Mapping[str, AnnData]) -> Any:
    mudata = optional("mudata", extra="mudata", purpose="MuData")
    parts = Parts(whole, path)
    tables: dict[str, pd.DataFrame] = {name: parts.table(name) for name in ("obs", "var")}
    rest = {name: parts.optional(name) for name in (*_WHOLE, "uns")}
    with mudata.set_options(pull_on_update=False), naming_damage(path):
        return mudata.MuData(dict(modalities), **tables, **rest, axis=int(whole.attrs.get("axis", 0)))
