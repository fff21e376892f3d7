r"""Row sums of count log-probabilities on CUDA: values and gradients of every entry in one kernel.

Same signatures and meaning as :mod:`.reference`, for tensors of float32 or less on a CUDA device. The formulas are
those of :mod:`.elementwise`, entry by entry, in the C++ below; torch compiles it when it is first asked for, a second
or two, and keeps it in its cache. The softmax and the sums stay torch's. In plain torch they are 300 kernels, most of
which do less than their launch takes.

Not here: gradients of counts, second derivatives, ``torch.func`` transforms, ``torch.compile``.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .calls import check_shapes

__all__ = ["SOURCE", "nb_log_prob_sum", "poisson_log_prob_sum", "works", "zinb_log_prob_sum"]

logger = logging.getLogger("celbo")

# Constants are those of elementwise.py for float32. Entries with x = 0, most of them, need no gamma function.
SOURCE = """
template <typename T> T stirling_error(T z) {
  if (z < T(3)) return lgammaf(z + T(1)) - (z + T(0.5)) * logf(z) + (z - T(0.91893853320467274));
  T i = T(1) / z, s = i * i;
  return i * ((((T(8.4175084e-4) * s - T(5.9523809e-4)) * s + T(7.9365079e-4)) * s - T(2.7777778e-3)) * s
              + T(8.3333333e-2));
}
template <typename T> T digamma_tail(T z) {
  T below = T(0);
  T top = z;
  if (z < T(3)) { below = T(1) / z + T(1) / (z + T(1)) + T(1) / (z + T(2)); top = z + T(3); }
  T i = T(1) / top, s = i * i;
  T tail = s * ((((T(7.5757576e-3) * s - T(4.1666667e-3)) * s + T(3.9682540e-3)) * s - T(8.3333333e-3)) * s
                + T(8.3333333e-2));
  if (z < T(3)) return (logf(z / top) + T(0.5) * i - T(0.5) / z) + (below + tail);
  return tail;
}
template <typename T> T atanh_tail(T v) {
  T s = v * v;
  return v * s * ((((T(0.18181818) * s + T(0.22222222)) * s + T(0.28571429)) * s + T(0.4)) * s + T(0.66666667));
}
template <typename T> T deviance(T x, T a, T surplus, T log_ratio) {
  T v = surplus / (x + a);
  return fabsf(v) < T(0.15) ? surplus * v + x * atanh_tail(v) : x * log_ratio - surplus;
}
template <typename T> T log1p_minus(T u, T log_ratio) {
  T v = u / (T(2) + u);
  return fabsf(v) < T(0.15) ? atanh_tail(v) - u * v : log_ratio - u;
}
template <typename T> T log_inverse_mode(T x) {
  return stirling_error(x) + T(0.5) * logf(x) + T(0.91893853320467274);
}
template <typename T> T in_range(T a) { return a < T(1e-30) ? T(1e-30) : T(1e18) < a ? T(1e18) : a; }
template <typename T> T sigmoid(T a) { return T(1) / (T(1) + expf(-a)); }
template <typename T> T log_sigmoid(T a) { return fminf(a, T(0)) - log1pf(expf(-fabsf(a))); }
template <typename T> T nb_value(T x, T mu, T theta) {
  if (x == T(0)) return -theta * log1pf(mu / theta);
  T n = x + theta, m = mu + theta, share = theta / m, surplus = (x - mu) * share, log_ratio = logf(m / n);
  T d = deviance(x, mu * (n / m), surplus, logf(x / mu) + log_ratio)
        + deviance(theta, n * share, -surplus, log_ratio);
  T width = stirling_error(n) - stirling_error(theta) - T(0.5) * log1pf(x / theta);
  return width - log_inverse_mode(x) - d;
}
template <typename T> T nb_slope_of_theta(T x, T mu, T theta) {
  T n = x + theta, m = mu + theta, slope = log1p_minus((x - mu) / m, logf(n / m));
  if (x == T(0)) return slope;
  return slope + T(0.5) * (x / n) / theta + (digamma_tail(theta) - digamma_tail(n));
}
"""

_NB = """
template <typename T> void celbo_nb(T x, T log_mu, T log_theta, T& value, T& of_mu, T& of_theta) {
  T wanted = expf(log_theta), theta = in_range(wanted);
  bool is_low = log_mu < T(-60) && x != T(0);
  T mu = expf(is_low ? T(-60) : log_mu);
  value = nb_value(x, mu, theta) + (is_low ? x * (log_mu + T(60)) : T(0));
  of_mu = is_low ? x : (theta / (mu + theta)) * (x - mu);
  of_theta = wanted == theta ? theta * nb_slope_of_theta(x, mu, theta) : T(0);
}
"""

_ZINB = """
template <typename T> void celbo_zinb(T x, T log_mu, T log_theta, T zi, T& value, T& of_mu, T& of_theta, T& of_zi) {
  T wanted = expf(log_theta), theta = in_range(wanted);
  bool is_low = log_mu < T(-60) && x != T(0);
  T mu = expf(is_low ? T(-60) : log_mu);
  T log_p = nb_value(x, mu, theta), kept = sigmoid(-zi), log_kept = log_sigmoid(-zi);
  of_mu = is_low ? x : (theta / (mu + theta)) * (x - mu);
  of_theta = wanted == theta ? theta * nb_slope_of_theta(x, mu, theta) : T(0);
  if (x == T(0)) {
    T seen = -kept * expm1f(log_p), top = fmaxf(zi, log_p);
    T rarely = top + log1pf(expf(-fabsf(zi - log_p))) + log_kept;
    value = seen < T(0.5) ? log1pf(-seen) : rarely;
    T own = sigmoid(log_p - zi);
    of_mu *= own;
    of_theta *= own;
    of_zi = sigmoid(zi - log_p) * seen;
  } else {
    value = log_p + log_kept + (is_low ? x * (log_mu + T(60)) : T(0));
    of_zi = -sigmoid(zi);
  }
}
"""

_POISSON = """
template <typename T> void celbo_poisson(T x, T log_mu, T& value, T& of_mu) {
  bool is_low = log_mu < T(-60) && x != T(0);
  T mu = expf(is_low ? T(-60) : log_mu);
  of_mu = is_low ? x : x - mu;
  if (x == T(0)) value = -mu;
  else value = (is_low ? x * (log_mu + T(60)) : T(0)) - log_inverse_mode(x) - deviance(x, mu, x - mu, logf(x / mu));
}
"""

ENTRIES = {"nb": (_NB, 3), "zinb": (_ZINB, 4), "poisson": (_POISSON, 2)}
"""Family -> the function that is called for an entry, and how many numbers it gives."""

_WITH = {n: family for family, (_, n) in ENTRIES.items()}
"""Parameters -> family: an entry gives its log-probability and a slope for each of them but the library."""


@functools.cache
def _kernel(family: str) -> Callable[..., tuple[Tensor, ...]]:
    from torch.cuda.jiterator import _create_multi_output_jit_fn

    entry, n_outputs = ENTRIES[family]
    return _create_multi_output_jit_fn(SOURCE + entry, n_outputs)


@functools.cache
def works(n_parameters: int, device: torch.device) -> bool:
    """Whether torch can compile the kernel of a family, which has so many parameters, there; tried once."""
    if torch.version.cuda is None:
        return False
    try:
        entry = torch.ones(1, device=device)
        _kernel(_WITH[n_parameters])(*[entry] * n_parameters)
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        logger.debug("The likelihood is not fused on %s: %s", device, str(error).partition("\n")[0])
        return False
    return True


def nb_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor) -> Tensor:
    """As :func:`.reference.nb_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library, log_theta)
    return _apply("nb", x, scale_logits, log_library, log_theta, None)


def zinb_log_prob_sum(
    x: Tensor, scale_logits: Tensor, log_library: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """As :func:`.reference.zinb_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library, log_theta, zi_logits)
    return _apply("zinb", x, scale_logits, log_library, log_theta, zi_logits)


