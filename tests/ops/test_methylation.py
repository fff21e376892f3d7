"""Log-probability of methylated reads: scipy's, the fused form against the specification in float64."""

import numpy as np
import pytest
import scipy.stats as st
import torch

from celbo import ops
from celbo.ops import reference
from celbo.ops.methylation import methylation_log_prob

GAMMAS = ["none", "region", "cell"]


def case(gamma="region", scale=1.0, most=40, n=7, g=203, dtype=torch.float64):
    rng = np.random.default_rng(0)
    total = rng.integers(0, most, (n, g)) * (rng.random((n, g)) < 0.6)
    y = rng.binomial(total, 0.3)
    logits = scale * rng.normal(size=(n, g))
    shape = {"none": None, "region": (g,), "cell": (n, g)}[gamma]
    gammas = None if shape is None else torch.tensor(scale * rng.normal(-1, 1.5, shape), dtype=dtype)
    return *(torch.tensor(table, dtype=dtype) for table in (y, total, logits)), gammas


@pytest.mark.parametrize("gamma", GAMMAS)
def test_is_the_sum_of_scipys(gamma):
    y, total, logits, gammas = case(gamma)
    mu = logits.sigmoid().numpy()
    if gammas is None:
        expected = st.binom.logpmf(y, total, mu)
    else:
        size = (-gammas).exp().numpy()
        expected = st.betabinom.logpmf(y, total, mu * size, (1 - mu) * size)
    value = reference.methylation_log_prob_sum(y, total, logits, gammas)
    np.testing.assert_allclose(value, expected.sum(1), rtol=1e-9)
    samples = ops.methylation_log_prob_sum(y, total, logits.expand(2, -1, -1), gammas)
    torch.testing.assert_close(samples, value.expand(2, -1))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_no_reads_add_nothing(gamma):
    y, total, logits, gammas = case(gamma)
    entries = methylation_log_prob(y, total, logits, gammas)
    assert (entries[total == 0] == 0).all()
    for form in (ops, reference):
        odd = torch.where(total == 0, torch.nan, logits).requires_grad_()
        value = form.methylation_log_prob_sum(*(table.float() for table in (y, total, odd)), None)
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert (odd.grad[total == 0] == 0).all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_of_the_specification(gamma):
    y, total, logits, gammas = case(gamma, n=3, g=6)
    given = [table.requires_grad_() for table in (logits, gammas) if table is not None]
    assert torch.autograd.gradcheck(lambda *these: reference.methylation_log_prob_sum(y, total, *these), given)


@pytest.mark.parametrize("most", [3, 40, 3000])
@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_fused_form_against_float64(gamma, scale, most):
    y, total, *parameters = case(gamma, scale, most)
    upstream = torch.linspace(-0.5, 2, len(y), dtype=torch.float64)
    answers = []
    for form, dtype in ((ops, torch.float32), (reference, torch.float64)):
        given = [None if one is None else one.float().to(dtype).requires_grad_() for one in parameters]
        value_n = form.methylation_log_prob_sum(y.to(dtype), total.to(dtype), *given)
        (value_n * upstream.to(dtype)).sum().backward()
        answers.append([value_n.detach().double(), *(one.grad.double() for one in given if one is not None)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


def test_smallest_concentrations():
    """They stay at scvi-tools' 1e-8, without a gradient of what would make them smaller."""
    y, total = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])
    logits, gammas = torch.tensor([[-30.0, 40.0]]), torch.tensor([1.0, 25.0])
    answers = []
    for form, dtype in ((ops, torch.float32), (reference, torch.float64)):
        given = [table.to(dtype).clone().requires_grad_() for table in (logits, gammas)]
        value = form.methylation_log_prob_sum(y.to(dtype), total.to(dtype), *given)
        value.sum().backward()
        answers.append([value.detach().double(), *(one.grad.double() for one in given)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_more_methylated_reads_than_reads_are_impossible():
    y, total, logits, gammas = case(dtype=torch.float32)
    y[2, 5] = total[2, 5] = 3
    y[2, 5] += 1
    for form in (ops, reference):
        value = form.methylation_log_prob_sum(y, total, logits, gammas)
        assert value[2] == -torch.inf
        assert torch.isfinite(value[3:]).all()
