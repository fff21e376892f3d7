"""The contract of a distribution as one call: exact, normalized, differentiable, rightly shaped, sampled as declared.

Dims: v values, p parameter sets, s samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Distribution, Independent

from ..core import checked
from ..distributions import CountDistribution
from ..ops.random import private_rng

__all__ = ["check_distribution"]

Make: TypeAlias = Callable[..., Distribution]
Parameters: TypeAlias = dict[str, Tensor]

_BLOCK = 4096  # counts summed first; every further block is as long as all before it
_MAX_COUNT = 2**22
_N_SIGMA = 6.0


@checked
def check_distribution(
    make: Make,
    parameters: Mapping[str, Sequence[float] | np.ndarray | Tensor],
    values: Sequence[float] | np.ndarray | Tensor,
    *,
    log_prob: Callable[..., np.ndarray] | None = None,
    rtol: float = 1e-5,
    n_samples: int = 4000,
    seed: int = 0,
) -> None:
    """Check everything that celbo asks of a distribution; the first breach raises.

    1. ``batch_shape``, ``event_shape``, ``expand``, :class:`torch.distributions.Independent`, the shapes of ``mean``,
       ``variance`` and ``log_prob``, and a one-line ``repr`` with the name of the class.
    2. ``log_prob`` in float32 equals ``log_prob`` in float64, and that equals the oracle where one is given.
    3. Gradients with respect to all but integer parameters: in float32 they are finite and equal those in float64,
       which equal finite differences.
    4. Probabilities sum (of real values: integrate) to 1, and their moments are ``mean`` and ``variance``.
    5. Samples have the right shape and dtype, lie in the support, and have these moments.
    6. ``log_prob_sum``, for a :class:`celbo.distributions.CountDistribution`, equals ``log_prob(...).sum(-1)``.

    Parameters
    ----------
    make
        Builds the distribution from keyword arguments, tensors of one shape and any float dtype: usually the class.
    parameters
        For every keyword of ``make``, ``p`` numbers: ``p`` sets of parameters are tried.
    values
        ``v`` values at which log-probabilities are compared, under every set of parameters. Counts may go up to 1e6.
    log_prob
        Oracle, called as ``log_prob(values, **parameters)`` with float64 arrays that broadcast to ``(v, p)``; it may
        err by 1e-8 of ``1 + x log x``, as formulas made of gamma functions do.
    rtol
        Relative (and absolute) tolerance of float32 log-probabilities; that of gradients is ten times it.
    n_samples
        Samples drawn under every set of parameters.
    seed
        Of the samples. The global generator is left as it was.

    Raises
    ------
    AssertionError
        With what was expected, what came and under which parameters.

    Examples
    --------
    >>> from celbo.distributions import Poisson
    >>> check_distribution(Poisson, {"rate": [0.1, 20.0]}, values=[0, 1, 50])
    """
    # Numbers that float32 can hold, so that both precisions see the same ones.
    single = {name: torch.as_tensor(p).to(torch.float32) for name, p in parameters.items()}
    double = {name: p.double() for name, p in single.items()}
    values_v1 = torch.as_tensor(values).to(torch.float32)[:, None]
    _check_shapes(make(**single), values_v1)
    _check_precision(make, single, double, values_v1, log_prob, rtol)
    _check_gradients(make, single, double, values_v1, 10 * rtol)
    moments = _check_mass(make(**double), make, double)
    _check_samples(make(**single), moments, n_samples, seed)
    _check_sum(make, single, values_v1)


def _check_shapes(distribution: Distribution, values_v1: Tensor) -> None:
    (n_sets,) = distribution.mean.shape
    expected = torch.Size([n_sets])
    _assert_equal("batch_shape", distribution.batch_shape, expected)
    _assert_equal("event_shape", distribution.event_shape, torch.Size())
    _assert_equal("shape of variance", distribution.variance.shape, expected)
    log_prob_vp = distribution.log_prob(values_v1)
    _assert_equal("shape of log_prob", log_prob_vp.shape, torch.Size([len(values_v1), n_sets]))
    wider = distribution.expand(torch.Size([2, n_sets]))
    _assert_equal("class after expand", type(wider), type(distribution))
    _assert_equal("batch_shape after expand", wider.batch_shape, torch.Size([2, n_sets]))
    torch.testing.assert_close(wider.log_prob(values_v1[0]), log_prob_vp[0].expand(2, n_sets), equal_nan=True)
    joint = Independent(distribution, 1).log_prob(values_v1.expand(-1, n_sets))
    torch.testing.assert_close(joint, log_prob_vp.sum(-1), equal_nan=True)
    text = repr(distribution)
    assert type(distribution).__name__ in text, f"repr lacks the name of the class: {text}"
    assert "\n" not in text, f"repr has more than one line: {text}"


def _check_precision(
    make: Make,
    single: Parameters,
    double: Parameters,
    values_v1: Tensor,
    oracle: Callable[..., np.ndarray] | None,
    rtol: float,
) -> None:
    exact_vp = make(**double).log_prob(values_v1.double())
    _assert_equal("dtype of log_prob in float64", exact_vp.dtype, torch.float64)
    if oracle is not None:
        known = oracle(values_v1.double().numpy(), **{name: p.numpy() for name, p in double.items()})
        size_v1 = values_v1.double().abs()
        slack_v1 = 1e-8 * (1 + size_v1 * size_v1.log1p())
        _assert_close("log_prob in float64 against the oracle", exact_vp, torch.as_tensor(known), 0.0, slack_v1, double)
    rough_vp = make(**single).log_prob(values_v1)
    _assert_equal("dtype of log_prob in float32", rough_vp.dtype, torch.float32)
    _assert_close("log_prob in float32 against float64", rough_vp, exact_vp, rtol, rtol, double)


def _check_gradients(make: Make, single: Parameters, double: Parameters, values_v1: Tensor, rtol: float) -> None:
    known = make(**single).arg_constraints
    names = [name for name in single if not (name in known and known[name].is_discrete)]
    rough = _elasticities(make, single, names, values_v1)
    exact = _elasticities(make, double, names, values_v1.double())
    for name in names:
        assert bool(exact[name].isfinite().all()), f"the float64 gradient with respect to {name} is not finite"
        what = f"gradient in float32 with respect to {name}, times {name},"
        _assert_close(what, rough[name], exact[name], rtol, rtol, double)

    steps = tuple(torch.zeros_like(double[name], requires_grad=True) for name in names)

    def log_prob_of_relative_steps(*steps: Tensor) -> Tensor:
        moved = {name: double[name] + step * _unit(double[name]) for name, step in zip(names, steps, strict=True)}
        log_prob_vp = make(**{**double, **moved}).log_prob(values_v1.double())
        return log_prob_vp.tanh()  # finite differences of 1e6 nats have no digits

    assert gradcheck(log_prob_of_relative_steps, steps, fast_mode=True, atol=1e-5, rtol=1e-4)


def _elasticities(make: Make, parameters: Parameters, names: list[str], values_v1: Tensor) -> Parameters:
    """Gradients ``(v, p)`` of log-probabilities with respect to relative changes of the parameters."""
    grid = {name: parameters[name].expand(len(values_v1), -1).clone().requires_grad_() for name in names}
    log_prob_vp = make(**{**parameters, **grid}).log_prob(values_v1)
    possible = log_prob_vp.isfinite()
    gradients = torch.autograd.grad(torch.where(possible, log_prob_vp, 0).sum(), list(grid.values()))
    scaled = (gradient * _unit(p.detach()) for gradient, p in zip(gradients, grid.values(), strict=True))
    return dict(zip(grid, scaled, strict=True))


def _unit(parameter: Tensor) -> Tensor:
    """What a relative change of 1 amounts to."""
    return torch.where(parameter == 0, 1, parameter)


def _check_mass(distribution: Distribution, make: Make, double: Parameters) -> Tensor:
    """Sum the probabilities; give mean, variance and fourth central moment under them, ``(3, p)``."""
    is_discrete = bool(distribution.support is not None and distribution.support.is_discrete)
    columns = []
    for i in range(distribution.batch_shape[0]):
        one = make(**{name: p[i] for name, p in double.items()})
        values, probs = _counted(one) if is_discrete else _integrated(one)
        mass, mean = probs.sum(), (probs * values).sum()
        deviations = values - mean
        columns.append(torch.stack([mass, mean, (probs * deviations**2).sum(), (probs * deviations**4).sum()]))
    mass, mean, variance, fourth = torch.stack(columns, -1)
    _assert_close("sum of all probabilities", mass, torch.ones_like(mass), 1e-7, 0.0, double)
    _assert_close("mean", distribution.mean, mean, 1e-6, 1e-12, double)
    _assert_close("variance", distribution.variance, variance, 1e-5, 1e-12, double)
    return torch.stack([mean, variance, fourth])


def _counted(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Counts and their probabilities, from 0 to where nothing more comes."""

    def probability(values: Tensor) -> Tensor:
        assert distribution.support is not None
        return torch.where(distribution.support.check(values), distribution.log_prob(values).exp(), 0)

    bound = distribution.mean + 10 * distribution.variance.sqrt()
    values = torch.arange(_BLOCK, dtype=torch.float64)
    probs = probability(values)
    while len(values) < _MAX_COUNT and (values[-1] < bound or probs[len(probs) // 2 :].sum() > 1e-12):
        further = values + len(values)
        probs = torch.cat([probs, probability(further)])
        values = torch.cat([values, further])
    return values, probs


def _integrated(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Real numbers and the probabilities around them: the trapezoid rule, over 12 standard deviations on each side."""
    n_points, reach = 4801, 12 * distribution.stddev
    values = distribution.mean + reach * torch.linspace(-1, 1, n_points, dtype=torch.float64)
    return values, distribution.log_prob(values).exp() * (2 * reach / (n_points - 1))


def _check_samples(distribution: Distribution, moments: Tensor, n_samples: int, seed: int) -> None:
    with private_rng(seed):
        x_sp = distribution.sample(torch.Size([n_samples]))
    _assert_equal("shape of a sample", x_sp.shape, torch.Size([n_samples, *distribution.batch_shape]))
    _assert_equal("dtype of a sample", x_sp.dtype, distribution.mean.dtype)
    assert not x_sp.requires_grad, "sample() carries a gradient"
    assert distribution.support is not None
    assert bool(distribution.support.check(x_sp).all()), "some samples lie outside of the support"
    mean, variance, fourth = moments
    error = (x_sp.double().mean(0) - mean).abs() / (variance / n_samples).sqrt()
    assert bool((error < _N_SIGMA).all()), f"sample means are {error.max():.1f} standard errors from the mean"
    spread = ((fourth - variance**2) / n_samples).sqrt()
    error = ((x_sp.double() - mean).square().mean(0) - variance).abs() / spread
    assert bool((error < _N_SIGMA).all()), f"sample variances are {error.max():.1f} standard errors from the variance"


def _check_sum(make: Make, single: Parameters, values_v1: Tensor) -> None:
    (n_sets,) = next(iter(single.values())).shape
    matrix = make(**{name: p.expand(len(values_v1), -1) for name, p in single.items()})
    if isinstance(matrix, CountDistribution):
        values_vp = values_v1.expand(-1, n_sets)
        expected = matrix.log_prob(values_vp).sum(-1)
        torch.testing.assert_close(matrix.log_prob_sum(values_vp), expected, rtol=1e-5, atol=1e-4)


def _assert_equal(what: str, came: object, wanted: object) -> None:
    assert came == wanted, f"{what}: expected {wanted}, got {came}"


def _assert_close(
    what: str, came: Tensor, wanted: Tensor, rtol: float, atol: float | Tensor, parameters: Parameters
) -> None:
    """Compare ``(..., p)`` tensors; infinities must be the same ones, NaN never passes."""
    came = came.detach().double()
    excess = ((came - wanted).abs() - (rtol * wanted.abs() + atol)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    excess = torch.where(came == wanted, 0.0, excess)
    if bool((excess <= 0).all()):
        return
    worst = np.unravel_index(int(excess.argmax()), excess.shape)
    where = ", ".join(f"{name}={p[worst[-1]].item():.6g}" for name, p in parameters.items())
    row = f" at value number {worst[0]}" if excess.dim() > 1 else ""
    raise AssertionError(f"{what}: expected {wanted[worst].item()!r}, got {came[worst].item()!r}{row} with {where}")
