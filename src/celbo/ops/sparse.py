r"""Linear layers of sparse counts on the CPU.

.. math:: y_n = b + \sum_{g :\, x_{ng} \ne 0} x_{ng}\, W_{:, g}, \qquad
          \partial L / \partial W_{:, g} = \sum_{n :\, x_{ng} \ne 0} x_{ng}\, \partial L / \partial y_n

With one count in ten nonzero this is a tenth of the dense product's arithmetic, and the counts never become dense:
encoding 512 cells x 2,000 genes takes half as long, the gathering of the rows included. Wide layers (regions of open
chromatin) and those that are trained go by columns: the weight is read once, in order, and not copied.
"""

from collections.abc import Sequence
from typing import Any

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from .native.loops import Family, loop, works
from .native.threads import for_row_ranges

__all__ = ["csr_linear", "row_sums"]

BLOCK, TILE, STRIDE = 64, 64, 80
"""As in ``native.csr_kernel``, which takes numba to import."""

_SCRATCH_ROWS = 6


def csr_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer of a CSR tensor.

    Parameters
    ----------
    x
        CSR, ``(n, g)``.
    weight, bias
        ``(h, g)``, ``(h,)`` or None.

    Returns
    -------
    ``(n, h)``, differentiable once in weight and bias. For anything but float32 on the CPU, where ``x`` requires a
    gradient, and in training with fewer regions than the kernel needs, ``x`` is made dense.
    """
    needs_gradient = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
    fits = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    wide = len(x) * BLOCK + TILE * STRIDE <= _SCRATCH_ROWS * x.shape[1]
    if fits and wide and not x.requires_grad and works("sparse_linear"):
        return _ByColumns.apply(weight, bias, _columns_of(x), len(x))
    if needs_gradient or not fits or not works("csr_product"):
        return F.linear(x.to_dense(), weight, bias)
    return _by_rows(x, weight, bias)


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n, h = x.shape[0], weight.shape[0]
    out_nh = torch.empty(n, h)
    tables = [
        x.crow_indices().to(torch.int64).contiguous(),
        x.col_indices().to(torch.int32).contiguous(),
        x.values().contiguous(),
        weight.detach().t().contiguous(),
        torch.empty(0) if bias is None else bias.detach().contiguous(),
        out_nh,
    ]
    work = max(1, x.values().numel() // max(1, n)) * h // 8  # a multiplication is an eighth of a likelihood's entry
    for_row_ranges(loop("csr_product").bind(tables, h), n, work)
    return out_nh


def _columns_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each column starts ``(g + 1,)``, and the rows and values of its entries."""
    parts = (x.values(), x.col_indices(), x.crow_indices())
    table = sp.csr_array(tuple(part.numpy() for part in parts), shape=tuple(x.shape)).tocsc()
    starts, rows, values = (torch.from_numpy(part) for part in (table.indptr, table.indices, table.data))
    return starts.to(torch.int64), rows.to(torch.int32), values


class _ByColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, columns: tuple[Tensor, ...], n: int) -> Tensor:
        ctx.columns = columns
        ctx.shape = weight.shape
        out_nh = torch.empty(n, weight.shape[0])
        given = torch.empty(0) if bias is None else bias.detach().contiguous()
        _run_blocks("sparse_linear", [*columns, weight.detach().contiguous(), given, out_nh], weight.shape)
        return out_nh

    @staticmethod
    def backward(ctx: Any, grad_nh: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("A linear layer of sparse counts has no second derivatives: give it dense ones.")
        needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_weight = None
        if needs_weight:
            grad_weight = torch.empty(ctx.shape)
            _run_blocks("sparse_linear_gradient", [*ctx.columns, grad_nh.contiguous(), grad_weight], ctx.shape)
        return grad_weight, grad_nh.sum(0) if needs_bias else None, None, None


def _run_blocks(family: Family, tables: Sequence[Tensor], shape: torch.Size) -> None:
    h, g = shape
    n_blocks = -(-h // BLOCK)
    for_row_ranges(loop(family).bind(list(tables), g), n_blocks, BLOCK * g // 8)


def row_sums(x: Tensor) -> Tensor:
    """Sum of each row, ``(..., 1)``, of a dense or a CSR tensor."""
    if x.layout != torch.sparse_csr:
        return x.sum(-1, keepdim=True)
    return torch.segment_reduce(x.values(), "sum", offsets=x.crow_indices().to(torch.int64), axis=0)[:, None]
