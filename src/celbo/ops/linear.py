r"""Linear layers on the CPU: of dense tables through oneDNN, of sparse counts by compiled loops.

.. math:: y = x W^\top + b

torch ships oneDNN and uses it for half precision only. It sends float32 products to MKL, whose kernels for processors
of other makers are slower (an AMD EPYC, two threads, 128 x 128 x 2,000: 0.56 ms against 0.39; one thread: 7% slower).
Values differ from :func:`torch.nn.functional.linear` in the order of summation only.

Small products, other dtypes and devices, autocast, ``torch.compile`` and ``torch.func`` go to torch's own. On CUDA the
product is torch's too; the gradient of a narrow weight is computed transposed where that is faster.

Sparse counts never become dense:

.. math:: y_n = b + \sum_{g :\, x_{ng} \ne 0} x_{ng}\, W_{:, g}, \qquad
          \partial L / \partial W_{:, g} = \sum_{n :\, x_{ng} \ne 0} x_{ng}\, \partial L / \partial y_n

With one count in ten nonzero this is a tenth of the dense product's arithmetic: encoding cells x 2,000 genes takes a
third of the time, the gathering of the rows included. Wide layers (regions of open chromatin) and those that are
trained go by columns: the weight is read once, in order, and not copied.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from .calls import as_one
from .native.machine_code import Family, loop, works
from .native.threads import fill_rows

__all__ = ["csr_linear", "linear", "row_sums"]

logger = logging.getLogger("celbo")

_SMALL = 10 << 20
"""Multiplications below which the call costs more than is won."""

_ALIGNED = 16
"""Numbers in 64 bytes: rows that begin elsewhere slow MKL down by half."""

_WIDE, _ROWS = 1 << 21, 1024
"""Entries of a gradient beyond which it is turned around in blocks, and how many of its rows in each."""

_NARROW = 32
"""Inputs or outputs, such as latents, below which a product on a GPU is narrow."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer.

    Parameters
    ----------
    x
        ``(n, i)``, or with more leading dimensions; or a CSR tensor ``(n, i)``, see :func:`.sparse.csr_linear`.
    weight, bias
        ``(o, i)``, ``(o,)``.

    Returns
    -------
    ``(n, o)``, differentiable any number of times.
    """
    if x.layout == torch.sparse_csr:
        return csr_linear(x, weight, bias)
    if _is_narrow(x, weight):
        return _Narrow.apply(x, weight, bias)
    if not _fits(x, weight):
        return F.linear(x, weight, bias)
    # Columns cut out of a wider matrix, rows no longer end to end, send oneDNN to a path a hundred times as slow.
    x, weight = x.contiguous(), weight.contiguous()
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dim() == 2
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.shape[0] * weight.numel() >= _SMALL
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and _operator_works()
    )


def _is_narrow(x: Tensor, weight: Tensor) -> bool:
    """Whether cuBLAS would take twelve times as long for a weight gradient as for its transpose: 52 us, 4 us."""
    return (
        x.device.type == "cuda"
        and x.dim() == 2
        and min(weight.shape) < _NARROW
        and x.dtype == weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


@functools.cache
def _operator_works() -> bool:
    """Whether this build of torch has the operator and it takes the arguments given to it here."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        one = torch.ones(1, 1)
        return bool(_product(one, one, one[0]).item() == 2)
    except (AttributeError, RuntimeError, TypeError) as error:
        logger.debug("This torch does not offer oneDNN's linear operator (%s): its own product is used.", error)
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for operands of any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        needs_x, needs_weight, _ = ctx.needs_input_grad  # counts need no gradient, and so no weight on the way back
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_no: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_no = grad_no.contiguous()
        if torch.is_grad_enabled():  # create_graph=True: the gradients must have gradients themselves
            grad_x = None if weight is None else grad_no @ weight
            grad_weight = None if x is None else grad_no.t() @ x
        else:
            grad_x = None if weight is None else _product(grad_no, weight.t())
            grad_weight = None if x is None else _weight_gradient(grad_no, x)
        return grad_x, grad_weight, grad_no.sum(0) if ctx.needs_input_grad[2] else None


def _weight_gradient(grad_no: Tensor, x: Tensor) -> Tensor:
    """``grad.T @ x``: oneDNN wants the longer operand contiguous, which MKL takes as it lies.

    On two threads that takes 0.34 ms for 128 cells x 128 units x 2,000 genes, and the copy and oneDNN 0.51. Where MKL
    is slow, a wide gradient is copied block by block: 128 cells x 50,000 regions would take 26 MB.
    """
    transposed = grad_no.t()
    if transposed.shape[0] <= x.shape[1]:
        return _product(transposed, x.t())
    if x.shape[1] % _ALIGNED == 0:
        return transposed @ x
    if grad_no.numel() <= _WIDE:
        return _product(transposed.contiguous(), x.t())
    grad = grad_no.new_empty(transposed.shape[0], x.shape[1])
    for part, rows in zip(grad.split(_ROWS), transposed.split(_ROWS), strict=True):
        part.copy_(_product(rows.contiguous(), x.t()))
    return grad


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_no: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        wide = weight.shape[0] >= weight.shape[1]
        return (
            grad_no @ weight if needs_x else None,
            (grad_no.t() @ x if wide else (x.t() @ grad_no).t()) if needs_weight else None,
            grad_no.sum(0) if needs_bias else None,
        )


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
    as_one(fill_rows, loop("csr_product"), h, n, work, *tables)
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
    as_one(fill_rows, loop(family), g, n_blocks, BLOCK * g // 8, *tables)


def row_sums(x: Tensor) -> Tensor:
    """Sum of each row, ``(..., 1)``, of a dense or a CSR tensor."""
    if x.layout != torch.sparse_csr:
        return x.sum(-1, keepdim=True)
    starts = x.crow_indices()
    if x.device.type != "cpu" or x.values().requires_grad:
        return torch.segment_reduce(x.values(), "sum", offsets=starts.to(torch.int64), axis=0)[:, None]
    sums_n1 = x.values().new_zeros(len(starts) - 1, 1)
    has_entries_n = starts[1:] > starts[:-1]
    if has_entries_n.any():  # numpy takes a quarter of the time, and would give empty rows a neighbour's entry
        firsts = starts[:-1][has_entries_n].numpy()
        sums_n1[has_entries_n, 0] = torch.from_numpy(np.add.reduceat(x.values().numpy(), firsts))
    return sums_n1
