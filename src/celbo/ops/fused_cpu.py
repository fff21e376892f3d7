r"""Row sums of count log-probabilities on the CPU, gradients written in the pass that computes the values.

Same signatures and meaning as :mod:`.reference`, for tensors in main memory of float32 or less (half precision is
computed in float32, its gradients come back in half precision). The loops are in ``kernels`` and are compiled by
numba, once a machine: :mod:`.machine_code` keeps them next to the package, in the user's cache folder where that cannot
be written, or where ``NUMBA_CACHE_DIR`` says.

A gradient depends on the upstream gradient through one factor a row. The forward pass therefore leaves finished
gradients behind, for the factor that a mean over cells brings (:func:`_of_a_mean`); the backward pass multiplies only
where another comes. Those of open regions, whose tables are wide, are computed on the way
back. Where nothing requires a gradient only values are computed. A row's
numbers are the same whatever the number of threads.

Not here: gradients of counts, second derivatives, ``torch.func`` transforms, ``torch.compile``.
"""

from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor

from .calls import as_one, check_shapes
from .native.machine_code import Family, loop
from .native.threads import fill_rows

__all__ = [
    "COMPUTED_IN_FLOAT32",
    "accessibility_log_prob_sum",
    "methylation_log_prob_sum",
    "nb_log_prob_sum",
    "nb_mixture_log_prob_sum",
    "poisson_log_prob_sum",
    "zinb_log_prob_sum",
]

COMPUTED_IN_FLOAT32 = (torch.float32, torch.bfloat16, torch.float16)

REGIONS = 2048
"""As in ``native.accessibility_kernel``, which takes numba to import."""


def nb_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor) -> Tensor:
    """As :func:`.reference.nb_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library, log_theta)
    return _apply(_NegativeBinomial, x, scale_logits, log_library, log_theta, None)


def zinb_log_prob_sum(
    x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """As :func:`.reference.zinb_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library, log_theta, zi_logits)
    return _apply(_NegativeBinomial, x, scale_logits, log_library, log_theta, zi_logits)


def poisson_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor) -> Tensor:
    """As :func:`.reference.poisson_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library)
    return _apply(_Poisson, x, scale_logits, log_library)


def accessibility_log_prob_sum(
    x: Tensor, logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None
) -> Tensor:
    """As :func:`.reference.accessibility_log_prob_sum`, of matrices."""
    return _apply(_Accessibility, x, logits, depth_logits, region_logits)


def methylation_log_prob_sum(y: Tensor, total: Tensor, logits: Tensor, gamma_logits: Tensor | None = None) -> Tensor:
    """As :func:`.reference.methylation_log_prob_sum`, of matrices."""
    return _apply(_Methylation, y, total, logits, gamma_logits)


def nb_mixture_log_prob_sum(x: Tensor, mu1: Tensor, mu2: Tensor, theta: Tensor, mixture_logits: Tensor) -> Tensor:
    """As :func:`.reference.nb_mixture_log_prob_sum`, of matrices of one shape."""
    return _apply(_Mixture, x, mu1, mu2, theta, mixture_logits)


# --------------------------------------------------------------------------------------------------------------------
# Autograd


