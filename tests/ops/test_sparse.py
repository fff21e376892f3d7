"""Linear layers of CSR tensors against dense ones in float64."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from celbo.ops.linear import _SCRATCH_ROWS, BLOCK, STRIDE, TILE, csr_linear, linear, row_sums
from celbo.ops.native import machine_code


def csr(matrix, index=torch.int64):
    matrix = sp.csr_matrix(matrix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr).to(index),
            torch.from_numpy(matrix.indices).to(index),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            check_invariants=True,
        )


def case(n, g, h, density=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = sp.random(n, g, density, "csr", np.float32, rng=rng)
    return x, *(torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((h, g), (h,)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (17, 33, 7), (600, 500, 128), (2, 3000, 129)])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_against_float64(shape, index, with_bias):
    x, weight, bias = case(*shape)
    y = linear(csr(x, index), weight, bias if with_bias else None)
    expected = F.linear(torch.from_numpy(x.toarray()).double(), weight.double(), bias.double() if with_bias else None)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("g", [300, 9000])
def test_columns_out_of_order(g):
    """By rows and, for wide layers, by columns."""
    x, weight, bias = case(40, g, 20, density=0.02)
    turned = x[:, ::-1]
    assert not turned.has_sorted_indices
    expected = F.linear(torch.from_numpy(turned.toarray()).double(), weight.double(), bias.double())
    tables = (torch.from_numpy(part) for part in (turned.indptr, turned.indices, turned.data))
    y = csr_linear(torch.sparse_csr_tensor(*tables, size=turned.shape, check_invariants=False), weight, bias)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_empty_rows_and_no_rows():
    x, weight, bias = case(4, 6, 3, density=0.0)
    assert torch.equal(csr_linear(csr(x), weight, bias), bias.expand(4, 3))
    assert csr_linear(csr(x[:0]), weight, bias).shape == (0, 3)


def test_rows_do_not_depend_on_threads():
    x, weight, bias = case(300, 400, 64, density=0.3)
    before = torch.get_num_threads()
    try:
        answers = []
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            answers.append(csr_linear(csr(x), weight, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_gradients_go_through_the_dense_layer():
    x, weight, bias = case(5, 7, 3)
    weight.requires_grad_()
    csr_linear(csr(x), weight, bias).sum().backward()
    torch.testing.assert_close(weight.grad, torch.from_numpy(x.toarray()).sum(0).expand(3, 7))


def test_other_dtypes_are_made_dense():
    x, weight, bias = case(5, 7, 3)
    y = csr_linear(csr(x.astype(np.float64)), weight.double(), bias.double())
    torch.testing.assert_close(y, F.linear(torch.from_numpy(x.toarray()).double(), weight.double(), bias.double()))


def test_without_numba(monkeypatch):
    def broken(family):
        raise ImportError("no numba here")

    monkeypatch.setattr(machine_code, "loop", broken)
    monkeypatch.setattr(machine_code, "_broken", {})
    x, weight, bias = case(5, 7, 3)
    with pytest.warns(RuntimeWarning, match="no numba here"):
        y = csr_linear(csr(x), weight, bias)
    torch.testing.assert_close(y, F.linear(torch.from_numpy(x.toarray()), weight, bias))


@pytest.mark.parametrize("density", [0.0, 0.2])
def test_row_sums(density):
    x, *_ = case(9, 11, 1, density=density)
    expected = torch.from_numpy(x.toarray()).sum(-1, keepdim=True)
    torch.testing.assert_close(row_sums(csr(x)), expected)
    assert torch.equal(row_sums(torch.from_numpy(x.toarray())), expected)


class TestByColumns:
    """Wide layers, and those that are trained."""

    @pytest.mark.parametrize("shape", [(5, 1200, 3), (17, 3001, 70), (64, 2000, 128), (1, 1000, 1)])
    @pytest.mark.parametrize("with_bias", [True, False])
    def test_gradients_against_float64(self, shape, with_bias):
        x, weight, bias = case(*shape, density=0.03)
        upstream = torch.linspace(-1, 2, shape[0] * shape[2]).reshape(shape[0], shape[2])
        single = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
        double = [parameter.detach().double().requires_grad_() for parameter in single]
        y = linear(csr(x), single[0], single[1] if with_bias else None)
        expected = F.linear(torch.from_numpy(x.toarray()).double(), double[0], double[1] if with_bias else None)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
        y.backward(upstream)
        expected.backward(upstream.double())
        for one, other in zip(single[: 1 + with_bias], double, strict=False):
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)

    def test_never_dense(self, monkeypatch):
        x, weight, _ = case(8, 3000, 20)
        given = csr(x)
        monkeypatch.setattr(torch.Tensor, "to_dense", lambda self: pytest.fail("made dense"))
        linear(given, weight.requires_grad_()).sum().backward()

    def test_part_of_a_wider_weight(self):
        x, weight, _ = case(6, 3000, 10)
        wide = torch.cat([weight, torch.ones(10, 4)], 1).requires_grad_()
        y = linear(csr(x), wide[:, :3000])
        torch.testing.assert_close(y, linear(csr(x), weight))
        y.sum().backward()
        assert (wide.grad[:, 3000:] == 0).all()

    def test_threads_do_not_matter(self):
        x, weight, _ = case(30, 4000, 200)
        before, answers = torch.get_num_threads(), []
        try:
            for n_threads in (1, 2, 3):
                torch.set_num_threads(n_threads)
                trained = weight.clone().requires_grad_()
                y = linear(csr(x), trained)
                y.square().sum().backward()
                answers.append((y.detach(), trained.grad))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(one, other) for answer in answers for one, other in zip(answer, answers[0], strict=True))

    def test_no_second_derivatives(self):
        x, weight, _ = case(6, 3000, 10)
        (total,) = (linear(csr(x), weight.requires_grad_()).square().sum(),)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(total, weight, create_graph=True)

    def test_sizes_are_those_of_the_kernel(self):
        from celbo.ops.native import csr_kernel

        assert (BLOCK, TILE, STRIDE) == (csr_kernel.BLOCK, csr_kernel.TILE, csr_kernel.STRIDE)
        assert _SCRATCH_ROWS == machine_code.SCRATCH_ROWS


def test_row_sums_of_rows_without_entries(rng):
    """The first, the last and several in a row are empty; a matrix may have none at all."""
    table = rng.integers(0, 9, (12, 30)).astype(np.float32)
    table[[0, 4, 5, 6, 11]] = 0
    for dense in (table, np.zeros((3, 4), np.float32)):
        sums = row_sums(csr(dense))
        np.testing.assert_array_equal(sums.numpy(), dense.sum(1, keepdims=True))
