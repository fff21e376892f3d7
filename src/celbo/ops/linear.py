r"""Linear layers on the CPU through oneDNN, which torch ships but uses for half precision only.

.. math:: y = x W^\top + b

torch sends float32 products to MKL, whose kernels for processors of other makers are half as fast as oneDNN's
(128 x 128 x 2,000 on an AMD EPYC, one thread: 0.74 ms against 0.34). Values differ from
:func:`torch.nn.functional.linear` in the order of summation only.

Small products, other dtypes and devices, autocast, ``torch.compile`` and ``torch.func`` go to torch's own. On CUDA the
product is torch's too; the gradient of a narrow weight is computed transposed where that is faster.
"""

import functools
import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .sparse import csr_linear

__all__ = ["linear"]

logger = logging.getLogger("celbo")

_SMALL = 1 << 20
"""Multiplications below which the call costs more than is won."""

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
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_no: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_no = grad_no.contiguous()
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: the gradients must have gradients themselves
            grad_x, grad_weight = grad_no @ weight, grad_no.t() @ x
        else:
            grad_x = _product(grad_no, weight.t()) if needs_x else None
            grad_weight = _weight_gradient(grad_no, x) if needs_weight else None
        return grad_x, grad_weight, grad_no.sum(0) if needs_bias else None


def _weight_gradient(grad_no: Tensor, x: Tensor) -> Tensor:
    """``grad.T @ x``: oneDNN wants the longer operand contiguous, and copying the gradient is cheap beside it."""
    transposed = grad_no.t()
    return _product(transposed.contiguous() if transposed.shape[0] > x.shape[1] else transposed, x.t())


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