def poisson_log_prob_sum(x: Tensor, scale_logits: Tensor, log_library: Tensor) -> Tensor:
    """As :func:`.reference.poisson_log_prob_sum`."""
    check_shapes(x, scale_logits, log_library)
    return _apply("poisson", x, scale_logits, log_library, None, None)


def _apply(family: str, x: Tensor, *parameters: Tensor | None) -> Tensor:
    given = [None if parameter is None else parameter.to(torch.float32) for parameter in parameters]
    return _RowSums.apply(family, x.to(torch.float32), *given)


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        family: str,
        x: Tensor,
        scale_logits: Tensor,
        log_library: Tensor,
        log_theta: Tensor | None,
        zi_logits: Tensor | None,
    ) -> Tensor:
        log_share = scale_logits.log_softmax(1)
        further = [parameter.detach() for parameter in (log_theta, zi_logits) if parameter is not None]
        value, *slopes = _kernel(family)(x, log_library + log_share, *further)
        ctx.save_for_backward(log_share, *slopes)
        ctx.theta_shape = None if log_theta is None else log_theta.shape
        return value.sum(1)

    @staticmethod
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # by create_graph alone
            raise RuntimeError(
                "The fused sum of log-probabilities has no second derivatives, and create_graph=True asks for them: "
                "compute it under celbo.ops.use_backend('reference')."
            )
        log_share, of_mu, *others = ctx.saved_tensors
        _, _, needs_logits, needs_library, needs_theta, needs_zi = ctx.needs_input_grad
        upstream = upstream_n.unsqueeze(1)
        grad_mu = of_mu * upstream
        logits = torch._log_softmax_backward_data(grad_mu, log_share, 1, torch.float32) if needs_logits else None
        library = grad_mu.sum(1, keepdim=True) if needs_library else None
        theta = _theta_gradient(others[0], upstream_n, ctx.theta_shape) if needs_theta else None
        return None, None, logits, library, theta, others[1] * upstream if needs_zi else None


def _theta_gradient(grad_ng: Tensor, upstream_n: Tensor, shape: torch.Size) -> Tensor:
    """The upstream gradient times the rows', summed over cells where they share theta."""
    shared = len(shape) == 1 or shape[0] == 1
    return (upstream_n @ grad_ng).reshape(shape) if shared else grad_ng * upstream_n.unsqueeze(1)
