"""Blocks of the tower that reads sequences, with the names of scvi-tools' weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...nn.fc_layers import Dropout
from ...ops.random import generator_for

__all__ = ["ConvBlock", "DenseBlock", "gelu", "pooled"]

_EPS, _MOMENTUM = 1e-3, 0.1
_SIGMOID_SLOPE = 1.702


class _Gelu(torch.autograd.Function):
    """Keeps its input alone for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return (_SIGMOID_SLOPE * x).sigmoid_().mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        gate = (_SIGMOID_SLOPE * x).sigmoid_()
        slope = (1 - gate).mul_(x).mul_(_SIGMOID_SLOPE).add_(1).mul_(gate)
        return slope.mul_(d_out)


class _Pool(torch.autograd.Function):
    """Maximum over positions, which keeps a byte for each: which of them it was. torch keeps its input and 8 bytes."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, size: int) -> Tensor:  # type: ignore[override]
        padding = (size - 1) // 2
        largest, places = nn.functional.max_pool1d(h, size, padding=padding, return_indices=True)
        first = torch.arange(largest.shape[-1], device=h.device) * size - padding
        ctx.save_for_backward(places.sub_(first).to(torch.uint8))
        ctx.size, ctx.padding, ctx.length = size, padding, h.shape[-1]
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_largest: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (which,) = ctx.saved_tensors
        size, length = ctx.size, ctx.length
        d_h = d_largest.new_zeros(*which.shape[:-1], length)
        for place in range(-ctx.padding, size - ctx.padding):  # in each window, seen from the first of its own
            skipped = 1 if place < 0 else 0
            n = len(range(place + skipped * size, length, size))
            windows = slice(skipped, skipped + min(n, which.shape[-1] - skipped))
            some = d_h[..., place + skipped * size :: size][..., : windows.stop - skipped]
            torch.mul(d_largest[..., windows], which[..., windows] == place + ctx.padding, out=some)
        return d_h, None


def gelu(x: Tensor) -> Tensor:
    r"""Gaussian error linear unit by a sigmoid, :math:`x\,\sigma(1.702\,x)`."""
    return _Gelu.apply(x)


def pooled(length: int, size: int) -> int:
    """Length after a pooling of ``size``, padded by half of it."""
    return (length + 2 * ((size - 1) // 2) - size) // size + 1


class ConvBlock(nn.Module):
    """GELU, convolution, batch normalization, dropout, maximum over ``pool_size`` positions.

    Parameters
    ----------
    n_in, n_out
        Channels.
    kernel_size
        Positions that the convolution sees.
    pool_size
        Positions that become one; 1: none do.
    batch_norm
        Whether there is a batch normalization.
    dropout
        Share that is dropped in training.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: int,
        pool_size: int = 1,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel_size, padding="same", bias=False)
        self.batch_norm = nn.BatchNorm1d(n_out, eps=_EPS, momentum=_MOMENTUM) if batch_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.pool_size = pool_size

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in, length)`` to ``(n, n_out, shorter)``."""
        h = self.dropout(self.batch_norm(self.conv(gelu(x))))
        if self.pool_size == 1:
            return h
        return _Pool.apply(h, self.pool_size)


class DenseBlock(nn.Module):
    """GELU, a dense layer over channels and positions, batch normalization, dropout.

    Parameters
    ----------
    n_in, n_out
        Width of input and output.
    batch_norm, dropout
        As in :class:`ConvBlock`.
    """

    def __init__(self, n_in: int, n_out: int, batch_norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, n_out, bias=False)
        weight = self.dense.weight
        nn.init.kaiming_normal_(weight, a=math.sqrt(5), generator=generator_for(weight.device))
        self.batch_norm = nn.BatchNorm1d(n_out, eps=_EPS, momentum=_MOMENTUM) if batch_norm else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, n_in)`` to ``(n, n_out)``."""
        h = self.dense(gelu(x))
        return self.dropout(self.batch_norm(h))
