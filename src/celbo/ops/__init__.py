"""Numerics as pure functions. Row sums of count log-probabilities take the fastest form that fits, and say which it is.

``"fused_cpu"`` takes parameters of float32 or less (``float16``, ``bfloat16``) in main memory, ``"fused_cuda"`` those
on a CUDA device where torch can compile for it. ``"reference"`` takes everything else, counts that require a gradient,
and what ``torch.compile`` traces. Under ``torch.func`` transforms choose it with :func:`use_backend`. Where numba does
not work the reference takes over, and a warning says why.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from ..core import unknown_name
from ..core.planned import public_names
from . import fused_cpu, fused_cuda, reference
from .fused_cpu import COMPUTED_IN_FLOAT32
from .native.machine_code import Family, all_work, works

__all__ = [
    "accessibility_log_prob_sum",
    "backend_for",
    "methylation_log_prob_sum",
    "nb_log_prob_sum",
    "nb_mixture_log_prob_sum",
    "poisson_log_prob_sum",
    "use_backend",
    "zinb_log_prob_sum",
]

Backend = Literal["fused_cpu", "fused_cuda", "reference"]
_choice: ContextVar[Backend | Literal["auto"]] = ContextVar("celbo_ops_backend", default="auto")
_ON_THE_CPU_ONLY = ("accessibility", "methylation", "mixture")
_CHOICES = ("auto", "fused_cpu", "fused_cuda", "reference")


@contextmanager
def use_backend(name: Backend | Literal["auto"]) -> Iterator[None]:
    """Choose the form of the row sums inside a ``with`` block, in this thread or task only.

    Parameters
    ----------
    name
        ``"reference"``: plain torch. ``"fused_cpu"``: one pass on the CPU, ``"fused_cuda"``: one kernel on CUDA, and an
        error where it does not fit.
        ``"auto"``: the fastest that fits, as outside of the block.

    Raises
    ------
    ValueError
        For another name.
    """
    if name not in _CHOICES:
        raise ValueError(unknown_name("backend", name, _CHOICES))
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


def backend_for(tensor: Tensor) -> Backend:
    """Which form would take a decoder's logits like this tensor.

    Parameters
    ----------
    tensor
        Only its device and dtype count.

    Returns
    -------
    ``"fused_cpu"``, ``"fused_cuda"`` or ``"reference"``. Asking compiles nothing: a compiler that does not work is
    noticed by the first sum.
    """
    choice = _choice.get()
    if choice != "auto":
        return choice
    fused = _fused_for("poisson", tensor.detach(), tensor)
    if fused == "fused_cpu" and not all_work():
        return "reference"
    return fused or "reference"


def nb_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor) -> Tensor:
    """Negative binomial: :func:`.reference.nb_log_prob_sum`, in the fastest form that fits."""
    form = _form("negative_binomial", x, scale_logits, log_library, log_theta)
    return form.nb_log_prob_sum(x, scale_logits, log_library, log_theta)


def zinb_log_prob_sum(
    x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """Zero-inflated negative binomial: :func:`.reference.zinb_log_prob_sum`, in the fastest form that fits."""
    form = _form("negative_binomial", x, scale_logits, log_library, log_theta, zi_logits)
    return form.zinb_log_prob_sum(x, scale_logits, log_library, log_theta, zi_logits)


def poisson_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor) -> Tensor:
    """Poisson: :func:`.reference.poisson_log_prob_sum`, in the fastest form that fits."""
    form = _form("poisson", x, scale_logits, log_library)
    return form.poisson_log_prob_sum(x, scale_logits, log_library)


def accessibility_log_prob_sum(
    x: Tensor, logits: Tensor, depth_logits: Tensor | None = None, region_logits: Tensor | None = None
) -> Tensor:
    """Open regions: :func:`.reference.accessibility_log_prob_sum`, in the fastest form that fits (of matrices)."""
    given = [factor for factor in (depth_logits, region_logits) if factor is not None]
    is_matrix = logits.dim() == 2 and x.shape == logits.shape
    is_matrix = is_matrix and (depth_logits is None or depth_logits.shape == (len(logits), 1))
    is_matrix = is_matrix and (region_logits is None or region_logits.dim() == 1)
    form = _form("accessibility", x, logits, *given) if is_matrix else reference
    return form.accessibility_log_prob_sum(x, logits, depth_logits, region_logits)


def methylation_log_prob_sum(y: Tensor, total: Tensor, logits: Tensor, gamma_logits: Tensor | None = None) -> Tensor:
    """Methylated reads: :func:`.reference.methylation_log_prob_sum`, in the fastest form that fits (of matrices)."""
    given = [] if gamma_logits is None else [gamma_logits]
    is_matrix = logits.dim() == 2 and y.shape == total.shape == logits.shape
    is_matrix = is_matrix and all(table.shape in (logits.shape, logits.shape[1:]) for table in given)
    form = _form("methylation", y, total, logits, *given) if is_matrix else reference
    return form.methylation_log_prob_sum(y, total, logits, gamma_logits)


def nb_mixture_log_prob_sum(x: Tensor, mu1: Tensor, mu2: Tensor, theta: Tensor, mixture_logits: Tensor) -> Tensor:
    """Proteins: :func:`.reference.nb_mixture_log_prob_sum`, in the fastest form that fits (of like matrices)."""
    parameters = (mu1, mu2, theta, mixture_logits)
    is_matrix = x.dim() == 2 and all(table.shape == x.shape for table in parameters)
    form = _form("mixture", x, *parameters) if is_matrix else reference
    return form.nb_mixture_log_prob_sum(x, *parameters)


def _form(family: Family, x: Tensor, *parameters: Tensor) -> ModuleType:
    """The module whose functions to call."""
    choice, fused = _choice.get(), _fused_for(family, x, *parameters)
    if choice == "reference":
        return reference
    if choice not in ("auto", fused):
        kinds = ", ".join(f"{tensor.dtype} on {tensor.device}" for tensor in (x, *parameters))
        raise ValueError(
            f"The backend {choice!r} was asked for and does not fit: {kinds}. It takes float32 or less on "
            f"{'the CPU' if choice == 'fused_cpu' else 'CUDA'} and counts without a gradient; use_backend('auto') "
            "finds what fits."
        )
    if fused is None or torch.compiler.is_compiling():
        return reference
    if fused == "fused_cuda":
        return fused_cuda if choice == fused or fused_cuda.works(len(parameters), x.device) else reference
    return fused_cpu if choice == fused or works(family) else reference


def _fused_for(family: Family, x: Tensor, *parameters: Tensor) -> Backend | None:
    """The fused form that takes such tensors."""
    kinds = {tensor.device.type for tensor in (x, *parameters)}
    if x.requires_grad or any(parameter.dtype not in COMPUTED_IN_FLOAT32 for parameter in parameters):
        return None
    if kinds == {"cpu"}:
        return "fused_cpu"
    return "fused_cuda" if kinds == {"cuda"} and family not in _ON_THE_CPU_ONLY else None


__dir__ = public_names(__name__)
