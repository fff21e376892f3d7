"""Log-probability of open regions: closed forms, the fused form against the specification in float64."""

import pytest
import torch
from torch.distributions import Bernoulli

from celbo import ops
from celbo.ops import reference
from celbo.ops.accessibility import accessibility_log_probs

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
FACTORS = [(True, True), (True, False), (False, True), (False, False)]


def case(scale=1.0, n=7, g=203, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(n, g, generator=generator) < 0.1).to(dtype) * 3
    logits, depth, regions = (
        (scale * torch.randn(*shape, generator=generator)).to(dtype) for shape in ((n, g), (n, 1), (g,))
    )
    return x, logits - 1, depth / 3, regions / 3


def test_is_the_product_of_three_probabilities():
    x, logits, depth, regions = case()
    p = logits.sigmoid() * depth.sigmoid() * regions.sigmoid()
    expected = Bernoulli(p).log_prob((x > 0).double()).sum(1)
    torch.testing.assert_close(reference.accessibility_log_prob_sum(x, logits, depth, regions), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_probabilities_sum_to_one(scale):
    _, logits, depth, regions = case(scale)
    opened, closed = accessibility_log_probs(logits, depth, regions)
    torch.testing.assert_close(torch.logaddexp(opened, closed), torch.zeros_like(opened), rtol=0, atol=1e-12)


def test_gradients_of_the_specification():
    x, *parameters = case(n=3, g=5)
    given = [parameter.requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(lambda *these: reference.accessibility_log_prob_sum(x, *these), given)


@pytest.mark.parametrize("scale", [1.0, 10.0, 50.0])
@pytest.mark.parametrize("has", FACTORS)
@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_fused_form_against_float64(scale, has, layout):
    x, *parameters = case(scale)
    upstream = torch.linspace(-0.5, 2, len(x), dtype=torch.float64)
    answers = []
    for form, dtype in ((ops, torch.float32), (reference, torch.float64)):
        logits, *factors = (parameter.to(torch.float32).to(dtype).requires_grad_() for parameter in parameters)
        factors = [factor if there else None for factor, there in zip(factors, has, strict=True)]
        counts = x.to(dtype).to_sparse_csr() if layout == "csr" and form is ops else x.to(dtype)
        value_n = form.accessibility_log_prob_sum(counts, logits, *factors)
        (value_n * upstream.to(dtype)).sum().backward()
        given = [logits, *(factor for factor in factors if factor is not None)]
        answers.append([value_n.detach().double(), *(parameter.grad.double() for parameter in given)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


def test_zeros_that_are_stored_are_closed():
    _, logits, depth, regions = case(n=1, dtype=torch.float32)
    parts = torch.tensor([0, 2]), torch.tensor([1, 4]), torch.tensor([0.0, 2.0])
    stored = torch.sparse_csr_tensor(*parts, size=(1, 203), check_invariants=True)
    value = ops.accessibility_log_prob_sum(stored, logits, depth, regions)
    torch.testing.assert_close(value, ops.accessibility_log_prob_sum(stored.to_dense(), logits, depth, regions))


def test_which_form_is_taken(monkeypatch):
    x, logits, depth, regions = case(dtype=torch.float32)
    with ops.use_backend("reference"):
        expected = ops.accessibility_log_prob_sum(x, logits, depth, regions)
    torch.testing.assert_close(ops.accessibility_log_prob_sum(x, logits, depth, regions), expected)
    samples = ops.accessibility_log_prob_sum(x, logits.expand(2, -1, -1), depth, regions)
    torch.testing.assert_close(samples, expected.expand(2, -1))


def test_no_gradient_of_counts_in_the_fused_form():
    x, logits, *_ = case(dtype=torch.float32)
    with ops.use_backend("fused_cpu"), pytest.raises(ValueError, match="'fused_cpu' was asked for and does not fit"):
        ops.accessibility_log_prob_sum(x.requires_grad_(), logits)
