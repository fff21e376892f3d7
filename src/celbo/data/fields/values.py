"""Measured values that are no counts: finite, and in the range that their likelihood gives.

Dims: n cells, g features.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...store.matrices.blocks import DenseBlock, blocks, shape_of
from .layer import LayerField

__all__ = ["Faults", "ValuesField", "all_finite", "dense_rows", "find_faults"]

logger = logging.getLogger("celbo")

_ROWS = 2**13


class Faults(NamedTuple):
    """Numbers that must not be there."""

    n_values: int
    n_cells: int
    first_cell: int
    columns: np.ndarray
    value: float

    def told(self, adata: AnnData, names: Any, what: str = "features") -> str:
        """How many, where the first one is, and in which features."""
        listed = ", ".join(str(names[g]) for g in self.columns[:5]) + (", ..." if len(self.columns) > 5 else "")
        where = f"first in cell {adata.obs_names[self.first_cell]!r}: {self.value:.6g}"
        return f"{self.n_values:,} values of {self.n_cells:,} cells ({where}; {what} {listed})"


def dense_rows(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a matrix of any storage as dense blocks, with the number of the first.

    Raises a ``TypeError`` for a matrix that lies in a file by columns.
    """
    for block in blocks(x.tocsr() if sp.issparse(x) else x, _ROWS):
        if isinstance(block, DenseBlock):
            yield block.start, block.values
        elif block.by_column:
            raise TypeError("Values that lie in a file by columns (CSC) cannot be read by cells: write them dense.")
        else:
            shape = (block.stop - block.start, shape_of(x)[1])
            yield block.start, sp.csr_matrix((block.data, block.indices, block.indptr), shape).toarray()


def find_faults(x: Any, mask: Any, is_wrong: Callable[[np.ndarray], np.ndarray]) -> Faults | None:
    """What is wrong where the mask says that something was measured.

    Parameters
    ----------
    x
        Values, ``(n, g)``, of any storage.
    mask
        Above 0 where a value counts, of the same shape; None: everywhere.
    is_wrong
        Of dense rows: where a value is wrong.

    Returns
    -------
    None where nothing is.
    """
    n_values = n_cells = 0
    first: tuple[int, float] | None = None
    columns_g = np.zeros(shape_of(x)[1], bool)
    masks = None if mask is None else dense_rows(mask)
    for start, values_ng in dense_rows(x):
        wrong_ng = is_wrong(values_ng)
        if masks is not None:
            wrong_ng &= next(masks)[1] > 0
        if not wrong_ng.any():
            continue
        cells = np.flatnonzero(wrong_ng.any(1))
        n_values, n_cells, columns_g = n_values + int(wrong_ng.sum()), n_cells + len(cells), columns_g | wrong_ng.any(0)
        first = first or (start + int(cells[0]), float(values_ng[cells[0]][wrong_ng[cells[0]]][0]))
    return None if first is None else Faults(n_values, n_cells, first[0], np.flatnonzero(columns_g), first[1])


def all_finite(x: object) -> bool:
    """Whether every number of a matrix of any storage is finite, in one pass over what is stored of it."""
    return all(bool(np.isfinite(values).all()) for values in _stored(x))


def _look_like_counts(x: object) -> bool:
    """Whether what is stored first are whole numbers, none below zero, and more than zeros and ones."""
    values = next(_stored(x))
    return bool(((values == np.round(values)) & (values >= 0)).all()) and values.max(initial=0) > 1


def _stored(x: object) -> Iterator[np.ndarray]:
    """What is stored of a matrix of any storage, in pieces."""
    return (block.values if isinstance(block, DenseBlock) else block.data for block in blocks(x, _ROWS))


class ValuesField(LayerField):
    """Finite values that are no counts, in a layer, in ``X`` itself or in ``raw``.

    Parameters
    ----------
    layer
        The layer; None: ``X``.
    least
        Smallest value that may be; None: any number.
    cure
        What to do where a value is smaller, for the message.
    cure_of_counts
        What to do where the values look like counts, which is then said; empty: they may be counts.
    registry_key, use_raw
        See :class:`LayerField`.
    """

    def __init__(
        self,
        layer: str | None,
        least: float | None = None,
        cure: str = "",
        *,
        cure_of_counts: str = "",
        registry_key: str = REGISTRY_KEYS.X_KEY,
        use_raw: bool = False,
    ) -> None:
        super().__init__(registry_key, layer, is_count_data=False, use_raw=use_raw)
        self.least, self.cure, self.cure_of_counts = least, cure, cure_of_counts

    def _check(self, adata: AnnData) -> None:
        x, names = self.get_field_data(adata), self.column_names(adata)
        if not all_finite(x):
            wrong = find_faults(x, None, lambda values: ~np.isfinite(values))
            assert wrong is not None, "some are not finite"
            raise ValueError(
                f"{self.place} has no finite numbers in {wrong.told(adata, names)}: replace them, or leave these cells "
                "or features out."
            )
        if self.cure_of_counts and _look_like_counts(x):
            logger.warning(f"{self.place} holds whole numbers, which look like counts. {self.cure_of_counts}")
        least = self.least
        if least is None:
            return
        wrong = find_faults(x, None, lambda values: values < least)
        if wrong is not None:
            raise ValueError(f"{self.place} has values below {least:g}: {wrong.told(adata, names)}. {self.cure}")
