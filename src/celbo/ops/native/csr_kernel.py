"""Numba kernels: products of sparse and dense matrices. ``compiling`` makes object code of them."""

import numpy as np
import numpy.typing as npt
from numba import njit

from .kernels import INNER, STRICT, F, Floats
from .vectors import LANES, sum_of_rows

__all__ = [
    "BLOCK",
    "STRIDE",
    "TILE",
    "csr_product_rows",
    "dense_rows",
    "linear_blocks",
    "repeating_rows",
    "weight_gradient_blocks",
]

add_128, add_64, add_16 = sum_of_rows(8), sum_of_rows(4), sum_of_rows(1)


@njit(fastmath=STRICT, **INNER)
def add_scaled(target: Floats, source: Floats, factor: np.float32) -> None:
    """Target += factor * source."""
    for j in range(target.size):
        target[j] += factor * source[j]


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
    h = out_nh.shape[1]
    for i in range(start, stop):
        for j in range(h):
            out_nh[i, j] = bias_h[j] if bias_h.size else F(0.0)
        first, last = starts_n[i], starts_n[i + 1]
        entries = columns.ctypes.data + 4 * first, values.ctypes.data + 4 * first
        left = 0
        while left + LANES <= h:
            row, out = weight_gh.ctypes.data + 4 * left, out_nh.ctypes.data + 4 * (i * h + left)
            if left + 8 * LANES <= h:
                add_128(entries[0], entries[1], last - first, row, 4 * h, out)
                left += 8 * LANES
            elif left + 4 * LANES <= h:
                add_64(entries[0], entries[1], last - first, row, 4 * h, out)
                left += 4 * LANES
            else:
                add_16(entries[0], entries[1], last - first, row, 4 * h, out)
                left += LANES
        if left < h:
            for k in range(first, last):
                add_scaled(out_nh[i, left:], weight_gh[columns[k], left:], values[k])


@njit(**INNER)
def dense_rows(
    first_n: npt.NDArray[np.int64],
    behind_n: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int32],
    values: Floats,
    out_ng: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows of a CSR matrix, whose entries lie from ``first`` until before ``behind``, made dense; repeats are added."""
    for i in range(start, stop):
        out_g = out_ng[i]
        for j in range(out_g.size):
            out_g[j] = F(0.0)
        for k in range(first_n[i], behind_n[i]):
            out_g[columns[k]] += values[k]


@njit(**INNER)
def repeating_rows(
    starts_n: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int32],
    repeats_n: npt.NDArray[np.int32],
    seen_g: npt.NDArray[np.intp],
    start: int,
    stop: int,
) -> None:
    """How many entries of each row of a CSR matrix name a column that an earlier one names, in whatever order."""
    for j in range(seen_g.size):
        seen_g[j] = -1
    for i in range(start, stop):
        repeats = 0
        for k in range(starts_n[i], starts_n[i + 1]):
            repeats += seen_g[columns[k]] == i
            seen_g[columns[k]] = i
        repeats_n[i] = repeats


BLOCK = 64
"""Outputs that a thread works on together: their sums for a minibatch stay in the nearest caches."""

TILE = 64
"""Columns of the weight that are turned around together."""

STRIDE = 80
"""Distance of two columns of a turned tile: more than a block, so that they fall into different sets of the cache."""


@njit(**INNER)
def turn_in(weight_hg: Floats, first: int, width: int, left: int, columns: int, tile: Floats) -> None:
    """Columns of some rows of the weight, as rows of the tile. Four at a time: LLVM turns these in registers."""
    right = left + columns
    for quarter in range(width // 4):
        j = 4 * quarter
        one, two = weight_hg[first + j, left:right], weight_hg[first + j + 1, left:right]
        three, four = weight_hg[first + j + 2, left:right], weight_hg[first + j + 3, left:right]
        for c in range(columns):
            place = c * STRIDE + j
            tile[place] = one[c]
            tile[place + 1] = two[c]
            tile[place + 2] = three[c]
            tile[place + 3] = four[c]
    for j in range(width // 4 * 4, width):
        for c in range(columns):
            tile[c * STRIDE + j] = weight_hg[first + j, left + c]


@njit(**INNER)
def turn_out(tile: Floats, first: int, width: int, left: int, columns: int, out_hg: Floats) -> None:
    """The way back of ``turn_in``."""
    right = left + columns
    for quarter in range(width // 4):
        j = 4 * quarter
        one, two = out_hg[first + j, left:right], out_hg[first + j + 1, left:right]
        three, four = out_hg[first + j + 2, left:right], out_hg[first + j + 3, left:right]
        for c in range(columns):
            place = c * STRIDE + j
            one[c] = tile[place]
            two[c] = tile[place + 1]
            three[c] = tile[place + 2]
            four[c] = tile[place + 3]
    for j in range(width // 4 * 4, width):
        for c in range(columns):
            out_hg[first + j, left + c] = tile[c * STRIDE + j]


@njit(**INNER)
def linear_blocks(
    starts_g: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int32],
    values: Floats,
    weight_hg: Floats,
    bias_h: Floats,
    out_nh: Floats,
    scratch: Floats,
    start: int,
    stop: int,
) -> None:
    """Blocks start..stop of the outputs of a linear layer, of input stored by columns; a bias without entries is none.

    The weight is read once, in order, and turned around tile by tile: no transposed copy is made.
    """
    h, g = weight_hg.shape
    n = out_nh.shape[0]
    sums, tile = scratch[: n * BLOCK], scratch[n * BLOCK : n * BLOCK + TILE * STRIDE]
    tile[:] = F(0.0)
    for block in range(start, stop):
        first = block * BLOCK
        width = min(BLOCK, h - first)
        sums[:] = F(0.0)
        for left in range(0, g, TILE):
            columns = min(TILE, g - left)
            turn_in(weight_hg, first, width, left, columns, tile)
            for c in range(columns):
                source = tile[c * STRIDE : c * STRIDE + BLOCK]
                for k in range(starts_g[left + c], starts_g[left + c + 1]):
                    i = cells[k] * BLOCK
                    add_scaled(sums[i : i + BLOCK], source, values[k])
        for i in range(n):
            for j in range(width):
                out_nh[i, first + j] = sums[i * BLOCK + j] + (bias_h[first + j] if bias_h.size else F(0.0))


@njit(**INNER)
def weight_gradient_blocks(
    starts_g: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int32],
    values: Floats,
    grad_nh: Floats,
    out_hg: Floats,
    scratch: Floats,
    start: int,
    stop: int,
) -> None:
    """Blocks start..stop of the gradient of ``linear_blocks``' weight."""
    h, g = out_hg.shape
    n = grad_nh.shape[0]
    grads, tile = scratch[: n * BLOCK], scratch[n * BLOCK : n * BLOCK + TILE * STRIDE]
    for block in range(start, stop):
        first = block * BLOCK
        width = min(BLOCK, h - first)
        grads[:] = F(0.0)
        for i in range(n):
            for j in range(width):
                grads[i * BLOCK + j] = grad_nh[i, first + j]
        for left in range(0, g, TILE):
            columns = min(TILE, g - left)
            tile[:] = F(0.0)
            for c in range(columns):
                target = tile[c * STRIDE : c * STRIDE + BLOCK]
                for k in range(starts_g[left + c], starts_g[left + c + 1]):
                    i = cells[k] * BLOCK
                    add_scaled(target, grads[i : i + BLOCK], values[k])
            turn_out(tile, first, width, left, columns, out_hg)
