"""Files of AnnData, opened but not read: their tables, and their matrices where they lie."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import unknown_name
from ..formats import Opened, Reading, Root, inputs_in, open_other, open_root, recognise, shared_obs
from ..store.damage import DamagedDataError, naming_damage
from ..store.part import ColumnsError, StoredPart, is_group
from ..store.parts import Parts
from ..store.tables.obs import StoredTable, can_stay, length_of
from .access import which_layer

__all__ = ["Input", "input_paths", "open_input", "open_place"]

logger = logging.getLogger("celbo")


def input_paths(inputs: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that are meant: files themselves, stores and folders of one matrix, or folders of such (by name).

    Raises
    ------
    FileNotFoundError
        When there is nothing at a path.
    ValueError
        For a folder without anything that is read here, or a file named twice.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not given:
        raise ValueError("No file is named: give one of counts, several of them, or a folder of them.")
    paths = [path for one in given for path in _paths_of(Path(one))]
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is named more than once: its cells would count twice.")
    return paths


def _paths_of(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    return inputs_in(path) if path.is_dir() else [path]


@dataclass(eq=False)
class Input:
    """One opened file.

    Attributes
    ----------
    path
        Where it lies.
    place
        Its h5py or zarr group, open for reading; of MuData a modality's.
    var
        Table of the genes, in memory.
    matrices
        ``X`` under None, layers by name; nothing of them is read.
    raw
        The matrix of ``raw`` and the table of its genes, where it was asked for and there is one.
    """

    path: Path
    place: Root
    var: pd.DataFrame
    matrices: Mapping[str | None, StoredPart] = field(default_factory=dict)
    raw: tuple[StoredPart, pd.DataFrame] | None = None

    @property
    def root(self) -> Any:
        """The group."""
        return self.place.group

    @property
    def has_modalities(self) -> bool:
        """Whether it is part of MuData."""
        return self.place.has_modalities

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        with naming_damage(self.path):
            obs = self.root["obs"]
            return length_of(obs[obs.attrs["_index"]]) if is_group(obs) else int(obs.shape[0])

    def obs(self, compact: bool = False) -> StoredTable | pd.DataFrame:
        """The table of the cells, in memory or, if ``compact``, where it lies."""
        parts = Parts(self.root, self.path)
        if self.has_modalities:
            own = parts.table("obs")
            return own.join(shared_obs(self.path, self.place, own.index, own.columns))
        if not compact or not can_stay(self.root["obs"]):
            return parts.table("obs")
        parts.count_in("obs")
        return StoredTable(self.root["obs"], self.path)

    @property
    def loaded_bytes(self) -> int:
        """What its matrices would take in memory."""
        parts = [*self.matrices.values(), *([self.raw[0]] if self.raw is not None else [])]
        return sum(part.n_entries * (part.dtype.itemsize + 4) for part in parts)

    def rest(self) -> dict[str, Any]:
        """``uns`` in memory, and ``obsm`` and ``varm`` (dense arrays of ``obsm`` as they lie on disk), if readable."""
        parts, n, g = Parts(self.root, self.path), self.n_obs, len(self.var)
        return {
            "uns": parts.optional("uns"),
            "varm": parts.optional("varm", (g,)),
            "obsm": parts.optional("obsm", (n,), where_it_lies=True),
        }


def open_input(path: Path, reading: Reading | None = None) -> Input | Opened:
    """Open a file: its tables are read, its matrices are not, where the format lets them lie.

    Parameters
    ----------
    path
        A file, a zarr store, or a folder of one matrix.
    reading
        Layers to open beside ``X`` (None: all that are stored by rows), and what the file does not tell.

    Raises
    ------
    ColumnsError
        When ``X``, or a layer (or ``raw``) that was asked for, is stored by columns.
    DamagedDataError
        When it is damaged, cut short, or no AnnData.
    KeyError
        For a layer that is not there.
    ValueError
        When it is of a format that is not read here, or something must be said that it does not tell.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    reading = reading or Reading()
    kind = recognise(path)
    other = open_other(path, kind, reading)
    if other is not None:
        return other
    return open_place(path, open_root(path, kind, reading.modality), reading)


def open_place(path: Path, place: Root, reading: Reading) -> Input:
    """As :func:`open_input`, of a group that is open.

    Raises a ``KeyError`` for a layer that is not there, a ``ValueError`` where ``X`` is wanted and missing.
    """
    parts, layers = Parts(place.group, path), reading.layers
    var, stored = parts.table("var"), parts.keys("layers")
    for name in layers or ():
        if name not in stored:
            raise KeyError(f"{path}: {unknown_name('layer', name, stored)}")
    if not (len(var) or stored or reading.raw or parts.has("X")):
        raise ValueError(
            f"{path} holds no counts and no genes, as files of latents and of predictions do: "
            "name the file with the counts of these cells."
        )
    if layers is not None and not layers and not reading.raw and not parts.has("X"):
        raise ValueError(f"{path} has no X. {which_layer(stored)}")
    opened = Input(path, place, var, _matrices(path, place.group, stored, layers), _raw(parts, reading.raw))
    _require_shapes(opened)
    return opened


def _matrices(
    path: Path, root: object, stored: Sequence[str], layers: Sequence[str] | None
) -> dict[str | None, StoredPart]:
    """``X``, where there is one, and the layers that are wanted and can be read by rows."""
    parts = Parts(root, path)
    matrices: dict[str | None, StoredPart] = {}
    if parts.has("X"):
        matrices[None] = parts.stored("X")
    for name in stored if layers is None else layers:
        try:
            matrices[name] = parts.stored(f"layers/{name}")
        except ColumnsError as error:
            if layers is not None:
                raise
            logger.info("Left out: %s", error)
        except (DamagedDataError, TypeError) as error:
            if layers is not None:
                raise
            parts.warn(f"layers/{name}", error)
    return matrices


def _raw(parts: Parts, wanted: bool | None) -> tuple[StoredPart, pd.DataFrame] | None:
    """``raw``, if it is wanted, there and can be read by rows; one that is asked for must be all that."""
    if wanted is False or (wanted is None and not parts.has_raw()):
        return None
    try:
        return parts.stored_raw()
    except ColumnsError as error:
        if wanted:
            raise
        logger.info("Left out: %s", error)
    except (DamagedDataError, TypeError) as error:
        if wanted:
            raise
        parts.warn("raw", error)
    return None


def _require_shapes(opened: Input) -> None:
    n, g = opened.n_obs, len(opened.var)
    for name, part in opened.matrices.items():
        if part.shape != (n, g):
            raise DamagedDataError(
                f"{opened.path}: {'X' if name is None else f'layer {name!r}'} is {part.shape[0]} x {part.shape[1]}, "
                f"but obs has {n} rows and var {g}. The file is damaged: copy it again."
            )
    if opened.raw is not None and opened.raw[0].shape != (n, len(opened.raw[1])):
        part, var = opened.raw
        raise DamagedDataError(
            f"{opened.path}: raw is {part.shape[0]} x {part.shape[1]}, but obs has {n} rows and the genes of raw are "
            f"{len(var)}. The file is damaged: copy it again."
        )
