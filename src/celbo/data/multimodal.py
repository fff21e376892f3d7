"""MuData from a file: loaded, or with its matrices on disk."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..core import checked, optional, unknown_name
from ..core.argument_names import NAMES
from ..core.kinds import Several
from ..formats import Kind, Reading, Root, recognise, types_of_features
from ..formats.naming import listed
from ..formats.roots import open_whole
from ..store.damage import naming_damage
from ..store.parts import Parts
from .inputs import Input, input_paths, open_input, open_place
from .modality_roles import PROTEIN, RNA, name_of_type, role_of
from .opening import fits_said, in_memory, of_genes, streamed
from .opening import open as open_anndata

__all__ = ["feature_tables", "joined", "open_mudata", "read_mudata"]

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
    with _closing(_open(path)) as whole:
        modalities = {key: Parts(whole["mod"][key], path).anndata() for key in _order(whole, path)}
        return _mudata(whole, path, modalities)


@checked
def open_mudata(
    inputs: Annotated[str | Path | Sequence[str | Path], Several(NAMES["path"], or_none_of_it=True)],
    *,
    stream: bool | None = None,
    tables: Sequence[str] = (),
) -> Any:
    """Open a MuData without reading matrices that do not fit in memory.

    Parameters
    ----------
    inputs
        As of :func:`read_mudata`. Or a file of 10x (several: their cells follow one another) with several types of
        features, each of which becomes a modality: ``"rna"`` (Gene Expression), ``"protein"`` (Antibody Capture),
        ``"atac"`` (Peaks), others under the name of their type. Or an AnnData whose ``var["feature_types"]`` has
        several, or with proteins in ``obsm``.
    stream
        Leave the matrices of all modalities on disk. None: unless together they take less than 40% of the available
        memory.
    tables
        Entries of the ``obsm`` of an AnnData that become modalities; those that are named as proteins do so anyway.

    Returns
    -------
    MuData whose modalities are as :func:`celbo.data.open` leaves an AnnData: models are set up with it and trained on
    it, a minibatch at a time, all modalities of a cell in the same minibatch.

    Raises
    ------
    FileNotFoundError, ValueError, ModuleNotFoundError
        As :func:`read_mudata`; also when a matrix is stored by columns, which cannot be streamed.
    """
    optional("mudata", extra="mudata", purpose="MuData")
    paths = input_paths(inputs)
    types = types_of_features(paths[0], recognise(paths[0]))
    if types:
        return _of_types(paths, types, stream)
    if len(paths) > 1:
        raise ValueError(
            f"{paths[0]} and {len(paths) - 1} more: several files are opened as one MuData if they are of 10x. Join "
            "MuData by mudata.concat, and write one file."
        )
    path = paths[0]
    if not _is_mudata(path):
        return _of_anndata(path, stream, tables)
    if stream is False:
        return read_mudata(path)
    whole = _open(path)
    opened = {key: open_place(path, Root(whole["mod"][key]), Reading()) for key in _order(whole, path)}
    if stream is None and fits_said(sum(one.loaded_bytes for one in opened.values()), [path]):
        return read_mudata(path)
    return _mudata(whole, path, {key: _streamed(one) for key, one in opened.items()})


def feature_tables(path: Path) -> dict[str, pd.DataFrame]:
    """Table of the features of each modality of a MuData; of a file of 10x, a table that tells the type; else none."""
    types = types_of_features(path, recognise(path))
    if types or not _is_mudata(path):
        return {one: pd.DataFrame({"feature_types": [one]}) for one in types}
    with _closing(_open(path)) as whole:
        return {name: Parts(whole["mod"][name], path).table("var") for name in _order(whole, path)}


def _is_mudata(path: Path) -> bool:
    kind = recognise(path)
    if kind not in (Kind.HDF5, Kind.ZARR, Kind.ZIP):
        return False
    with _closing(open_whole(path, kind)) as whole, naming_damage(path):
        return "mod" in whole


@contextmanager
def _closing(whole: Any) -> Iterator[Any]:
    """A group of a file or store, which is closed at the end."""
    try:
        yield whole
    finally:
        if isinstance(whole, h5py.Group):
            whole.file.close()


def _of_types(paths: Sequence[Path], types: Sequence[str], stream: bool | None) -> Any:
    """A modality for each type of features of files of 10x."""
    if len(types) < 2:
        raise _one_modality(paths[0], f"features of type {types[0]!r} only")
    opened = {
        name_of_type(one): [open_input(path, Reading(modality=one, is_part=True)) for path in paths] for one in types
    }
    if stream is None:
        stream = not fits_said(sum(one.loaded_bytes for some in opened.values() for one in some), paths)
    modalities = {name: streamed(some, may_compact=False) for name, some in opened.items()}
    return joined(modalities if stream else {name: in_memory(one) for name, one in modalities.items()})


def _of_anndata(path: Path, stream: bool | None, tables: Sequence[str]) -> Any:
    """A modality for each type of features of an AnnData, or for its genes and each table of proteins."""
    adata = open_anndata(path, stream=stream)
    types = adata.var["feature_types"].astype(str) if "feature_types" in adata.var else None
    known = [] if types is None else types.unique()
    if len(known) > 1:
        return joined({name_of_type(one): of_genes(adata, (types == one).to_numpy()) for one in known})
    nothing = pd.DataFrame()
    for key in tables:
        if key not in adata.obsm:
            raise ValueError(f"{path}: {unknown_name('entry of obsm', key, adata.obsm)}")
    proteins = [key for key in adata.obsm if key in tables or role_of(key, nothing) == PROTEIN]
    if not proteins:
        raise _one_modality(path, f"an AnnData of one modality (entries of obsm: {listed(list(adata.obsm)) or 'none'})")
    rest = {key: _of_table(adata, key) for key in proteins}
    for key in proteins:
        del adata.obsm[key]
    return joined({RNA: adata, **rest})


def _of_table(adata: AnnData, key: str) -> AnnData:
    """An entry of ``obsm`` as a modality; names that do not stand beside it are looked for in ``uns``."""
    table = adata.obsm[key]
    if isinstance(table, pd.DataFrame):
        names: Any = table.columns.astype(str)
        x_np = table.to_numpy(np.float32)
    else:
        x_np = table.astype(np.float32) if sp.issparse(table) else np.asarray(table, np.float32)
        names = adata.uns.get("protein_names")
        if names is None or len(names) != x_np.shape[1]:
            names = [f"{key}_{i}" for i in range(x_np.shape[1])]
    return AnnData(x_np, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=pd.Index(names).astype(str)))


def _one_modality(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} holds no MuData, which has modalities, but {what}: celbo.data.read reads it.")


def joined(modalities: Mapping[str, AnnData]) -> Any:
    """A MuData of these modalities; cells of the same name are the same cell."""
    mudata = optional("mudata", extra="mudata", purpose="MuData")
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a gene and a protein share a name, which setup says
        return mudata.MuData(dict(modalities))


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
