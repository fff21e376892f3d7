"""Two matrices of one shape read side by side, whatever each is stored as."""

from collections.abc import Iterator
from typing import Any

import scipy.sparse as sp

from .blocks import shape_of

__all__ = ["paired_rows"]

_ENTRIES = 2**22
"""Entries of a piece, were it dense: 16 MB of float32."""


def paired_rows(x: Any, y: Any) -> Iterator[tuple[int, sp.csr_array, sp.csr_array]]:
    """The same rows of both matrices, a piece at a time: number of the first, and the pieces.

    Parameters
    ----------
    x, y
        ``(n, g)`` each: dense, CSR or CSC, in memory, in a file or as a dask array.
    """
    n, g = shape_of(x)
    step = max(1, _ENTRIES // max(1, g))
    x, y = (one.tocsr() if sp.issparse(one) and one.format != "csr" else one for one in (x, y))
    for start in range(0, n, step):
        yield start, _csr(x[start : start + step]), _csr(y[start : start + step])


def _csr(rows: Any) -> sp.csr_array:
    computed = rows.compute() if hasattr(rows, "compute") else rows
    return sp.csr_array(computed)
