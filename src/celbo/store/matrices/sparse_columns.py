"""Columns of sparse rows put elsewhere, or left out, without a copy of the matrix.

Dims: h columns as stored, g columns that come out.
"""

import numpy as np
from scipy import sparse

__all__ = ["moved_columns", "place_of_columns"]


def place_of_columns(columns_g: np.ndarray, n_stored: int) -> np.ndarray:
    """Column in which each stored column comes out, ``(h,)`` int32, -1 where it does not.

    Parameters
    ----------
    columns_g
        Stored column of each column that comes out, -1 for one of zeros.
    n_stored
        Number of stored columns.
    """
    place_h = np.full(n_stored, -1, np.int32)
    given = np.flatnonzero(columns_g >= 0)
    place_h[columns_g[given]] = given
    return place_h


def moved_columns(block: sparse.csr_matrix | sparse.csr_array, place_h: np.ndarray, n_columns: int) -> sparse.csr_array:
    """Rows ``(n, n_columns)`` with the entries in the columns ``place_h`` gives them, left out where it gives -1."""
    data, indices, indptr = block.data, place_h[block.indices], block.indptr
    keep = indices >= 0
    if not keep.all():
        data, indices = data[keep], indices[keep]
        indptr = np.concatenate([[0], np.cumsum(keep)])[indptr]
    return sparse.csr_array((data, indices, indptr), shape=(block.shape[0], n_columns))
