"""Library sizes: moments of the log total counts, batch by batch."""

import numpy as np

from ..store.mapped import stretches
from ..store.matrices.blocks import DenseBlock, blocks, shape_of
from ..store.matrices.matrix import StoredMatrix

__all__ = ["library_size_moments", "total_counts"]


def total_counts(x: object) -> np.ndarray:
    """Counts of each cell, summed over genes in one streaming pass (none where the counts were checked before).

    Parameters
    ----------
    x
        ``(n, g)`` counts on any storage.

    Returns
    -------
    ``(n,)`` float64.
    """
    if isinstance(x, StoredMatrix) and x.tally is not None:
        return x.tally.totals_n
    n, _ = shape_of(x)
    total_n = np.zeros(n)
    for block in blocks(x):
        if isinstance(block, DenseBlock):
            total_n[block.start : block.stop] += np.asarray(block.values, dtype=np.float64).sum(1)
        else:
            np.add.at(total_n, block.row_of_entry(), np.asarray(block.data, dtype=np.float64))
    return total_n


def library_size_moments(x: object, batch_n: np.ndarray, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population variance of the log total counts of each batch's cells.

    Parameters
    ----------
    x
        ``(n, g)`` counts.
    batch_n
        Batch code of each cell.
    n_batch
        Number of batches.

    Returns
    -------
    Means and variances, each ``(1, b)`` float32. Empty cells count as log 1 = 0, as in scvi-tools; a batch without
    cells has mean 0 and variance 1.
    """
    total_n, code_n = total_counts(x), np.asarray(batch_n).ravel()
    count_b, sum_b, square_b = np.zeros(n_batch), np.zeros(n_batch), np.zeros(n_batch)
    for total_s, code_s in stretches(total_n, code_n):
        count_b += np.bincount(code_s, minlength=n_batch)
        sum_b += np.bincount(code_s, _log(total_s), n_batch)
    mean_b = sum_b / np.maximum(count_b, 1)
    for total_s, code_s in stretches(total_n, code_n):
        square_b += np.bincount(code_s, (_log(total_s) - mean_b[code_s]) ** 2, n_batch)
    variance_b = np.where(count_b > 0, square_b / np.maximum(count_b, 1), 1.0)
    return mean_b[None].astype(np.float32), variance_b[None].astype(np.float32)


def _log(total_s: np.ndarray) -> np.ndarray:
    return np.log(np.where(total_s > 0, total_s, 1.0))