def _apply(function: type[torch.autograd.Function], x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Values, with gradients prepared where one will be asked for."""
    if x.requires_grad:
        raise ValueError(
            "x requires a gradient, which the fused operation does not have: use_backend('reference') does."
        )
    given = [None if parameter is None else parameter.to(torch.float32) for parameter in parameters]
    return function.apply(torch.is_grad_enabled(), x.to(torch.float32), *given)


class _NegativeBinomial(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        grad_enabled: bool,
        x: Tensor,
        scale_logits: Tensor,
        log_library: Tensor,
        log_theta: Tensor,
        zi_logits: Tensor | None,
    ) -> Tensor:
        needs = [grad_enabled and needed for needed in ctx.needs_input_grad]
        n, g = x.shape
        theta_rows = log_theta.reshape(-1, g)
        values, grad_library = torch.empty(n), torch.empty(n)
        nothing = torch.empty(0, g)
        grad_logits = torch.empty(n, g) if any(needs) else nothing
        grad_theta = torch.empty(n, g) if needs[4] else nothing
        grad_zi = torch.empty(n, g) if any(needs) and zi_logits is not None else nothing
        _run(
            "negative_binomial",
            *(x, scale_logits, log_library.reshape(n), theta_rows.exp(), theta_rows.neg().exp(), theta_rows),
            nothing if zi_logits is None else zi_logits,
            outputs=(values, grad_logits, grad_library, grad_theta, grad_zi, expected := _of_a_mean(n)),
        )
        ctx.save_for_backward(grad_logits, grad_library, grad_theta, grad_zi, expected)
        ctx.theta_shape = log_theta.shape
        return values

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        grad_logits, grad_library, grad_theta, grad_zi, expected = ctx.saved_tensors
        _, _, needs_logits, needs_library, needs_theta, needs_zi = ctx.needs_input_grad
        wanted = [table for table, needed in ((grad_logits, needs_logits), (grad_zi, needs_zi)) if needed]
        finished = list(as_one(_at, upstream_n, expected, *wanted))
        return (
            None,
            None,
            finished[0] if needs_logits else None,
            (grad_library * upstream_n).unsqueeze(1) if needs_library else None,
            _theta_gradient(grad_theta, upstream_n, ctx.theta_shape) if needs_theta else None,
            finished[-1] if needs_zi else None,
        )


def _of_a_mean(n: int) -> Tensor:
    """What comes from upstream where the loss is the negative mean over n cells, ``(1,)``."""
    return torch.ones(1).div_(-max(1, n))


def _at(upstream_n: Tensor, expected: Tensor, *grads_ng: Tensor) -> tuple[Tensor, ...]:
    """Gradients that were finished for the factor that was expected, for the one that came."""
    if bool((upstream_n == expected).all()):
        return grads_ng
    factor = (upstream_n / expected).unsqueeze(1)
    return tuple(grad_ng * factor for grad_ng in grads_ng)


def _refuse_second_derivatives() -> None:
    """In a backward pass gradients are enabled only by ``create_graph``; its result would wrongly be a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "The fused sum of log-probabilities has no second derivatives, and create_graph=True asks for them: "
            "compute it under celbo.ops.use_backend('reference')."
        )


def _theta_gradient(grad_ng: Tensor, upstream_n: Tensor, shape: torch.Size) -> Tensor:
    """The upstream gradient times the rows', summed over cells where they share theta."""
    shared = len(shape) == 1 or shape[0] == 1
    return (upstream_n @ grad_ng).reshape(shape) if shared else grad_ng * upstream_n.unsqueeze(1)


class _Poisson(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_enabled: bool, x: Tensor, scale_logits: Tensor, log_library: Tensor) -> Tensor:
        n, g = x.shape
        values, grad_library = torch.empty(n), torch.empty(n)
        grad_logits = torch.empty(n, g) if grad_enabled and any(ctx.needs_input_grad) else torch.empty(0, g)
        outputs = (values, grad_logits, grad_library, expected := _of_a_mean(n))
        _run("poisson", x, scale_logits, log_library.reshape(n), outputs=outputs)
        ctx.save_for_backward(grad_logits, grad_library, expected)
        return values

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        grad_logits, grad_library, expected = ctx.saved_tensors
        needs_logits, needs_library = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            as_one(_at, upstream_n, expected, grad_logits)[0] if needs_logits else None,
            (grad_library * upstream_n).unsqueeze(1) if needs_library else None,
        )


