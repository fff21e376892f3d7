r"""Log-probabilities of counts, entry by entry, exact in the precision they are given.

The textbook form of the negative binomial adds terms as large as :math:`x \log x` that cancel to a few nats, so
that float32 keeps no digit of it at large counts or large :math:`\theta`. Here every log-probability is a sum of small
terms, after Loader (2000):

.. math::
    \log \mathrm{Pois}(x; \mu) &= -\delta(x) - \tfrac12 \log 2\pi x - D(x, \mu) \\
    \log \mathrm{NB}(x; \mu, \theta) &= \delta(n) - \delta(\theta) - \tfrac12 \log(1 + x/\theta)
        - \delta(x) - \tfrac12 \log 2\pi x\\
        &\quad - D(x, n\mu/m) - D(\theta, n\theta/m), \qquad n = x + \theta,\ m = \mu + \theta

with Stirling's error :math:`\delta(z) = \log\Gamma(z+1) - (z+\frac12)\log z + z - \frac12\log 2\pi` and the deviance
:math:`D(x, a) = x \log(x/a) + a - x \ge 0`. At :math:`x = 0` the two are :math:`-\mu` and
:math:`-\theta\log(1 + \mu/\theta)`.
The Poisson limit of large :math:`\theta` needs no branch: it is what remains of the formula.

Shapes broadcast; any float dtype (half precision is computed in float32); everything is in nats and differentiable in
every argument, by closed forms that do not cancel either.

References
----------
Loader (2000), Fast and accurate computation of binomial probabilities. DLMF 5.11 for the asymptotic series.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import logsigmoid

__all__ = [
    "inverse_softplus",
    "log_gamma_ratio",
    "nb_log_prob",
    "nb_mixture_log_prob",
    "poisson_log_prob",
    "zinb_log_prob",
]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)  # B_2, B_4, ..., B_16
_STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))  # of δ(z), in powers of 1/z
_DIGAMMA = tuple(b / (2 * k) for k, b in enumerate(_BERNOULLI, 1))  # of log z - 1/2z - ψ(z), in powers of 1/z^2
_ATANH = tuple(2 / (2 * j + 1) for j in range(1, 11))  # of 2 (atanh v - v) / v^3, in powers of v^2
_NEAR = 0.15  # |v| below which the series of atanh is taken


class _Precision(NamedTuple):
    """Where the asymptotic series starts, how many terms it and that of atanh need, and the range θ is kept in."""

    start: float
    n_stirling: int
    n_atanh: int
    smallest: float
    largest: float


# Truncation errors are below a rounding error of the leading term. Outside of the θ range nothing changes any more:
# above it NB equals Poisson for counts and means up to 1e6, below it NB is a point mass at zero.
_PRECISION = {
    torch.float32: _Precision(start=3.0, n_stirling=5, n_atanh=5, smallest=1e-30, largest=1e18),
    torch.float64: _Precision(start=8.0, n_stirling=8, n_atanh=10, smallest=1e-200, largest=1e100),
}


def inverse_softplus(x: Tensor) -> Tensor:
    """Log of ``e^x - 1``, of which softplus makes ``x``, for positive ``x`` of any size and shape."""
    return x + (-torch.expm1(-x)).log()


def log_gamma_ratio(x: Tensor, theta: Tensor) -> Tensor:
    r"""Log of the rising factorial :math:`\theta (\theta + 1) \cdots (\theta + x - 1)`, without cancellation.

    .. math:: \log\Gamma(x + \theta) - \log\Gamma(\theta)

    Parameters
    ----------
    x
        Counts (or any real number) >= 0.
    theta
        Positive; broadcasts against ``x``.

    Returns
    -------
    The difference, in the broadcast shape, exact also where both gamma functions are far larger than it.
    """
    (x, theta), finish = _prepare(x, theta)
    return finish(_LogGammaRatio.apply(x, _in_range(theta)))


def nb_log_prob(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    r"""Negative binomial with mean :math:`\mu` and variance :math:`\mu + \mu^2/\theta`.

    .. math:: \log\frac{\Gamma(x+\theta)}{\Gamma(\theta)\,x!}
              + \theta\log\frac{\theta}{\theta+\mu} + x\log\frac{\mu}{\theta+\mu}

    Parameters
    ----------
    x
        Counts >= 0.
    mu
        Mean >= 0. At 0 all mass is at ``x = 0``.
    theta
        Inverse dispersion > 0. Large values give the Poisson distribution.

    Returns
    -------
    Log-probabilities in nats, in the broadcast shape.
    """
    (x, mu, theta), finish = _prepare(x, mu, theta)
    return finish(_NegativeBinomial.apply(x, mu, _in_range(theta)))


def zinb_log_prob(x: Tensor, mu: Tensor, theta: Tensor, zi_logits: Tensor) -> Tensor:
    r"""Negative binomial whose counts are lost with probability :math:`\pi = \mathrm{sigmoid}(\text{zi\_logits})`.

    .. math:: \log\left(\pi\,[x = 0] + (1 - \pi)\,\mathrm{NB}(x; \mu, \theta)\right)

    Parameters
    ----------
    x, mu, theta
        As in :func:`nb_log_prob`.
    zi_logits
        Log-odds of an added zero.

    Returns
    -------
    Log-probabilities in nats, in the broadcast shape.
    """
    (x, mu, theta, zi_logits), finish = _prepare(x, mu, theta, zi_logits)
    log_p = _NegativeBinomial.apply(x, mu, _in_range(theta))
    return finish(_ZeroInflated.apply(log_p, x == 0, zi_logits))


def poisson_log_prob(x: Tensor, rate: Tensor) -> Tensor:
    r"""Poisson distribution, :math:`x \log r - r - \log x!`.

    Parameters
    ----------
    x
        Counts >= 0.
    rate
        Mean >= 0. At 0 all mass is at ``x = 0``.

    Returns
    -------
    Log-probabilities in nats, in the broadcast shape.
    """
    (x, rate), finish = _prepare(x, rate)
    return finish(_Poisson.apply(x, rate))


def nb_mixture_log_prob(
    x: Tensor, mu1: Tensor, mu2: Tensor, theta1: Tensor, theta2: Tensor, mixture_logits: Tensor
) -> Tensor:
    r"""Mixture of two negative binomials, the first with weight :math:`w = \mathrm{sigmoid}(\text{mixture\_logits})`.

    .. math:: \log\left(w\,\mathrm{NB}(x; \mu_1, \theta_1) + (1 - w)\,\mathrm{NB}(x; \mu_2, \theta_2)\right)

    Parameters
    ----------
    x
        Counts >= 0.
    mu1, mu2, theta1, theta2
        Mean and inverse dispersion of the two components, as in :func:`nb_log_prob`.
    mixture_logits
        Log-odds of the first component.

    Returns
    -------
    Log-probabilities in nats, in the broadcast shape.
    """
    first = nb_log_prob(x, mu1, theta1) + logsigmoid(mixture_logits)
    second = nb_log_prob(x, mu2, theta2) + logsigmoid(-mixture_logits)
    return torch.logaddexp(first, second)


# --------------------------------------------------------------------------------------------------------------------
# Values and derivatives. Each Function sees one float dtype; gradients are summed back to the shape of their argument.


class _LogGammaRatio(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, theta: Tensor) -> Tensor:
        n = x + theta
        ratio = x / theta
        log_ratio = torch.log1p(ratio)
        stirling = _stirling_error(n) - _stirling_error(theta)
        return x * torch.log(n) + theta * _log1p_minus(ratio, log_ratio) - 0.5 * log_ratio + stirling

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, theta = ctx.saved_tensors
        d_theta = torch.log1p(x / theta) + _digamma_excess(x, theta)
        d_x = torch.digamma(x + theta) if ctx.needs_input_grad[0] else None
        return _to_shape(grad, d_x, x), _to_shape(grad, d_theta, theta)


class _NegativeBinomial(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
        zero = x == 0
        x = x + zero  # any count, where the other branch is taken
        n, m = x + theta, mu + theta
        share = theta / m
        surplus = (x - mu) * share
        log_ratio = torch.log(m / n)
        deviance = _deviance(x, mu * (n / m), surplus, torch.log(x / mu) + log_ratio)
        deviance = deviance + _deviance(theta, n * share, -surplus, log_ratio)
        width = _stirling_error(n) - _stirling_error(theta) - 0.5 * torch.log1p(x / theta)
        return torch.where(zero, -theta * torch.log1p(mu / theta), width - _log_inverse_mode(x) - deviance)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mu, theta = ctx.saved_tensors
        n, m = x + theta, mu + theta
        needs_x, needs_mu, needs_theta = ctx.needs_input_grad
        d_x = d_mu = d_theta = None
        if needs_x:
            d_x = torch.log(mu / m) + torch.digamma(n) - torch.digamma(x + 1)
        if needs_mu:
            d_mu = (theta / m) * _relative_surplus(x, mu)
        if needs_theta:
            d_theta = _log1p_minus((x - mu) / m, torch.log(n / m)) + _digamma_excess(x, theta)
        return _to_shape(grad, d_x, x), _to_shape(grad, d_mu, mu), _to_shape(grad, d_theta, theta)


class _Poisson(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rate: Tensor) -> Tensor:
        zero = x == 0
        x = x + zero
        return torch.where(zero, -rate, -_log_inverse_mode(x) - _deviance(x, rate, x - rate, torch.log(x / rate)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, rate = ctx.saved_tensors
        d_x = torch.log(rate) - torch.digamma(x + 1) if ctx.needs_input_grad[0] else None
        return _to_shape(grad, d_x, x), _to_shape(grad, _relative_surplus(x, rate), rate)


class _ZeroInflated(Function):
    """Log-probabilities ``log_p`` of counts, some of which are lost: ``zero`` says where the count is 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor, zero: Tensor, zi_logits: Tensor) -> Tensor:
        seen = -torch.sigmoid(-zi_logits) * torch.expm1(log_p)  # at a zero: probability that the count is not zero
        log_kept = logsigmoid(-zi_logits)
        rarely_zero = torch.logaddexp(zi_logits, log_p) + log_kept
        at_zero = torch.where(seen < 0.5, torch.log1p(-seen), rarely_zero)
        return torch.where(zero, at_zero, log_p + log_kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_p, zero, zi_logits = ctx.saved_tensors
        d_log_p = torch.where(zero, torch.sigmoid(log_p - zi_logits), 1)
        lost = torch.sigmoid(zi_logits - log_p)  # at a zero: probability that it is an added one
        d_zi = torch.where(zero, -lost * torch.sigmoid(-zi_logits) * torch.expm1(log_p), -torch.sigmoid(zi_logits))
        return _to_shape(grad, d_log_p, log_p), None, _to_shape(grad, d_zi, zi_logits)


# --------------------------------------------------------------------------------------------------------------------
# The pieces


def _stirling_error(z: Tensor) -> Tensor:
    """δ(z) = log Γ(z + 1) - (z + 1/2) log z + z - log(2π)/2, for z > 0."""
    z = _unexpand(z)
    start, n_terms, *_ = _PRECISION[z.dtype]
    inverse = 1 / z.clamp(min=start)
    series = inverse * _polynomial(_STIRLING[:n_terms], inverse * inverse)
    small = z.clamp(max=start)
    direct = torch.lgamma(small + 1) - (small + 0.5) * torch.log(small) + (small - _HALF_LOG_2PI)
    return torch.where(z < start, direct, series)


def _log_inverse_mode(x: Tensor) -> Tensor:
    """-log Pois(x; x) for x > 0."""
    return _stirling_error(x) + 0.5 * torch.log(x) + _HALF_LOG_2PI


def _digamma_excess(x: Tensor, theta: Tensor) -> Tensor:
    """ψ(x + θ) - ψ(θ) - log(1 + x/θ); the leading difference 1/2θ - 1/2(x+θ) is written as one quotient."""
    n = x + theta
    return 0.5 * (x / n) / theta + (_digamma_tail(theta) - _digamma_tail(n))


def _digamma_tail(z: Tensor) -> Tensor:
    """Log z - 1/(2z) - ψ(z), for z > 0."""
    z = _unexpand(z)
    start, n_terms, *_ = _PRECISION[z.dtype]
    inverse = 1 / z.clamp(min=start)
    square = inverse * inverse
    series = square * _polynomial(_DIGAMMA[:n_terms], square)
    small = z.clamp(max=start)
    direct = torch.log(small) - 0.5 / small - torch.digamma(small)
    return torch.where(z < start, direct, series)


def _deviance(x: Tensor, a: Tensor, surplus: Tensor, log_ratio: Tensor) -> Tensor:
    """D(x, a) = x log(x/a) + a - x, with ``surplus = x - a`` and ``log_ratio = log(x/a)``."""
    v = surplus / (x + a)
    near, tail = _atanh_tail(v)
    return torch.where(near, surplus * v + x * tail, x * log_ratio - surplus)


def _log1p_minus(u: Tensor, log_ratio: Tensor) -> Tensor:
    """Log(1 + u) - u, with ``log_ratio = log(1 + u)``."""
    v = u / (2 + u)
    near, tail = _atanh_tail(v)
    return torch.where(near, tail - u * v, log_ratio - u)


def _atanh_tail(v: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``v`` is near zero, and 2 (atanh v - v) there."""
    near = v.abs() < _NEAR
    v = v.clamp(-_NEAR, _NEAR)
    square = v * v
    return near, v * square * _polynomial(_ATANH[: _PRECISION[v.dtype].n_atanh], square)


def _relative_surplus(x: Tensor, mu: Tensor) -> Tensor:
    """x/μ - 1, and -1 at x = 0 whatever μ is; finite at μ = 0, so that a mask can still remove it."""
    floor = _PRECISION[mu.dtype].smallest
    return torch.where(x == 0, -1, (x - mu) / mu.clamp(min=floor))


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    *rest, last = coefficients
    return reduce(lambda value, c: value * x + c, reversed(rest[:-1]), last * x + rest[-1])


def _in_range(theta: Tensor) -> Tensor:
    """θ within the range where the formulas neither overflow nor underflow; NaN where it is negative."""
    limits = _PRECISION[theta.dtype]
    return torch.where(theta < 0, math.nan, theta.clamp(limits.smallest, limits.largest))


def _prepare(*tensors: Tensor) -> tuple[list[Tensor], Callable[[Tensor], Tensor]]:
    """The tensors in the dtype to compute in, and what gives the result its own dtype."""
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    compute = dtype if dtype in _PRECISION else torch.float32
    return [tensor.to(compute) for tensor in tensors], lambda result: result.to(dtype)


def _unexpand(tensor: Tensor) -> Tensor:
    """Undo ``expand``, so that a gene's gamma functions are computed once and not once a cell.

    Only where no graph is recorded: the gradient would arrive at the first entry instead of at all of them.
    """
    if torch.is_grad_enabled():
        return tensor
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _to_shape(grad: Tensor, derivative: Tensor | None, argument: Tensor) -> Tensor | None:
    return None if derivative is None else (grad * derivative).sum_to_size(argument.shape)
