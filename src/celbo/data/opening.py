"""``celbo.data.open``: AnnData from one file or many, loaded where it fits in memory and streamed where it does not.

Dims: n cells of all files, g genes in common.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import checked
from ..core.argument_names import NAMES
from ..core.kinds import OneOf, Several
from ..core.process import give_back_free_blocks
from ..formats import ORIENTATIONS, Opened, Reading, no_modalities
from ..store import mapped as scratch
from ..store.damage import naming_damage
from ..store.matrices.matrix import StoredMatrix, columns_of
from ..store.memory import available_memory, readable_bytes
from ..store.part import ColumnsError
from ..store.tables.names import names_of
from ..store.tables.obs import StoredTable, with_old_categories
from ..store.tables.stacked import stacked_obs
from .genes import align_genes
from .inputs import Input, input_paths, open_input
from .reading import read_as

__all__ = ["fits_said", "in_memory", "is_streamed", "of_genes", "open", "streamed", "with_genes"]

logger = logging.getLogger("celbo")

SHARE = 0.4
"""Part of the available memory that data may take to be loaded: setup and training need some, and so do others."""


@checked
def open(
    inputs: Annotated[str | Path | Sequence[str | Path], Several(NAMES["path"], or_none_of_it=True)],
    *,
    stream: bool | None = None,
    layers: Sequence[str] | None = None,
    raw: bool | None = None,
    modality: str | None = None,
    orientation: Annotated[str, OneOf(ORIENTATIONS)] | None = None,
) -> AnnData:
    """Open counts from files of any kind that :func:`celbo.data.read` reads, without reading what does not fit in
    memory.

    Parameters
    ----------
    inputs
        A file, several, or a folder of files. Cells of several follow one another; genes are matched by name, those
        that all files have are kept, in the first file's order.
    stream
        Leave the matrices on disk (those of text are in memory anyway). None: unless they take less than 40% of the
        available memory; which it was is logged, save for data under 1% of it.
    layers
        Layers to open beside ``X``; None: all (of all files).
    raw
        Whether to open ``raw`` where it is streamed, with its own genes; None: if all files have it. A single file that
        is loaded is loaded with it.
    modality, orientation
        As of :func:`celbo.data.read`, for all inputs that have modalities or are tables.

    Returns
    -------
    AnnData whose ``X`` and layers are a :class:`~celbo.data.StoredMatrix` (or matrices in memory); models are set up
    with it and trained on it like any other. ``var`` is in memory; so is ``obs``, save that of 262,144 cells and more
    which are streamed: there its numbers and categories are mapped from a temporary file, and its index is compact text
    that turns into plain strings as soon as some of it are taken. Of a single file ``uns``, ``obsm`` and
    ``varm`` are there too, and everything else when it is loaded. Of several files ``obs`` has the columns that all
    have, with the union of their categories, and ``var`` is the first's.

    Raises
    ------
    FileNotFoundError, ValueError
        Nothing there, another kind of file, damaged files, no gene in common.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    reading, paths = Reading(layers, modality, orientation, raw), input_paths(inputs)
    if stream is False and len(paths) == 1:
        return read_as(paths[0], reading)
    try:
        opened = [open_input(path, reading) for path in paths]
    except ColumnsError:
        if stream is None and len(paths) == 1 and _fits(paths[0].stat().st_size):
            logger.info("%s cannot be streamed as it is stored: it is loaded.", paths[0])
            return read_as(paths[0], reading)
        raise
    if modality is not None and not any(one.has_modalities for one in opened):
        raise no_modalities(paths[0], modality)
    if stream is None:
        stream = not fits_said(sum(one.loaded_bytes for one in opened), paths)
    if stream:
        return streamed(opened)
    if len(opened) == 1:
        return opened[0].loaded() if isinstance(opened[0], Opened) else read_as(paths[0], reading)
    return in_memory(streamed(opened, may_compact=False))


def of_genes(adata: AnnData, is_wanted_g: np.ndarray, of_raw: bool = False) -> AnnData:
    """As :func:`with_genes`; of an AnnData in memory, all else is kept too, unless the genes are those of ``raw``."""
    if of_raw or is_streamed(adata):
        return with_genes(adata, is_wanted_g, of_raw=of_raw)
    return adata[:, is_wanted_g].copy()


def is_streamed(adata: AnnData) -> bool:
    """Whether a matrix of the AnnData lies on disk as :func:`open` leaves it."""
    in_raw = None if adata.raw is None else adata.raw.X
    return any(isinstance(x, StoredMatrix) for x in (adata.X, *adata.layers.values(), in_raw))


def with_genes(adata: AnnData, is_wanted_g: np.ndarray, *, of_raw: bool = False) -> AnnData:
    """A new AnnData with some of the genes, ``(g,)`` booleans; matrices on disk stay there, unread.

    ``obs`` is shared; of the rest, ``X``, layers and ``var`` are kept. With ``of_raw`` the genes are those of ``raw``,
    and nothing else is kept.
    """
    columns = np.flatnonzero(is_wanted_g)

    if of_raw:
        raw = {"X": columns_of(adata.raw.X, columns), "var": adata.raw.var.iloc[columns]}
        return _anndata(None, adata.obs, pd.DataFrame(index=pd.Index([], dtype=str)), {}, raw=raw)
    layers = {name: columns_of(x, columns) for name, x in adata.layers.items()}
    x = None if adata.X is None else columns_of(adata.X, columns)
    return _anndata(x, adata.obs, adata.var.iloc[columns], layers)


