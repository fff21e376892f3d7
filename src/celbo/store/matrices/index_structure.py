"""Whether the arrays of a sparse matrix fit each other, looked at before compiled code walks along them.

Neither scipy, numba nor anndata looks: a row pointer or a column out of range makes them read and write outside of
their arrays. Three passes over the pointers, and one over the indices: about 30 ms for 10**8 entries.
"""

from typing import Any

import numpy as np
from scipy import sparse

from ..damage import DamagedDataError

__all__ = ["check_index_structure", "check_sparse", "check_stored_columns", "first_outside", "index_fault"]

_PIECE = 2**20
"""Indices that are compared at once when the first bad one is looked for."""


def index_fault(
    indptr: np.ndarray, indices: np.ndarray, n_values: int, shape: tuple[int, int], by_column: bool = False
) -> str | None:
    """What is wrong with the arrays of a CSR (or CSC) matrix, as the end of a sentence; None where nothing is.

    Parameters
    ----------
    indptr, indices
        scipy's arrays.
    n_values
        Length of the third one, ``data``.
    shape
        Rows and columns.
    by_column
        Whether it is CSC.
    """
    n_major, n_minor = shape[::-1] if by_column else shape
    line, across = ("column", "row") if by_column else ("row", "column")
    for name, array in (("indptr", indptr), ("indices", indices)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            return f"its {name} is {array.dtype} of {array.ndim} dimensions, not whole numbers in one"
    if len(indptr) != n_major + 1:
        return f"it has {len(indptr)} {line} pointers, {n_major} {line}s need {n_major + 1}"
    if indptr[0] != 0:
        return f"its first {line} begins at entry {indptr[0]}, not at 0"
    descends = indptr[1:] < indptr[:-1]
    if descends.any():
        i = int(descends.argmax())
        return f"{line} {i} begins at entry {indptr[i]} and ends before, at {indptr[i + 1]}"
    n_stored = min(len(indices), n_values)
    if indptr[-1] > n_stored:
        i = int(np.searchsorted(indptr, n_stored, side="right")) - 1
        return f"{line} {i} ends at entry {indptr[i + 1]}, but {n_values} values and {len(indices)} indices are there"
    bad = first_outside(indices[: int(indptr[-1])], n_minor)
    if bad is None:
        return None
    i = int(np.searchsorted(indptr, bad, side="right")) - 1
    return f"{line} {i} has an entry in {across} {indices[bad]}, there are {n_minor} {across}s"


def first_outside(indices: np.ndarray, limit: int) -> int | None:
    """Position of the first index that is negative or ``limit`` or more; None where there is none."""
    unsigned = indices.view(indices.dtype.str.replace("i", "u"))  # negative ones are large: one pass instead of two
    if not len(unsigned) or unsigned.max() < limit:
        return None
    for start in range(0, len(unsigned), _PIECE):
        is_bad = unsigned[start : start + _PIECE] >= limit
        if is_bad.any():
            return start + int(is_bad.argmax())
    return None


def check_index_structure(
    indptr: np.ndarray,
    indices: np.ndarray,
    shape: tuple[int, int],
    where: str,
    *,
    n_values: int | None = None,
    by_column: bool = False,
) -> None:
    """Make sure that the arrays of a stored CSR (or CSC) matrix fit each other and its shape, to the last entry.

    Parameters
    ----------
    indptr, indices, n_values, by_column
        As for :func:`index_fault`; ``n_values`` None: as many as indices.
    shape
        Rows and columns.
    where
        How the message calls it: the file, and the matrix in it.

    Raises
    ------
    DamagedDataError
        With ``where`` and the first row (or column) that is wrong.
    """
    n_values = len(indices) if n_values is None else n_values
    fault = index_fault(indptr, indices, n_values, shape, by_column)
    if fault is None and not int(indptr[-1]) == len(indices) == n_values:
        fault = f"its pointers end at entry {indptr[-1]}, but {n_values} values and {len(indices)} indices are there"
    if fault is not None:
        raise DamagedDataError(f"{where} is damaged: {fault}. Copy the file again, or write it once more.")


def check_stored_columns(group: Any, shape: tuple[int, int], where: str) -> None:
    """As :func:`check_index_structure`, for the group of a CSC matrix on disk, its indices a piece at a time.

    Parameters
    ----------
    group
        Of h5py or zarr, with ``indptr``, ``indices`` and ``data``.
    shape
        Rows and columns.
    where
        How the message calls it.

    Raises
    ------
    DamagedDataError
        The arrays do not fit each other or the shape.
    """
    indptr, indices, n_values = np.asarray(group["indptr"][:]), group["indices"], int(group["data"].shape[0])
    n = int(indices.shape[0])
    nothing = np.broadcast_to(np.zeros(1, indices.dtype), n)  # only its length counts
    check_index_structure(indptr, nothing, shape, where, n_values=n_values, by_column=True)
    for start in range(0, n, _PIECE):
        piece = np.asarray(indices[start : start + _PIECE])
        if (bad := first_outside(piece, shape[0])) is not None:
            column = int(np.searchsorted(indptr, start + bad, side="right")) - 1
            raise DamagedDataError(
                f"{where} is damaged: column {column} has an entry in row {piece[bad]}, there are {shape[0]} rows."
            )


def check_sparse(matrix: Any, where: str = "The sparse matrix") -> None:
    """Make sure that compiled code can walk along a scipy matrix in memory: CSR, CSC or COO; others are left alone.

    Parameters
    ----------
    matrix
        Of scipy. Arrays longer than needed are scipy's way to keep room, and right.
    where
        How the message calls it.

    Raises
    ------
    ValueError
        With the first row (or column) that is wrong.
    """
    fault = None
    if not sparse.issparse(matrix) or len(matrix.shape) != 2:
        return
    if matrix.format in ("csr", "csc"):
        is_csc = matrix.format == "csc"
        fault = index_fault(matrix.indptr, matrix.indices, len(matrix.data), matrix.shape, is_csc)
    elif matrix.format == "coo":
        fault = _coordinate_fault(matrix)
    if fault is not None:
        raise ValueError(f"{where} is damaged: {fault}. Read or make it again; scipy does not look when one is made.")


def _coordinate_fault(matrix: Any) -> str | None:
    for name, index, length in zip(("row", "column"), (matrix.row, matrix.col), matrix.shape):
        if index.dtype.kind not in "iu" or len(index) != len(matrix.data):
            return f"its {name}s are {len(index)} of {index.dtype} for {len(matrix.data)} values"
        bad = first_outside(index, length)
        if bad is not None:
            return f"entry {bad} is in {name} {index[bad]}, there are {length} {name}s"
    return None