class _Accessibility(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grad_enabled: bool, x: Tensor, logits: Tensor, depth: Tensor | None, regions: Tensor | None
    ) -> Tensor:
        n, g = x.shape
        factors = [*_factor(depth, n), *_factor(regions, g)]
        if depth is None and regions is None:
            factors = [torch.empty(0)] * 6
        values, grad_depth, entries = torch.empty(n), torch.empty(n), as_one(_open_entries, x)
        tables = [*entries, *(table.contiguous() for table in (logits.detach(), *factors)), values, grad_depth]
        as_one(fill_rows, loop("accessibility"), g, n, g, *tables)
        d, not_d, _, f, not_f, _ = factors
        if grad_enabled and any(ctx.needs_input_grad):
            ctx.save_for_backward(grad_depth, *entries, logits, d, not_d, f, not_f)
        return values

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        grad_depth, *entries, logits, d, not_d, f, not_f = ctx.saved_tensors
        _, _, needs_logits, needs_depth, needs_regions = ctx.needs_input_grad
        n, g = logits.shape
        grad_logits, slopes = torch.empty(n, g), torch.empty(g if needs_regions else 0)
        if needs_logits or needs_regions:
            given = (upstream_n, logits, d, not_d, f, not_f)
            tables = [*entries, *(table.detach().contiguous() for table in given), grad_logits, slopes]
            n_blocks, block = -(-g // REGIONS), n * min(g, REGIONS)
            as_one(fill_rows, loop("accessibility_gradient"), g, n_blocks, block, *tables)
        return (
            None,
            None,
            grad_logits if needs_logits else None,
            (grad_depth * upstream_n).unsqueeze(1) if needs_depth else None,
            slopes * not_f if needs_regions else None,
        )


class _Methylation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_enabled: bool, y: Tensor, total: Tensor, logits: Tensor, gamma: Tensor | None) -> Tensor:
        needs = [grad_enabled and needed for needed in ctx.needs_input_grad]
        n, g = y.shape
        values, nothing = torch.empty(n), torch.empty(0, g)
        grad_logits = torch.zeros(n, g) if any(needs) else nothing
        grad_gamma = torch.zeros(n, g) if needs[4] else nothing
        gamma_rows = nothing if gamma is None else gamma.reshape(-1, g)
        _run("methylation", y, total, logits, gamma_rows, outputs=(values, grad_logits, grad_gamma))
        ctx.save_for_backward(grad_logits, grad_gamma)
        ctx.gamma_shape = None if gamma is None else gamma.shape
        return values

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        grad_logits, grad_gamma = ctx.saved_tensors
        _, _, _, needs_logits, needs_gamma = ctx.needs_input_grad
        return (
            *(None, None, None),
            grad_logits * upstream_n.unsqueeze(1) if needs_logits else None,
            _theta_gradient(grad_gamma, upstream_n, ctx.gamma_shape) if needs_gamma else None,
        )


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_enabled: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        n, g = x.shape
        wants_gradients = grad_enabled and any(ctx.needs_input_grad)
        values, gradients = torch.empty(n), torch.zeros(4, n if wants_gradients else 0, g)
        _run("mixture", x, *parameters, outputs=(values, *gradients))
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        (gradients,) = ctx.saved_tensors
        return (None, None, *(gradients * upstream_n.unsqueeze(1)))


def _factor(logits: Tensor | None, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A factor, what it lacks of 1, and its logarithm, ``(size,)`` each; 1 for None."""
    if logits is None:
        return torch.ones(size), torch.zeros(size), torch.zeros(size)
    flat = logits.detach().reshape(size)
    return flat.sigmoid(), flat.neg().sigmoid(), torch.nn.functional.logsigmoid(flat)


def _open_entries(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts other than zero as CSR: where rows start, columns, values; the columns of a row in ascending order."""
    if x.layout == torch.sparse_csr:
        starts, columns, values = _in_order(x)
    else:
        rows, columns = (x > 0).nonzero().unbind(1)
        starts = torch.nn.functional.pad(rows.bincount(minlength=len(x)).cumsum(0), (1, 0))
        values = torch.ones(len(columns))
    return starts.to(torch.int64).contiguous(), columns.to(torch.int32).contiguous(), values.contiguous()


def _in_order(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rows of a CSR tensor start, columns, values; each row in ascending order: as files have them, in any."""
    starts, columns, values = x.crow_indices(), x.col_indices(), x.values()
    table = sp.csr_array((values.numpy(), columns.numpy(), starts.numpy()), shape=tuple(x.shape))
    if table.has_sorted_indices:
        return starts, columns, values
    table = table.sorted_indices()
    return torch.from_numpy(table.indptr), torch.from_numpy(table.indices), torch.from_numpy(table.data)


# --------------------------------------------------------------------------------------------------------------------
# Kernels


def _run(family: Family, *inputs: Tensor, outputs: tuple[Tensor, ...]) -> None:
    """Fill ``outputs`` on all threads; ``inputs`` may have any strides."""
    n, g = inputs[0].shape
    tables = [*(tensor.detach().contiguous() for tensor in inputs), *outputs]
    as_one(fill_rows, loop(family), g, n, g, *tables)
