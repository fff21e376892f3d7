r"""What surrounds a cell: the types of its neighbours, and their mean state, without a loop over cells.

.. math:: \alpha_{nc} = \frac{|\{m : y_m = c\}|}{M}, \qquad
          \eta_{nc} = \frac{1}{|\{m : y_m = c\}|} \sum_{m : y_m = c} e_m

over the M nearest cells m of cell n, with types y and embedding e.

Dims: n cells, m neighbours, c cell types, e dimensions of the embedding.
"""

import numpy as np
import scipy.sparse as sp

__all__ = ["niche_composition", "niche_state"]


def _counts(index_nm: np.ndarray, type_n: np.ndarray, n_types: int) -> tuple[np.ndarray, np.ndarray]:
    """Place of each neighbour among cells times types, ``(n, m)``, and how many share it, ``(n, c)``."""
    place_nm = type_n[index_nm] + n_types * np.arange(len(index_nm))[:, None]
    counts = np.bincount(place_nm.ravel(), minlength=n_types * len(index_nm))
    return place_nm, counts.reshape(len(index_nm), n_types)


def niche_composition(index_nm: np.ndarray, type_n: np.ndarray, n_types: int) -> np.ndarray:
    """Shares of the types among each cell's neighbours, ``(n, c)`` float64, rows that sum to 1.

    Parameters
    ----------
    index_nm
        Row numbers of the neighbours.
    type_n
        Code of each cell's type, ``(n,)``.
    n_types
        How many types there are.
    """
    return _counts(index_nm, type_n, n_types)[1] / index_nm.shape[1]


def niche_state(index_nm: np.ndarray, type_n: np.ndarray, n_types: int, embedding_ne: np.ndarray) -> np.ndarray:
    """Mean embedding of each cell's neighbours of each type, ``(n, c, e)``; zeros where there are none.

    Parameters
    ----------
    index_nm, type_n, n_types
        See :func:`niche_composition`.
    embedding_ne
        Embedding of all cells.
    """
    n = len(index_nm)
    place_nm, counts_nc = _counts(index_nm, type_n, n_types)
    weights = 1 / counts_nc.ravel()[place_nm.ravel()]
    averaging = sp.csr_array((weights, (place_nm.ravel(), index_nm.ravel())), shape=(n * n_types, n))
    return (averaging @ embedding_ne).reshape(n, n_types, -1)
