"""Log-probability of proteins, background or foreground: scipy's, the fused form against the specification."""

import numpy as np
import pytest
import scipy.stats as st
import torch

from celbo import ops
from celbo.distributions import NegativeBinomialMixture
from celbo.ops import reference


def case(n=7, p=53, spread=1.0, most=40.0, dtype=torch.float64):
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.random((n, p)) * most * (rng.random((n, p)) < 0.8))
    log_mu = np.log(most / 4) + spread * rng.normal(size=(n, p))
    fold, theta = 1 + rng.gamma(1.0, 4.0, (n, p)), np.exp(spread * rng.normal(size=(n, p)))
    tables = (x, np.exp(log_mu), np.exp(log_mu) * fold, theta, 2 * spread * rng.normal(size=(n, p)))
    return [torch.tensor(table, dtype=dtype) for table in tables]


def test_is_the_sum_of_scipys():
    x, mu1, mu2, theta, logits = case()
    w = logits.sigmoid().numpy()
    parts = [st.nbinom.pmf(x, theta, theta / (theta + mu)) for mu in (mu1, mu2)]
    expected = np.log(w * parts[0] + (1 - w) * parts[1]).sum(1)
    for form, dtype, rtol in ((reference, torch.float64, 1e-9), (ops, torch.float32, 1e-5)):
        given = [table.to(dtype) for table in (x, mu1, mu2, theta, logits)]
        np.testing.assert_allclose(form.nb_mixture_log_prob_sum(*given), expected, rtol=rtol)


def test_gradients_of_the_specification():
    x, *parameters = case(n=3, p=6)
    given = [table.requires_grad_() for table in parameters]
    assert torch.autograd.gradcheck(lambda *these: reference.nb_mixture_log_prob_sum(x, *these), given)


@pytest.mark.parametrize("most", [2.0, 40.0, 5000.0])
@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_fused_form_against_float64(spread, most):
    x, *parameters = case(spread=spread, most=most)
    x[2, 5] = torch.nan
    upstream = torch.linspace(-0.5, 2, len(x), dtype=torch.float64)
    answers = []
    for form, dtype in ((ops, torch.float32), (reference, torch.float64)):
        given = [one.float().to(dtype).requires_grad_() for one in parameters]
        value_n = form.nb_mixture_log_prob_sum(x.to(dtype), *given)
        (value_n * upstream.to(dtype)).sum().backward()
        answers.append([value_n.detach().double(), *(one.grad.double() for one in given)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("form", [ops, reference])
def test_what_was_not_measured_adds_nothing(form):
    x, *parameters = case(dtype=torch.float32)
    x[:, 40:] = torch.nan
    given = [one.clone().requires_grad_() for one in parameters]
    value_n = form.nb_mixture_log_prob_sum(x, *given)
    value_n.sum().backward()
    left = form.nb_mixture_log_prob_sum(*(one[:, :40] for one in (x, *parameters)))
    torch.testing.assert_close(value_n.detach(), left)
    assert all((one.grad[:, 40:] == 0).all() for one in given)


def test_a_parameter_that_is_not_finite_is_not_hidden():
    for place in range(1, 5):
        tables = case(dtype=torch.float32)
        tables[place][3, 4] = torch.nan
        value_n = ops.nb_mixture_log_prob_sum(*tables)
        assert list(value_n.isnan()) == [i == 3 for i in range(len(value_n))]


def test_sums_of_the_distribution():
    x, mu1, mu2, theta, logits = case()
    shared = NegativeBinomialMixture(mu1, mu2, theta[0], logits)
    torch.testing.assert_close(shared.log_prob_sum(x), shared.log_prob(x).sum(-1))
    apart = NegativeBinomialMixture(mu1, mu2, theta, logits, theta2=2 * theta)
    torch.testing.assert_close(apart.log_prob_sum(x), apart.log_prob(x).sum(-1))
    missing = torch.where(torch.arange(x.shape[1]) < 9, torch.nan, x)
    for mixture in (shared, apart):
        torch.testing.assert_close(mixture.log_prob_sum(missing), mixture.log_prob(x)[:, 9:].sum(-1))
    expanded = shared.expand((2, *x.shape))
    torch.testing.assert_close(expanded.log_prob_sum(x), shared.log_prob_sum(x).expand(2, -1))
