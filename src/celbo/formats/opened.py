"""What the reader of a format gives: tables in memory, matrices by rows."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from ..core import unknown_name
from ..store.allowance import Allowance
from ..store.damage import DamagedDataError
from ..store.matrices.rows import Rows

__all__ = ["ORIENTATIONS", "Opened", "Reading", "wanted_layers"]

ORIENTATIONS = ("genes-by-cells", "cells-by-genes")
"""What a table may be."""

logger = logging.getLogger("celbo")


@dataclass(frozen=True)
class Reading:
    """What the user says of a file that the file does not.

    Parameters
    ----------
    layers
        Layers to open beside ``X``; None: all.
    modality
        Modality of MuData, type of feature or genome of a 10x file.
    orientation
        Of a table or a nameless matrix: ``"genes-by-cells"`` or ``"cells-by-genes"``.
    raw
        Whether to open ``raw``, which must be there; None: if it is. Only AnnData has it.
    is_part
        Other readings take the features of other types, so that nothing is said of what is left out.

    Raises
    ------
    ValueError
        For another orientation.
    """

    layers: Sequence[str] | None = None
    modality: str | None = None
    orientation: str | None = None
    raw: bool | None = None
    is_part: bool = False

    def __post_init__(self) -> None:
        if self.orientation not in (None, *ORIENTATIONS):
            raise ValueError(unknown_name("orientation", self.orientation, ORIENTATIONS))


@dataclass(eq=False)
class Opened:
    """One file of a format other than AnnData's, opened.

    Attributes
    ----------
    path
        Where it lies.
    table
        Table of the cells.
    var
        Table of the genes.
    matrices
        ``X`` under None, layers by name.
    arrays
        ``obsm``: ``(n, ...)`` arrays by name.
    has_modalities
        Whether ``modality=`` chose something.
    whole
        Group of HDF5 whose arrays are read whole when it is loaded, which are counted in before.
    raw
        None: only AnnData has it.
    """

    path: Path
    table: pd.DataFrame
    var: pd.DataFrame
    matrices: Mapping[str | None, Rows]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    has_modalities: bool = False
    whole: Any = None
    raw: None = None

    def __post_init__(self) -> None:
        n, g = self.n_obs, len(self.var)
        for name, rows in self.matrices.items():
            if rows.shape != (n, g):
                raise DamagedDataError(
                    f"{self.path}: {'the matrix' if name is None else f'layer {name!r}'} has {rows.shape[0]} cells and "
                    f"{rows.shape[1]} genes, but there are {n} names of cells and {g} of genes. The file is damaged or "
                    "not complete: copy it again."
                )

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.table)

    @property
    def loaded_bytes(self) -> int:
        """What its matrices would take in memory."""
        return sum(rows.n_nonzero * (rows.dtype.itemsize + 4) for rows in self.matrices.values())

    def obs(self, compact: bool = False) -> pd.DataFrame:
        """The table of the cells; it is in memory anyway."""
        return self.table

    def rest(self) -> dict[str, Any]:
        """What an AnnData has beside tables and matrices."""
        return {"obsm": dict(self.arrays)} if self.arrays else {}

    def loaded(self) -> AnnData:
        """All of it in memory."""
        if self.whole is not None:
            Allowance(self.path).require(self.whole)
        matrices = {name: sparse.csr_matrix(rows.read(0, self.n_obs)) for name, rows in self.matrices.items()}
        x = matrices.pop(None, None)
        return AnnData(x, obs=self.table, var=self.var, layers=matrices, **self.rest())


def wanted_layers(path: Path, stored: Sequence[str], layers: Sequence[str] | None) -> list[str]:
    """The layers to open, of those that are stored.

    Raises
    ------
    KeyError
        For one that is not there.
    """
    for name in layers or ():
        if name not in stored:
            raise KeyError(f"{path}: {unknown_name('layer', name, stored)}")
    return list(stored if layers is None else layers)
