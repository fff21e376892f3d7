"""The neighbours that models of scvi-tools 1.4.2 were trained with, for their archives.

There the matrix of distances is multiplied by itself where its entries should be squared, and a cell's neighbours are
the first in its row of the product: cells that two steps lead to, mostly not the nearest. The weights of an archive
belong to these.
"""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .neighbours import Neighbours, nearest_cells

__all__ = ["two_hop_cells"]

_MORE = 4


def two_hop_cells(xy_nd: np.ndarray, n_neighbors: int, section_n: pd.Series | None, names: pd.Index) -> Neighbours:
    """Neighbours and what scvi-tools 1.4.2 takes for their squared distances; arguments as of ``nearest_cells``."""
    near = nearest_cells(xy_nd, n_neighbors + _MORE, section_n, names)
    n, m = near.index_nm.shape
    starts = np.arange(0, n * m + 1, m)
    distances = sp.csr_matrix((near.distance_nm.ravel(), near.index_nm.ravel(), starts), shape=(n, n))
    product = distances @ distances
    first = product.indptr[:-1, None] + np.arange(n_neighbors)
    return Neighbours(product.indices[first].astype(np.int64), product.data[first])