def _fits(size: int) -> bool:
    free = available_memory()
    return free is None or size < SHARE * free


def _is_small(size: int, free: int | None) -> bool:
    """Whether there is no question that it fits, so that nobody needs to be told."""
    return free is not None and size < free / 100


def fits_said(size: int, paths: Sequence[Path]) -> bool:
    """Whether matrices of so many bytes are to be loaded; says so in the log."""
    free, fits = available_memory(), _fits(size)
    what = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
    room = "an unknown amount" if free is None else readable_bytes(free)
    logger.log(
        logging.DEBUG if fits and _is_small(size, free) else logging.INFO,
        "%s would take %s in memory, %s is available: %s.",
        what,
        readable_bytes(size),
        room,
        "loaded" if fits else "streamed from disk",
    )
    return fits


def streamed(opened: Sequence[Input | Opened], may_compact: bool = True) -> AnnData:
    """Opened files as one AnnData whose matrices stay where they are."""
    compact = may_compact and sum(one.n_obs for one in opened) >= scratch.COMPACT_FROM
    if len(opened) == 1:
        matrices = {name: StoredMatrix([part]) for name, part in opened[0].matrices.items()}
        x = matrices.pop(None, None)
        obs, rest = opened[0].obs(compact), opened[0].rest()
        obs = obs.read() if isinstance(obs, StoredTable) else with_old_categories(obs, rest.get("uns", {}))
        with naming_damage(opened[0].path):
            var = with_old_categories(opened[0].var, rest.get("uns", {}))
            return _anndata(x, obs, var, matrices, raw=_raw(opened), **rest)
    columns, var = _common_genes([one.path for one in opened], [one.var for one in opened])
    in_all = [name for name in opened[0].matrices if all(name in one.matrices for one in opened)]
    stacked = {name: StoredMatrix([one.matrices[name] for one in opened], columns) for name in in_all}
    left_out = sorted(
        {str(name) for one in opened for name in one.matrices if name is not None} - set(map(str, in_all))
    )
    if left_out:
        logger.info("Layers that not all files have are left out: %s.", ", ".join(left_out))
    obs = stacked_obs([one.obs(compact) for one in opened], [one.path.stem for one in opened])
    x = stacked.pop(None, None)
    return _anndata(x, obs, var, stacked, raw=_raw(opened))


def _raw(opened: Sequence[Input | Opened]) -> dict[str, object] | None:
    """The rows of ``raw`` of all files, and its genes that all have; None where one has no ``raw``."""
    raws = [one.raw for one in opened if one.raw is not None]
    if not raws or len(raws) < len(opened):
        return None
    if len(raws) == 1:
        return {"X": StoredMatrix([raws[0][0]]), "var": raws[0][1]}
    columns, var = _common_genes([one.path for one in opened], [var for _, var in raws])
    return {"X": StoredMatrix([part for part, _ in raws], columns), "var": var}


def _anndata(x: object, obs: pd.DataFrame, var: pd.DataFrame, layers: dict, **rest: object) -> AnnData:
    """An AnnData that does not look up its cells' names for duplicates where they are compact: that would list them."""
    compact = names_of(obs.index) is not None
    if compact:
        give_back_free_blocks()  # of what the columns were read through
    with anndata.settings.override(check_uniqueness=not compact):
        return AnnData(x, obs=obs, var=var, layers=layers, **rest)


def in_memory(adata: AnnData) -> AnnData:
    """An AnnData that :func:`streamed` made, with its matrices in memory."""
    x = adata.X.to_memory() if adata.X is not None else None
    layers = {name: layer.to_memory() for name, layer in adata.layers.items()}
    raw = None if adata.raw is None else {"X": adata.raw.X.to_memory(), "var": adata.raw.var}
    obsm = {name: np.asarray(one) if isinstance(one, h5py.Dataset) else one for name, one in adata.obsm.items()}
    rest = {"uns": adata.uns, "obsm": obsm, "varm": dict(adata.varm)}
    return AnnData(x, obs=adata.obs, var=adata.var, layers=layers, raw=raw, **rest)


def _common_genes(
    paths: Sequence[Path], tables: Sequence[pd.DataFrame]
) -> tuple[list[np.ndarray | None], pd.DataFrame]:
    """Where each file has the genes that all have (None: as they lie), and those genes' table."""
    first = tables[0]
    if all(one.index.equals(first.index) for one in tables):
        return [None] * len(tables), first
    is_common = np.ones(len(first), dtype=bool)
    for one in tables[1:]:
        is_common &= first.index.isin(one.index)
    if not is_common.any():
        raise ValueError(
            f"{paths[0]} and the other files have no gene in common: its genes are {_some(first.index)}, those "
            f"of {paths[1]} are {_some(tables[1].index)}. Use one kind of names in all."
        )
    var = first[is_common]
    matches = [align_genes(one.index, var.index, where=f"var_names of {path}") for path, one in zip(paths, tables)]
    dropped = max(map(len, tables)) - len(var)
    logger.info(
        "Genes are matched by name: %d are in all files%s.",
        len(var),
        f", up to {dropped} others are not used" if dropped else "",
    )
    return [match.indexer for match in matches], var


def _some(names: pd.Index) -> str:
    return ", ".join(repr(str(name)) for name in names[:3]) + (", ..." if len(names) > 3 else "")
