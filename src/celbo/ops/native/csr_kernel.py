"""Numba kernel: rows of a CSR matrix times a dense one. ``compiling`` makes object code of it."""

import numpy as np
import numpy.typing as npt
from numba import njit

from .kernels import INNER, STRICT, F, Floats

__all__ = ["csr_product_rows"]


@njit(fastmath=STRICT, **INNER)
def csr_product_rows(
    starts_n: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int32],
    values: Floats,
    weight_gh: Floats,
    bias_h: Floats,
    out_nh: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop of a CSR matrix times a dense one; a bias without entries is none."""
    for i in range(start, stop):
        for j in range(out_nh.shape[1]):
            out_nh[i, j] = bias_h[j] if bias_h.size else F(0.0)
        for k in range(starts_n[i], starts_n[i + 1]):
            column, value = columns[k], values[k]
            for j in range(out_nh.shape[1]):
                out_nh[i, j] += value * weight_gh[column, j]
