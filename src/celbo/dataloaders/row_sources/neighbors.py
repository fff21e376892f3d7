"""Counts of the nearest cells of each cell, gathered from the table that has them once.

Dims: n cells, m neighbours, g genes.
"""

import numpy as np

from .source import RowSource

__all__ = ["NeighborRows"]


class NeighborRows(RowSource):
    """A row for each cell: the rows of its neighbours beside each other, ``(n, m * g)``.

    Parameters
    ----------
    source
        Rows of all cells.
    index_nm
        Row numbers of the neighbours, ``(n, m)``.

    Raises
    ------
    IndexError
        A row number that is not there.
    """

    def __init__(self, source: RowSource, index_nm: np.ndarray) -> None:
        if index_nm.min(initial=0) < 0 or index_nm.max(initial=-1) >= len(source):
            raise IndexError(
                f"Neighbours have row numbers up to {index_nm.max()}, and there are {len(source)} cells: they were "
                "found among other cells. Call setup_anndata again, which finds them."
            )
        super().__init__((len(index_nm), index_nm.shape[1] * source.n_columns), source.dtype)
        self._source, self._index_nm = source, index_nm

    def fill(self, rows_n: np.ndarray, out_ng: np.ndarray) -> None:
        """Write the neighbours of the cells ``rows_n`` over ``out_ng``."""
        rows_k = np.ascontiguousarray(self._index_nm[rows_n].reshape(-1), dtype=np.int64)
        self._source.fill(rows_k, out_ng.reshape(len(rows_k), -1))
