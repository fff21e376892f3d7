r"""Numba kernels: log-probability and gradients of rows in one pass. ``compiling`` makes object code of them.

How a row goes through: softmax (``softmax_row``); the negative binomial as if every count were zero (``log1p_row``,
``dropout_row``); the nonzero counts one by one in float64 (``nonzeros_row``); the gradients (``grad_*_row``); the
softmax's Jacobian. With :math:`p = \mu/(\theta+\mu)`, :math:`\ell = \log(1 + \mu/\theta)` and :math:`w` the probability
that a zero is the count's own (1 without dropout and at nonzero counts):

.. math::
    \log \mathrm{NB} &= -\theta\ell + x(\log\mu - \ell)
        + [\log\Gamma(x+\theta) - \log\Gamma(\theta) - x\log\theta - \log x!] \\
    \partial / \partial \log\mu &= x(1-p) - w\theta p \\
    \partial / \partial \log\theta &= xp - w\theta(\ell - p) - [x - \theta(\psi(x+\theta) - \psi(\theta))]

The brackets are 0 for counts of 0 and 1, which is most of them; elsewhere see ``gamma_terms``.

Each dense step is a short loop of its own over few arrays: LLVM vectorises a loop over arrays that might overlap only
while it needs at most eight overlap checks. The row buffers stay in the nearest caches.

Rounding: arrays are float32; sums over a row and everything at a nonzero count are float64. The fast-math flags allow
fused multiply-add and ignore the sign of zero; NaN and infinity keep their meaning. Only sums may be reordered, and
that is settled when they are compiled: a row's result depends on nothing but the row.

Polynomials (fitted for this file by iteratively reweighted least squares, towards the least largest relative error):

- ``exp_negative``: :math:`e^r = 1 + r + r^2 Q(r)` on :math:`|r| \le \frac12\log 2`, Q of degree 4: 3e-9; measured with
  rounding: at most 9e-8 relative on [-87, 0]. Below -87.33, where float32 turns subnormal, it is 0.
- ``log1p``: :math:`\log(1+f) = f - f^2(\frac12 - f P(f))` on :math:`\sqrt{1/2} \le 1 + f \le \sqrt 2`, P of degree 7:
  6e-9; measured with rounding: at most 1.3e-7 relative on [-0.5, 1e30].

Everything compiled is here, in the other ``_kernel`` files and ``compiling``: ``machine_code`` notices changes of them.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "INNER",
    "SCRATCH_ROWS",
    "exp_negative",
    "find_nonzeros",
    "gamma_terms",
    "log1p",
    "log_factorial",
    "negative_binomial_rows",
    "poisson_rows",
]

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
F = np.float32
STRICT = {"contract", "nsz"}
INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
REORDER = {"contract", "nsz", "reassoc"}

LOG2_E = F(1.4426950408889634)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.1219444005469058e-4)  # the high part times any exponent is exact
ROUND_AND_BIAS = F(12582912.0 + 127.0)  # 1.5 * 2^23: adding it rounds to an integer that lies in the low bits
ROUND = F(12582912.0)
EXP_LOW = F(-87.33)
LARGEST_RATIO = F(1e30)  # mu / theta is cut here: 1 / (1 + ratio) must not be subnormal
SMALL_COUNT = 16.0  # up to here gamma functions are products
SHIFT = 8  # Stirling's series is used at arguments of at least this


@intrinsic
def bits_of(typing_context: object, value: object) -> tuple[Any, Any]:
    """A float32's bits as int32."""
    return types.int32(types.float32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(32)
    )


