"""Oracles: mpmath with 90 digits, scipy in float64, scvi-tools' own numbers."""

import itertools

import mpmath
import numpy as np
import pytest
import scipy.stats as st
import torch
from torch.autograd import gradcheck, gradgradcheck

from celbo.ops.elementwise import (
    log_gamma_ratio,
    nb_log_prob,
    nb_mixture_log_prob,
    poisson_log_prob,
    zinb_log_prob,
)

COUNTS = [0, 1, 2, 7, 30, 5000, 1e6]
MU = [1e-6, 0.1, 3.0, 1e4, 1e6]
THETA = [1e-4, 0.5, 2.9, 7.0, 1e4, 1e8, 1e14]
ZI = [-30.0, -2.0, 3.0, 30.0]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}


def grid(*axes):
    """Every combination, in numbers that float32 can hold: one row a variable."""
    return np.array(list(itertools.product(*axes)), dtype=np.float32).T.astype(np.float64)


def exactly(function, columns):
    """``function`` of every column, with 90 digits."""
    with mpmath.workdps(90):
        return np.array([float(function(*map(mpmath.mpf, map(float, column)))) for column in columns.T])


def nb(x, mu, theta):
    gamma_functions = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
    return gamma_functions + theta * mpmath.log(theta / (theta + mu)) + x * mpmath.log(mu / (theta + mu))


def nb_dmu(x, mu, theta):
    return theta * (x - mu) / (mu * (theta + mu))


def nb_dtheta(x, mu, theta):
    digammas = mpmath.digamma(x + theta) - mpmath.digamma(theta)
    return digammas + mpmath.log(theta / (theta + mu)) + (mu - x) / (theta + mu)


def zinb(x, mu, theta, zi_logits):
    pi = 1 / (1 + mpmath.exp(-zi_logits))
    return mpmath.log((pi if x == 0 else 0) + (1 - pi) * mpmath.exp(nb(x, mu, theta)))


def zinb_dzi(x, mu, theta, zi_logits):
    pi = 1 / (1 + mpmath.exp(-zi_logits))
    if x > 0:
        return -pi
    p = mpmath.exp(nb(x, mu, theta))
    return pi * (1 - pi) * (1 - p) / (pi + (1 - pi) * p)


def tensors(columns, dtype, requires_grad=False):
    return [torch.tensor(row, dtype=dtype, requires_grad=requires_grad) for row in columns]


