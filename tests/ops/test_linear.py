"""The oneDNN product against torch's own and against float64."""

import pytest
import torch
import torch.nn.functional as F

import celbo.ops.linear as linear_module
from celbo.ops.linear import _fits, _Narrow, linear

SHAPES = [(128, 128, 2000), (128, 2000, 128), (1024, 40, 300), (129, 2001, 127)]


@pytest.fixture
def operands(request, torch_rng):
    n, i, o = request.param
    made = (torch.randn(size, generator=torch_rng) for size in ((n, i), (o, i), (o,), (n, o)))
    return tuple(made)


@pytest.mark.parametrize("operands", SHAPES, indirect=True)
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients(operands, with_bias):
    x, weight, bias, upstream = operands
    assert _fits(x, weight), "the shapes are meant to take the fast way"
    outputs = []
    for function, dtype in ((linear, torch.float32), (F.linear, torch.float64)):
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x, weight, bias)]
        y = function(*leaves[: 2 + with_bias])
        y.backward(upstream.to(dtype))
        outputs.append([y.detach(), *(leaf.grad for leaf in leaves[: 2 + with_bias])])
    for fast, exact in zip(*outputs, strict=True):
        # a sum of k products of size 1 in float32: rounding grows like sqrt(k)
        torch.testing.assert_close(fast.double(), exact, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("operands", [(64, 12, 33_001)], indirect=True)
def test_the_gradient_of_a_wide_weight_in_blocks(operands):
    x, weight, _, upstream = operands
    assert upstream.numel() > linear_module._WIDE
    leaf = weight.clone().requires_grad_()
    linear(x, leaf).backward(upstream)
    torch.testing.assert_close(leaf.grad.double(), upstream.double().t() @ x.double(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("operands", SHAPES[:2], indirect=True)
def test_strided_operands(operands):
    x, weight, bias, _ = operands
    wide = torch.cat([weight, weight], 1)
    torch.testing.assert_close(
        linear(x, wide[:, : weight.shape[1]], bias), F.linear(x, weight, bias), rtol=1e-5, atol=2e-4
    )
    torch.testing.assert_close(linear(x.t().contiguous().t(), weight), F.linear(x, weight), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("operands", SHAPES[:2], indirect=True)
def test_onednn_is_given_packed_operands_only(operands, monkeypatch):
    """For rows that do not lie end to end its path is a hundred times as slow: 1.5 s for 128 x 2,000 x 128."""

    def recording(x, weight, bias=None):
        given.extend((x, weight))
        return product(x, weight, bias)

    given, product = [], linear_module._product
    monkeypatch.setattr(linear_module, "_product", recording)
    x, weight, bias, upstream = operands
    wide = torch.cat([weight, weight[:, :3]], 1).requires_grad_()
    wide_x = torch.cat([x, x[:, :3]], 1).requires_grad_()
    y = linear(wide_x[:, : x.shape[1]], wide[:, : weight.shape[1]], bias)
    torch.cat([y, y], 1).backward(torch.cat([upstream, upstream], 1))
    assert len(given) == (4 if len(weight) > weight.shape[1] else 6)  # the gradient of a wide head is MKL's
    assert all(operand.is_contiguous() or operand.t().is_contiguous() for operand in given)


@pytest.mark.parametrize("operands", SHAPES[:1], indirect=True)
def test_second_derivatives(operands):
    x, weight, _, _ = operands
    x = x.requires_grad_()
    (grad,) = torch.autograd.grad(linear(x, weight).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    expected = (2 * torch.ones(len(x), 128) @ weight.t()) @ weight
    torch.testing.assert_close(second, expected, rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("operands", SHAPES[:1], indirect=True)
def test_only_needed_gradients_are_computed(operands):
    x, weight, bias, _ = operands
    y = linear(x, weight.requires_grad_(), bias)
    y.sum().backward()
    assert x.grad is None
    assert weight.grad is not None
    assert weight.grad.is_contiguous()


@pytest.mark.parametrize("operands", SHAPES[:1], indirect=True)
def test_what_it_is_not_for_goes_to_torch(operands):
    x, weight, bias, _ = operands
    assert not _fits(x.double(), weight.double())
    assert not _fits(x[:2], weight[:3])
    assert torch.equal(linear(x[:2], weight[:3], bias[:3]), F.linear(x[:2], weight[:3], bias[:3]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    per_row = torch.func.vmap(lambda row: linear(row.unsqueeze(0), weight))(x)
    torch.testing.assert_close(per_row[:, 0], F.linear(x, weight), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("operands", SHAPES[:1], indirect=True)
def test_same_numbers_every_time(operands):
    x, weight, bias, _ = operands
    assert torch.equal(linear(x, weight, bias), linear(x, weight, bias))


@pytest.mark.parametrize("shape", [(3, 11), (11, 3)])
def test_gradients_of_a_narrow_layer(shape, torch_rng):
    """The form for a GPU, here on the CPU."""
    weight = torch.randn(shape, dtype=torch.float64, generator=torch_rng, requires_grad=True)
    x = torch.randn(7, shape[1], dtype=torch.float64, generator=torch_rng, requires_grad=True)
    bias = torch.randn(shape[0], dtype=torch.float64, generator=torch_rng, requires_grad=True)
    assert torch.autograd.gradcheck(_Narrow.apply, (x, weight, bias))
    assert torch.autograd.gradgradcheck(_Narrow.apply, (x, weight, bias))
