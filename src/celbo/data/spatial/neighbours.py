r"""The nearest cells in space, found once, exactly, within each section.

Dims: n cells, d coordinates, m neighbours.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ...core import ArgumentError
from .coordinates import named_cells, warn_of_shared_places

__all__ = ["Neighbours", "check_neighbours", "nearest_cells"]

_FAR = 1e-3


class Neighbours(NamedTuple):
    """The nearest cells of each cell.

    Attributes
    ----------
    index_nm
        Their row numbers, int64, the nearest first; a cell is not its own neighbour.
    distance_nm
        How far they are, float64, in the unit of the coordinates.
    """

    index_nm: np.ndarray
    distance_nm: np.ndarray


def nearest_cells(
    xy_nd: np.ndarray,
    n_neighbors: int,
    section_n: pd.Series | None,
    names: pd.Index,
    argument: str = "n_neighbors",
) -> Neighbours:
    """The nearest cells of each cell in its own section.

    Parameters
    ----------
    xy_nd
        Coordinates, ``(n, d)``.
    n_neighbors
        Neighbours of each cell.
    section_n
        Section of each cell, ``(n,)``; None: all lie in one.
    names
        Names of the cells, for messages.
    argument
        The argument that gave the number, for messages.

    Raises
    ------
    ArgumentError
        A section has too few cells, or cells have no section; names them.

    Warns
    -----
    UserWarning
        Cells of one section lie in one place.
    """
    group_n, sections = _groups(section_n, len(xy_nd), names)
    sizes = np.bincount(group_n, minlength=len(sections))
    small = np.flatnonzero(sizes <= n_neighbors)
    if len(small):
        listed = ", ".join(f"{sections[i]!r} ({sizes[i]} cells)" for i in small[:5])
        raise ArgumentError(
            f"Each cell needs {n_neighbors} neighbours in its own section ({argument}), so a section must have at "
            f"least {n_neighbors + 1} cells. Too small: {listed}. Leave these cells out, or ask for fewer neighbours."
        )
    warn_of_shared_places(names, xy_nd, group_n)
    index_nm = np.empty((len(xy_nd), n_neighbors), np.int64)
    distance_nm = np.empty((len(xy_nd), n_neighbors))
    for group in range(len(sections)):
        rows = np.flatnonzero(group_n == group)
        found = _of_one_section(xy_nd[rows], n_neighbors)
        index_nm[rows], distance_nm[rows] = rows[found.index_nm], found.distance_nm
    return Neighbours(index_nm, distance_nm)


def _groups(section_n: pd.Series | None, n: int, names: pd.Index) -> tuple[np.ndarray, list[str]]:
    if section_n is None:
        return np.zeros(n, np.int64), ["all cells"]
    codes, sections = pd.factorize(section_n)
    if (codes < 0).any():
        lost = np.flatnonzero(codes < 0)
        raise ArgumentError(
            f"{len(lost)} cells have no section in adata.obs[{section_n.name!r}]: {named_cells(names, lost)}. Give "
            "them one, or leave them out."
        )
    return codes, [str(section) for section in sections]


def _of_one_section(xy_nd: np.ndarray, m: int) -> Neighbours:
    """A cell is asked for one more than wanted, and taken out of its own answer, where it may come second."""
    distance_nq, index_nq = cKDTree(xy_nd).query(xy_nd, m + 1)
    is_other = index_nq != np.arange(len(xy_nd))[:, None]
    is_other[is_other.all(1), -1] = False  # so many lie in one place that the cell itself is not among the answers
    shape = (len(xy_nd), m)
    return Neighbours(index_nq[is_other].reshape(shape), distance_nq[is_other].reshape(shape))


def check_neighbours(
    index_nm: np.ndarray, distance_nm: np.ndarray, xy_nd: np.ndarray, names: pd.Index, cure: str, squared: bool = False
) -> None:
    """Raise unless stored neighbours are neighbours of these cells: as far away as they are said to be.

    Parameters
    ----------
    index_nm, distance_nm
        As :class:`Neighbours` has them.
    xy_nd
        Coordinates, ``(n, d)``.
    names
        Names of the cells, for messages.
    cure
        What to do, for the message.
    squared
        Whether the distances are squared.

    Raises
    ------
    ArgumentError
        Row numbers that are not there, or cells that lie elsewhere: rows were left out, added or moved since.
    """
    if index_nm.min(initial=0) < 0 or index_nm.max(initial=0) >= len(xy_nd):
        raise ArgumentError(
            f"Stored neighbours have row numbers up to {index_nm.max()}, and there are {len(xy_nd)} cells: they were "
            f"found among other cells. {cure}"
        )
    square_nm = np.zeros(index_nm.shape)
    for x_n in xy_nd.T:
        square_nm += np.square(x_n[index_nm] - x_n[:, None])
    now_nm = square_nm if squared else np.sqrt(square_nm)
    wrong = np.flatnonzero((np.abs(now_nm - distance_nm) > _FAR * (now_nm + distance_nm)).any(1))
    if len(wrong):
        raise ArgumentError(
            f"Stored neighbours of {len(wrong)} of {len(xy_nd)} cells lie elsewhere than their distances say: "
            f"{named_cells(names, wrong)}. Cells were left out, reordered or moved since they were found. {cure}"
        )