def assert_relative(came, wanted, tolerance, scale=None):
    error = np.abs(came.detach().double().numpy() - wanted)
    allowed = tolerance * (np.abs(wanted) if scale is None else scale)
    worst = np.argmax(error - allowed)
    assert (error <= allowed).all(), f"error {error[worst]:.2g} of {wanted[worst]:.8g} at {worst}"


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nb_is_exact(dtype):
    columns = grid(COUNTS, MU, THETA)
    x, mu, theta = tensors(columns, dtype, requires_grad=True)
    log_prob = nb_log_prob(x.detach(), mu, theta)
    d_mu, d_theta = torch.autograd.grad(log_prob.sum(), (mu, theta))
    assert_relative(log_prob, exactly(nb, columns), TOLERANCE[dtype])
    assert_relative(d_mu, exactly(nb_dmu, columns), TOLERANCE[dtype])
    # A difference of two positive terms, that may vanish: errors are counted in units of the larger one.
    x, mu, theta = columns
    d_theta_exact = exactly(nb_dtheta, columns)
    surplus = (x - mu) / (theta + mu)
    scale = np.abs(d_theta_exact) + np.abs(np.log1p(surplus) - surplus) + 1e-300
    assert_relative(d_theta, d_theta_exact, 5 * TOLERANCE[dtype], np.maximum(scale, x / (theta * (x + theta))))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zinb_is_exact(dtype):
    columns = grid([0, 1, 30, 1e5], [1e-6, 0.3, 1e4], [1e-4, 2.0, 1e8], ZI)
    x, mu, theta, zi_logits = tensors(columns, dtype, requires_grad=True)
    log_prob = zinb_log_prob(x.detach(), mu, theta, zi_logits)
    (d_zi,) = torch.autograd.grad(log_prob.sum(), zi_logits)
    assert_relative(log_prob, exactly(zinb, columns), TOLERANCE[dtype])
    assert_relative(d_zi, exactly(zinb_dzi, columns), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_poisson_is_exact(dtype):
    columns = grid(COUNTS, [1e-6, 0.1, 3.0, 31.0, 5e3, 1e6])
    x, rate = tensors(columns, dtype, requires_grad=True)
    log_prob = poisson_log_prob(x.detach(), rate)
    (d_rate,) = torch.autograd.grad(log_prob.sum(), rate)
    exact = exactly(lambda x, rate: x * mpmath.log(rate) - rate - mpmath.loggamma(x + 1), columns)
    assert_relative(log_prob, exact, TOLERANCE[dtype])
    assert_relative(d_rate, exactly(lambda x, rate: x / rate - 1, columns), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_log_gamma_ratio_is_exact(dtype):
    columns = grid(COUNTS, THETA)
    x, theta = tensors(columns, dtype, requires_grad=True)
    ratio = log_gamma_ratio(x.detach(), theta)
    (d_theta,) = torch.autograd.grad(ratio.sum(), theta)
    exact = exactly(lambda x, theta: mpmath.loggamma(x + theta) - mpmath.loggamma(theta), columns)
    assert_relative(ratio, exact, TOLERANCE[dtype], np.maximum(np.abs(exact), 1))
    d_exact = exactly(lambda x, theta: mpmath.digamma(x + theta) - mpmath.digamma(theta), columns)
    assert_relative(d_theta, d_exact, TOLERANCE[dtype], np.maximum(np.abs(d_exact), 1e-300))


def test_nb_equals_scipy():
    x, mu, theta = grid([0, 1, 5, 80], [0.2, 9.0], [0.4, 25.0])
    came = nb_log_prob(*(torch.tensor(v) for v in (x, mu, theta)))
    np.testing.assert_allclose(came, st.nbinom.logpmf(x, theta, theta / (theta + mu)), rtol=1e-10)


def test_mixture_equals_sum_of_probabilities():
    x, mu1, mu2, theta1, theta2, logits = tensors(
        grid([0, 3, 50], [0.5, 8.0], [30.0], [1.0, 1e7], [4.0], [-5.0, 0.0, 5.0]), torch.float64
    )
    weight = logits.sigmoid()
    p = weight * nb_log_prob(x, mu1, theta1).exp() + (1 - weight) * nb_log_prob(x, mu2, theta2).exp()
    torch.testing.assert_close(nb_mixture_log_prob(x, mu1, mu2, theta1, theta2, logits), p.log())


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_agrees_with_scvi_tools(shared_dir, dtype):
    known = dict(np.load(shared_dir / "parity" / "count_likelihoods.npz"))
    names = ("x", "mu", "theta", "zi_logits")
    x, mu, theta, zi_logits = tensors([known[name] for name in names], dtype, requires_grad=True)
    x = x.detach()
    nb_value, zinb_value = nb_log_prob(x, mu, theta), zinb_log_prob(x, mu, theta, zi_logits)
    close = {"rtol": 2e-5, "atol": 1e-6}  # its logarithms hold an epsilon of 1e-8
    np.testing.assert_allclose(nb_value.detach(), known["nb"], **close)
    np.testing.assert_allclose(zinb_value.detach(), known["zinb"][0], **close)
    for name, gradient in zip(("dmu", "dtheta"), torch.autograd.grad(nb_value.sum(), (mu, theta)), strict=True):
        np.testing.assert_allclose(gradient, known[f"nb_{name}"], **close)
    gradients = torch.autograd.grad(zinb_value.sum(), (mu, theta, zi_logits))
    for name, gradient in zip(("dmu", "dtheta", "dzi_logits"), gradients, strict=True):
        np.testing.assert_allclose(gradient, known[f"zinb_{name}"], **close)


def test_a_mean_of_zero_is_a_point_mass_at_zero():
    x, mu = torch.tensor([0.0, 1.0, 40.0]), torch.zeros(3, requires_grad=True)
    theta, zi_logits = torch.full((3,), 2.0, requires_grad=True), torch.zeros(3, requires_grad=True)
    expected = torch.tensor([0.0, -torch.inf, -torch.inf])
    for log_prob in (nb_log_prob(x, mu, theta), zinb_log_prob(x, mu, theta, zi_logits), poisson_log_prob(x, mu)):
        torch.testing.assert_close(log_prob.detach(), expected)
        gradients = torch.autograd.grad(log_prob[0], (mu, theta, zi_logits), allow_unused=True)
        assert all(bool(g.isfinite().all()) for g in gradients if g is not None)
    torch.testing.assert_close(torch.autograd.grad(nb_log_prob(x, mu, theta)[0], mu)[0][0], torch.tensor(-1.0))


def test_large_theta_is_poisson():
    x, mu = (torch.tensor(row, dtype=torch.float32) for row in grid([0, 1, 12, 1e5], [0.1, 10.0, 1e5]))
    for theta in (1e17, 1e30, torch.inf):
        torch.testing.assert_close(nb_log_prob(x, mu, torch.tensor(theta)), poisson_log_prob(x, mu), rtol=1e-6, atol=0)


def test_vanishing_theta_stays_finite():
    theta = torch.zeros(2, requires_grad=True)
    log_prob = nb_log_prob(torch.tensor([0.0, 3.0]), torch.tensor([5.0, 5.0]), theta)
    assert log_prob[0].abs() < 1e-25
    assert -100 < log_prob[1] < -60
    assert bool(torch.autograd.grad(log_prob.sum(), theta)[0].isfinite().all())


def test_nonsense_is_nan_and_not_a_number_that_looks_right():
    x, mu, theta = torch.tensor([-1.0, 2.0, 2.0]), torch.tensor([1.0, -1.0, 1.0]), torch.tensor([1.0, 1.0, -1.0])
    assert bool(nb_log_prob(x, mu, theta).isnan().all())


FUNCTIONS = {
    "log_gamma_ratio": (log_gamma_ratio, ("x", "theta")),
    "nb": (nb_log_prob, ("x", "mu", "theta")),
    "zinb": (zinb_log_prob, ("x", "mu", "theta", "zi_logits")),
    "poisson": (poisson_log_prob, ("x", "mu")),
}


@pytest.fixture(params=FUNCTIONS)
def function_and_inputs(request, torch_rng):
    function, names = FUNCTIONS[request.param]
    made = {
        "x": torch.tensor([[0.0, 1.0, 6.0, 40.0]] * 3, dtype=torch.float64),
        "mu": 0.2 + 20 * torch.rand(3, 4, generator=torch_rng, dtype=torch.float64),
        "theta": torch.tensor([0.3, 2.0, 9.0, 300.0], dtype=torch.float64),
        "zi_logits": torch.randn(3, 1, generator=torch_rng, dtype=torch.float64),
    }
    return function, [made[name].requires_grad_(name != "x") for name in names]


def test_gradcheck(function_and_inputs):
    assert gradcheck(*function_and_inputs)
    assert gradgradcheck(*function_and_inputs)


def test_gradient_in_the_counts(function_and_inputs):
    function, (x, *others) = function_and_inputs
    x = (x.detach() + 0.3).requires_grad_()
    assert gradcheck(lambda x: function(x, *others), (x,))


def test_vmap_and_grad_of_torch_func(function_and_inputs):
    function, inputs = function_and_inputs
    inputs = torch.broadcast_tensors(*(argument.detach() for argument in inputs))
    torch.testing.assert_close(torch.func.vmap(function)(*inputs), function(*inputs))
    gradient = torch.func.grad(lambda last: function(*inputs[:-1], last).sum())(inputs[-1])
    last = inputs[-1].clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(function(*inputs[:-1], last).sum(), last)[0])


def test_broadcasts_and_expanded_arguments_give_the_same(function_and_inputs):
    function, inputs = function_and_inputs
    expanded = [argument.expand(2, 3, 4) for argument in inputs]
    came = function(*expanded)
    assert came.shape == (2, 3, 4)
    torch.testing.assert_close(came, function(*(argument.contiguous() for argument in expanded)))
    gradients = torch.autograd.grad(came.sum(), inputs[1:])
    assert [g.shape for g in gradients] == [argument.shape for argument in inputs[1:]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(function_and_inputs, dtype):
    function, inputs = function_and_inputs
    halves = [argument.detach().to(dtype) for argument in inputs]
    came = function(*halves)
    assert came.dtype == dtype
    torch.testing.assert_close(came, function(*(argument.float() for argument in halves)).to(dtype))


def test_integer_counts():
    mu, theta = torch.tensor(3.0), torch.tensor(2.0)
    x = torch.tensor([0, 4, 9])
    torch.testing.assert_close(nb_log_prob(x, mu, theta), nb_log_prob(x.float(), mu, theta))
