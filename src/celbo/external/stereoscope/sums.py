"""Sums over cells of known type.

Dims: n cells, g genes, c cell types.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...core import REGISTRY_KEYS

__all__ = ["SumsByType", "sum_by_type"]


class SumsByType(NamedTuple):
    """What moments are made of.

    Attributes
    ----------
    counts_gc, by_library_gc
        Sums of the counts, and of each times the library size of its cell, ``(g, c)``.
    square_g
        Sums of the squares of the counts, ``(g,)``.
    library_c, library2_c
        Sums of library sizes and of their squares, ``(c,)``.
    """

    counts_gc: Tensor
    by_library_gc: Tensor
    square_g: Tensor
    library_c: Tensor
    library2_c: Tensor


def sum_by_type(batches: Iterable[Mapping[str, Tensor]], n_types: int) -> SumsByType:
    """Sum over minibatches with counts and labels, in float64."""
    parts = [_sums_of(tensors, n_types) for tensors in batches]
    return SumsByType(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))


def _sums_of(tensors: Mapping[str, Tensor], n_types: int) -> SumsByType:
    x_ng = tensors[REGISTRY_KEYS.X_KEY].double()
    is_of_nc = one_hot(tensors[REGISTRY_KEYS.LABELS_KEY][:, 0].long(), n_types).to(x_ng)
    library_nc = x_ng.sum(1, keepdim=True) * is_of_nc
    return SumsByType(
        x_ng.T @ is_of_nc, x_ng.T @ library_nc, x_ng.square().sum(0), library_nc.sum(0), library_nc.square().sum(0)
    )
