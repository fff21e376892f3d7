"""Log-probability of open regions: closed forms, the fused form against the specification in float64."""

import pytest
import torch
from torch.distributions import Bernoulli

from celbo import ops
from celbo.ops import reference
from celbo.ops.accessibility import accessibility_log_probs
from celbo.ops.fused_cpu import REGIONS
from celbo.ops.native import accessibility_kernel
from celbo.ops.native.threads import working_threads

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


def gradients(x, *parameters):
    given = [parameter.clone().requires_grad_() for parameter in parameters]
    value_n = ops.accessibility_log_prob_sum(x, *given)
    (value_n * torch.linspace(0.5, 2, len(value_n))).sum().backward()
    return [value_n.detach(), *(parameter.grad for parameter in given)]


def test_blocks_of_regions_on_any_number_of_threads():
    """As many blocks as threads share, the last not full; sums over cells do not depend on who does them."""
    x, *parameters = case(n=9, g=9 * REGIONS + 5, dtype=torch.float32)
    with ops.use_backend("reference"):
        expected = gradients(x, *parameters)
    found = []
    for n_threads in (1, 2):
        with working_threads(n_threads):
            found.append(gradients(x.to_sparse_csr(), *parameters))
    for alone, together, wanted in zip(*found, expected, strict=True):
        assert torch.equal(alone, together)
        torch.testing.assert_close(alone, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_a_row_has_its_regions_in_any_order():
    x, *parameters = case(n=3, g=2 * REGIONS, dtype=torch.float32)
    in_order = x.to_sparse_csr()
    starts, columns = in_order.crow_indices(), in_order.col_indices().clone()
    for i in range(3):
        columns[starts[i] : starts[i + 1]] = columns[starts[i] : starts[i + 1]].flip(0)
    turned = torch.sparse_csr_tensor(starts, columns, in_order.values(), size=x.shape, check_invariants=False)
    for one, other in zip(gradients(turned, *parameters), gradients(in_order, *parameters), strict=True):
        assert torch.equal(one, other)


def test_the_kernel_has_the_same_blocks():
    assert accessibility_kernel.REGIONS == REGIONS