@intrinsic
def from_bits(typing_context: object, bits: object) -> tuple[Any, Any]:
    """The float32 with these int32 bits."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@njit(fastmath=STRICT, **INNER)
def exp_negative(x: np.float32) -> np.float32:
    """exp(x) for float32 x <= 0 or NaN."""
    shifted = x * LOG2_E + ROUND_AND_BIAS
    power = from_bits(np.int32(bits_of(shifted) << np.int32(23)))
    n = shifted - ROUND_AND_BIAS
    r = x - n * LN2_HIGH - n * LN2_LOW
    q = F(0.4999999403953552) + r * (
        F(0.1666652113199234)
        + r * (F(0.04166838899254799) + r * (F(0.00836874544620514) + r * F(0.0013814539415761828)))
    )
    value = (F(1.0) + (r + r * r * q)) * power
    return F(0.0) if x < EXP_LOW else value


@njit(fastmath=STRICT, **INNER)
def log1p_terms(x: np.float32) -> tuple[np.float32, np.float32, np.float32]:
    """(n, f, h) with log(1 + x) = n log 2 + f - f² h, for float32 x in [-1/2, 1e30] or NaN; x = f where n = 0."""
    bits = bits_of(F(1.0) + x)
    n = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
    scale = from_bits(np.int32((np.int32(127) - n) << np.int32(23)))
    f = scale * x + (scale - F(1.0))  # (1 + x) 2^-n - 1, rounded once
    p = F(0.14201553165912628) + f * (
        F(-0.1316058188676834) + f * (F(0.12763327360153198) + f * F(-0.07635655254125595))
    )
    p = F(0.3333333134651184) + f * (
        F(-0.250008225440979) + f * (F(0.20001234114170074) + f * (F(-0.16623298823833466) + f * p))
    )
    return F(n), f, F(0.5) - f * p


@njit(fastmath=STRICT, **INNER)
def log1p(x: np.float32) -> np.float32:
    """log(1 + x) for float32 x in [-1/2, 1e30] or NaN."""
    n, f, h = log1p_terms(x)
    return n * LN2_HIGH + (f - f * f * h + n * LN2_LOW)


@njit(fastmath=REORDER, **INNER)
def sum_row(values: Floats) -> float:
    """Sum in float64."""
    total = 0.0
    for j in range(values.size):
        total += np.float64(values[j])
    return total


@njit(fastmath=STRICT, **INNER)
def max_row(values: Floats) -> np.float32:
    """Largest entry, among the bits as integers: a maximum of floats does not vectorise. Anything if one is NaN."""
    top = np.int32(-0x80000000)
    for j in range(values.size):
        bits = bits_of(values[j])
        key = np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        top = max(top, key)
    return from_bits(np.int32(top ^ ((top >> np.int32(31)) & np.int32(0x7FFFFFFF))))


@njit(fastmath=STRICT, **INNER)
def softmax_row(logits: Floats, weights: Floats) -> tuple[np.float32, float]:
    """Fill ``weights`` with exp(logits - max); return (max, sum of weights)."""
    top = max_row(logits)
    for j in range(logits.size):
        weights[j] = exp_negative(logits[j] - top)
    return top, sum_row(weights)


@njit(fastmath=STRICT, **INNER)
def log1p_row(weights: Floats, rate: np.float32, inverse_theta: Floats, log_term: Floats, excess: Floats) -> None:
    """log_term = log1p(mu/theta), excess = log1p(mu/theta) - mu/(theta + mu), the latter without cancellation."""
    for j in range(weights.size):
        ratio = weights[j] * rate * inverse_theta[j]
        ratio = LARGEST_RATIO if ratio > LARGEST_RATIO else ratio
        n, f, h = log1p_terms(ratio)
        value = n * LN2_HIGH + (f - f * f * h + n * LN2_LOW)
        rest = F(1.0) / (F(1.0) + ratio)
        log_term[j] = value
        excess[j] = ratio * ratio * (rest - h) if n == F(0.0) else value - ratio * rest


@njit(fastmath=STRICT, **INNER)
def mean_share_row(weights: Floats, rate: np.float32, inverse_theta: Floats, share: Floats) -> None:
    """Fill ``share`` with mu / (theta + mu)."""
    for j in range(weights.size):
        ratio = weights[j] * rate * inverse_theta[j]
        ratio = LARGEST_RATIO if ratio > LARGEST_RATIO else ratio
        share[j] = ratio / (F(1.0) + ratio)


@njit(fastmath=STRICT, **INNER)
def dropout_row(log_term: Floats, theta: Floats, zi_logits: Floats, count_share: Floats) -> None:
    """Log-probability of a zero, in place of ``log_term``; count_share = P(the zero is the count's own, not dropout).

    With q = -theta log1p(mu/theta), z = zi_logits: log((e^z + e^q) / (1 + e^z)).
    """
    for j in range(log_term.size):
        q = -theta[j] * log_term[j]
        z = zi_logits[j]
        a = exp_negative(-abs(z - q))
        t = exp_negative(-abs(z))
        larger = (z if z > q else q) - (z if z > F(0.0) else F(0.0))
        log_term[j] = larger + log1p((a - t) / (F(1.0) + t))
        count_share[j] = (a if z > q else F(1.0)) / (F(1.0) + a)


@njit(fastmath=STRICT, **INNER)
def grad_dropout_row(x: Floats, zi_logits: Floats, count_share: Floats, upstream: np.float32, grad_zi: Floats) -> None:
    """d/d zi_logits times ``upstream``; count_share becomes 1 at nonzero counts, which are never dropout."""
    for j in range(x.size):
        z = zi_logits[j]
        t = exp_negative(-abs(z))
        dropout = (F(1.0) if z > F(0.0) else t) / (F(1.0) + t)
        share = count_share[j] if x[j] == F(0.0) else F(1.0)
        grad_zi[j] = ((F(1.0) - share) - dropout) * upstream
        count_share[j] = share


@njit(fastmath=STRICT, **INNER)
def grad_mean_row(x: Floats, share: Floats, count_share: Floats, theta: Floats, grad: Floats) -> None:
    """d/d log mu."""
    for j in range(x.size):
        grad[j] = x[j] * (F(1.0) - share[j]) - count_share[j] * theta[j] * share[j]


@njit(fastmath=STRICT, **INNER)
def grad_theta_row(x: Floats, share: Floats, count_share: Floats, theta: Floats, excess: Floats, grad: Floats) -> None:
    """d/d log theta, less the part of the gamma functions (``add_gammas_row``)."""
    for j in range(x.size):
        grad[j] = x[j] * share[j] - count_share[j] * theta[j] * excess[j]


@njit(**INNER)
def add_gammas_row(index: Indices, found: int, gammas: Floats, grad: Floats) -> None:
    """Complete d/d log theta where counts are not zero."""
    for i in range(found):
        grad[index[i]] -= gammas[i]


@njit(fastmath=STRICT, **INNER)
def softmax_jacobian_row(grad: Floats, weights: Floats, factor: np.float32, upstream: np.float32) -> None:
    """From d/d log mu to d/d logits times ``upstream``."""
    for j in range(grad.size):
        grad[j] = (grad[j] - weights[j] * factor) * upstream


@njit(**INNER)
def stirling_rest(z: float) -> float:
    """lgamma(z) - (z - 1/2) log z + z - log(2 pi)/2 for z >= 8, to 3e-10."""
    w = 1.0 / (z * z)
    return (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0))) / z


@njit(**INNER)
def digamma_rest(z: float) -> float:
    """digamma(z) - log z for z >= 8, to 3e-10."""
    w = 1.0 / (z * z)
    return -0.5 / z - w * (1.0 / 12.0 - w * (1.0 / 120.0 - w * (1.0 / 252.0)))


@njit(**INNER)
def gamma_terms_small(x: float, theta: float, log_theta: float) -> tuple[float, float]:
    """``gamma_terms`` for whole x <= 16: products and sums of x terms."""
    rising, factorial, slope = 1.0, 1.0, 0.0
    i = 1.0
    while i < x:
        rising *= theta + i
        factorial *= i + 1.0
        slope += i / (theta + i)
        i += 1.0
    return math.log(rising / factorial) - (x - 1.0) * log_theta, slope


@njit(**INNER)
def gamma_terms(x: float, theta: float, log_theta: float) -> tuple[float, float]:
    """The two brackets of the file's formula at a count x > 0; NaN for anything else.

    But for log x! both vanish as theta grows, the Poisson limit: differences are taken inside Stirling's series.
    """
    if x == 1.0:
        return 0.0, 0.0
    if not x > 0.0:
        return math.nan, math.nan
    if x <= SMALL_COUNT and x == math.floor(x) and theta < 1e15:
        return gamma_terms_small(x, theta, log_theta)
    log_shift, slope_shift, a = 0.0, 0.0, theta
    if theta < SHIFT:
        product = 1.0
        for i in range(SHIFT):
            product *= (theta + i) / (x + theta + i)
            slope_shift += x / ((theta + i) * (x + theta + i))
        a = theta + SHIFT
        log_shift = math.log(product) + x * (math.log(a) - log_theta)
    growth = math.log1p(x / a)
    log_ratio = (x + a - 0.5) * growth - x + stirling_rest(x + a) - stirling_rest(a)
    digamma_gap = growth + digamma_rest(x + a) - digamma_rest(a) + slope_shift
    return log_ratio + log_shift - math.lgamma(x + 1.0), x - theta * digamma_gap


@njit(fastmath=REORDER, **INNER)
def sum_zeros_row(x: Floats, values: Floats) -> float:
    """Sum in float64 over the zero counts."""
    total = 0.0
    for j in range(x.size):
        total += np.float64(values[j]) if x[j] == F(0.0) else 0.0
    return total


@njit(fastmath=STRICT, **INNER)
def zero_row(log_term: Floats, theta: Floats, count_share: Floats) -> None:
    """``dropout_row`` without dropout."""
    for j in range(log_term.size):
        log_term[j] *= -theta[j]
        count_share[j] = F(1.0)


@njit(**INNER)
def find_nonzeros(x: Floats, index: Indices) -> int:
    """Fill ``index`` with the columns of nonzero counts, return how many."""
    found = 0
    for j in range(x.size):  # no branch: which genes are zero cannot be predicted
        index[found] = j
        found += int(x[j] != F(0.0))
    return found


@njit(fastmath=STRICT, **INNER)
def log_not_dropout(z: np.float32) -> np.float32:
    """log(1 - sigmoid(z))."""
    return -((z if z > F(0.0) else F(0.0)) + log1p(exp_negative(-abs(z))))


@njit(fastmath=REORDER, **INNER)
def nonzeros_dropout_row(index: Indices, found: int, zi_logits: Floats) -> float:
    """Log-probability that none of the nonzero counts was dropped."""
    total = 0.0
    for j in range(found):
        total += np.float64(log_not_dropout(zi_logits[index[j]]))
    return total


@njit(**INNER)
def nonzeros_row(
    index: Indices,
    found: int,
    x: Floats,
    logits: Floats,
    log_term: Floats,
    theta: Floats,
    log_theta: Floats,
    offset: float,
    gammas: Floats,
) -> float:
    """Log-probability of the nonzero counts, without dropout; ``gammas`` gets the bracket of d/d log theta."""
    total = 0.0
    for i in range(found):
        j = index[i]
        count = np.float64(x[j])
        size: float = np.float64(theta[j])
        log_share: float = np.float64(log_term[j])
        if count > SMALL_COUNT:  # the terms are large and cancel
            size = math.exp(np.float64(log_theta[j]))
            log_share = math.log1p(math.exp(logits[j] + offset - log_theta[j]))
        log_gammas, slope = gamma_terms(count, size, np.float64(log_theta[j]))
        total += count * (logits[j] + offset - log_share) - size * log_share + log_gammas
        gammas[i] = F(slope)
    return total


@njit(**INNER)
def log_factorial(x: float) -> float:
    """lgamma(x + 1) for x > 0; NaN for anything else."""
    if x <= SMALL_COUNT and x == math.floor(x):
        factorial, i = 1.0, 2.0
        while i <= x:
            factorial *= i
            i += 1.0
        return math.log(factorial) if x > 0.0 else math.nan
    return math.lgamma(x + 1.0) if x >= 0.0 else math.nan


@njit(**INNER)
def nonzeros_poisson_row(index: Indices, found: int, x: Floats, logits: Floats, offset: float) -> float:
    """Sum over nonzero counts of x log mu - lgamma(x + 1)."""
    total = 0.0
    for i in range(found):
        count = np.float64(x[index[i]])
        total += count * (logits[index[i]] + offset) - log_factorial(count)
    return total


@njit(fastmath=STRICT, **INNER)
def grad_poisson_row(x: Floats, weights: Floats, factor: np.float32, upstream: np.float32, grad: Floats) -> None:
    """d/d logits, x - softmax * sum(x), times ``upstream``."""
    for j in range(x.size):
        grad[j] = (x[j] - weights[j] * factor) * upstream


SCRATCH_ROWS = 6


@njit(**INNER)
def negative_binomial_rows(
    x_ng: Floats,
    logits_ng: Floats,
    log_library_n: Floats,
    theta_ng: Floats,
    inverse_theta_ng: Floats,
    log_theta_ng: Floats,
    zi_logits_ng: Floats,
    values_n: Floats,
    grad_logits_ng: Floats,
    grad_library_n: Floats,
    grad_log_theta_ng: Floats,
    grad_zi_ng: Floats,
    upstream: np.float32,
    scratch: Floats,
    index: Indices,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop of the (zero-inflated) negative binomial.

    The three thetas have one row or n. An array without rows switches its part off: ``zi_logits_ng`` dropout,
    ``grad_log_theta_ng`` that gradient, ``grad_logits_ng`` all gradients. Those of logits are times ``upstream``.
    ``scratch`` is ``(SCRATCH_ROWS, g)`` and ``index`` is ``(g,)``.
    """
    weights, log_term, share = scratch[0], scratch[1], scratch[2]
    excess, count_share, gammas = scratch[3], scratch[4], scratch[5]
    theta_step = 1 if theta_ng.shape[0] > 1 else 0
    has_dropout, wants_gradients = zi_logits_ng.shape[0] > 0, grad_logits_ng.shape[0] > 0
    for i in range(start, stop):
        k = i * theta_step
        x, logits, theta, inverse_theta = x_ng[i], logits_ng[i], theta_ng[k], inverse_theta_ng[k]
        top, total = softmax_row(logits, weights)
        rate = F(math.exp(log_library_n[i]) / total)
        offset = np.float64(log_library_n[i]) - np.float64(top) - math.log(total)
        log1p_row(weights, rate, inverse_theta, log_term, excess)
        found = find_nonzeros(x, index)
        value = nonzeros_row(index, found, x, logits, log_term, theta, log_theta_ng[k], offset, gammas)
        if has_dropout:
            zi_logits = zi_logits_ng[i]
            value += nonzeros_dropout_row(index, found, zi_logits)
            dropout_row(log_term, theta, zi_logits, count_share)
        else:
            zero_row(log_term, theta, count_share)
        values_n[i] = F(value + sum_zeros_row(x, log_term))
        if not wants_gradients:
            continue
        if has_dropout:
            grad_dropout_row(x, zi_logits, count_share, upstream, grad_zi_ng[i])
        mean_share_row(weights, rate, inverse_theta, share)
        if grad_log_theta_ng.shape[0] > 0:
            grad_log_theta = grad_log_theta_ng[i]
            grad_theta_row(x, share, count_share, theta, excess, grad_log_theta)
            add_gammas_row(index, found, gammas, grad_log_theta)
        grad_logits = grad_logits_ng[i]
        grad_mean_row(x, share, count_share, theta, grad_logits)
        slope = sum_row(grad_logits)
        grad_library_n[i] = F(slope)
        softmax_jacobian_row(grad_logits, weights, F(slope / total), upstream)


@njit(**INNER)
def poisson_rows(
    x_ng: Floats,
    logits_ng: Floats,
    log_library_n: Floats,
    values_n: Floats,
    grad_logits_ng: Floats,
    grad_library_n: Floats,
    upstream: np.float32,
    scratch: Floats,
    index: Indices,
    start: int,
    stop: int,
) -> None:
    """Rows start..stop of the Poisson; without rows in ``grad_logits_ng`` no gradients, and they are times upstream."""
    weights = scratch[0]
    for i in range(start, stop):
        x, logits, log_library = x_ng[i], logits_ng[i], np.float64(log_library_n[i])
        top, total = softmax_row(logits, weights)
        rate = math.exp(log_library) * (total / total)  # times 1, or NaN where a logit is
        found = find_nonzeros(x, index)
        values_n[i] = F(nonzeros_poisson_row(index, found, x, logits, log_library - top - math.log(total)) - rate)
        if grad_logits_ng.shape[0] > 0:
            slope = sum_row(x) - rate
            grad_library_n[i] = F(slope)
            factor = F((slope + rate) / total)  # NaN where the rate is
            grad_poisson_row(x, weights, factor, upstream, grad_logits_ng[i])
