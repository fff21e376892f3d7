r"""Doublets: cells that were read as one, found by a classifier that knows simulated ones (Solo).

.. math::

    x^{\mathrm{sim}}_m &= x_{i_m} + x_{j_m}, \qquad i_m, j_m \sim \mathrm{Uniform}\{1, \dots, N\} \\
    h &= (E_q[z \mid x],\, \log \ell) \qquad \text{under a trained scVI} \\
    \mathcal{L} &= -\tfrac{1}{N + M} \sum_n \log q(y_n \mid h_n), \qquad
    y = \text{doublet for simulated cells, singlet for all others}

Dims: n cells, m simulated doublets, g genes, k latents.
Reference: Bernstein, Fong, Lam, Roy, Hendrickson and Kelley, Cell Systems 2020 (:cite:p:`Bernstein20`).
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from ...dataloaders.row_sources.source import RowSource
from ...module import Classifier
from ...module.base import BaseModuleClass

__all__ = ["DoubletClassifier", "draw_parents", "sums_of_pairs"]

_ROWS = 4096
"""Doublets made together: 4,096 x 2,000 genes are 32 MB of float32."""


class DoubletClassifier(Classifier, BaseModuleClass):  # type: ignore[misc]  # forward is the classifier's
    """Classifier of latents and log library sizes; all is :class:`~celbo.module.Classifier`'s."""


def draw_parents(n_cells: int, n_doublets: int, seed: int) -> np.ndarray:
    """Two cells for each doublet, with replacement: ``(m, 2)`` row numbers, scvi-tools' own for the same seed."""
    return np.random.RandomState(seed).choice(n_cells, size=(n_doublets, 2))


def sums_of_pairs(source: RowSource, parents_m2: np.ndarray) -> sp.csr_matrix:
    """Counts of each pair of cells added up.

    Parameters
    ----------
    source
        Rows of counts, ``(n, g)``.
    parents_m2
        Row numbers.

    Returns
    -------
    ``(m, g)`` CSR of float32; memory stays bounded while it is made.
    """
    return sp.vstack(list(_blocks(source, parents_m2)), format="csr")


def _blocks(source: RowSource, parents_m2: np.ndarray) -> Iterator[sp.csr_matrix]:
    for start in range(0, len(parents_m2), _ROWS):
        first_n, second_n = np.ascontiguousarray(parents_m2[start : start + _ROWS].T)
        yield sp.csr_matrix(source.take(first_n).add_(source.take(second_n)).numpy())
