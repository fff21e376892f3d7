"""The kernels for CUDA, compiled for the CPU, where their C++ is the same: against the reference in float64.

That torch compiles them for a GPU, and what they give there, ``python -m benchmarks.gpu`` asks.
"""

import ctypes
import shutil
import subprocess

import pytest
import torch

from celbo import ops
from celbo.ops import fused_cuda, reference

from .test_fused import FAMILIES, bounds, case, value_and_gradients

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
INPUTS = {"nb": 3, "zinb": 4, "poisson": 2}


def loop_over(family):
    """C++ that calls the function for each entry of contiguous tables."""
    entry, n_outputs = fused_cuda.ENTRIES[family]
    total = INPUTS[family] + n_outputs
    arguments = ", ".join(f"{'' if i >= INPUTS[family] else 'const '}float* t{i}" for i in range(total))
    entries = ", ".join(f"t{i}[j]" for i in range(total))
    return (
        f"#include <cmath>\n{fused_cuda.SOURCE}{entry}"
        f'extern "C" void run(long n, {arguments}) {{ for (long j = 0; j < n; ++j) celbo_{family}({entries}); }}'
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    folder, made = tmp_path_factory.mktemp("kernels"), {}
    for family in FAMILIES:
        source, library = folder / f"{family}.cpp", folder / f"{family}.so"
        source.write_text(loop_over(family))
        subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        made[family] = ctypes.CDLL(str(library)).run
    return made


@pytest.fixture
def on_the_cpu(kernels, monkeypatch):
    def kernel(family):
        def run(*inputs):
            tables = [table.contiguous() for table in torch.broadcast_tensors(*inputs)]
            tables += [torch.empty_like(tables[0]) for _ in range(fused_cuda.ENTRIES[family][1])]
            kernels[family](ctypes.c_long(tables[0].numel()), *(ctypes.c_void_p(t.data_ptr()) for t in tables))
            return tuple(tables[len(inputs) :])

        return run

    monkeypatch.setattr(fused_cuda, "_kernel", kernel)


def check(family, x, parameters):
    upstream = torch.linspace(-2, 3, x.shape[0])
    found = value_and_gradients(fused_cuda, family, x, parameters, upstream)
    double = [x.double(), [parameter.double() for parameter in parameters], upstream.double()]
    expected = value_and_gradients(reference, family, *double)
    names = ("value", "logits", "library", "theta", "zi")
    for name, f, e, bound in zip(names, found, expected, bounds(*double, expected)):
        excess = ((f - e).abs() / bound).max()
        assert excess <= 1, f"{family} {name}: {excess:.2f} times the bound"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (129, 501)])
def test_values_and_gradients(family, shape, on_the_cpu):
    check(family, *case(family, *shape))


@pytest.mark.parametrize("family", ["nb", "zinb"])
@pytest.mark.parametrize("theta_shape", [(19,), (1, 19), (6, 19)])
def test_theta_shapes(family, theta_shape, on_the_cpu):
    check(family, *case(family, 6, 19, theta_shape=theta_shape))


@pytest.mark.parametrize("family", ["nb", "zinb"])
@pytest.mark.parametrize("log_theta", [(-9.2, -6.0), (-2.0, 2.0), (5.0, 9.0), (15.0, 18.4), (-9.2, 18.4)])
def test_theta_from_1e_4_to_1e8(family, log_theta, on_the_cpu):
    check(family, *case(family, 40, 60, log_theta=log_theta, mean=4.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_large_counts(family, on_the_cpu):
    x, parameters = case(family, 12, 9, mean=1e5)
    x[0, 0] = 1e6
    check(family, x, parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gene_whose_share_underflows_keeps_its_gradient(family, on_the_cpu):
    x, parameters = case(family, 4, 6)
    parameters[0][:, 0] = -200.0
    x[:2, 0], x[2:, 0] = 3.0, 0.0
    check(family, x, parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_cell(family, on_the_cpu):
    x, parameters = case(family, 3, 5)
    x[1], parameters[1][1] = 0.0, -torch.inf
    found = getattr(fused_cuda, f"{family}_log_prob_sum")(x, *parameters)
    expected = getattr(reference, f"{family}_log_prob_sum")(x, *parameters)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["nb", "zinb"])
def test_what_is_not_a_number_stays_so(family, on_the_cpu):
    x, parameters = case(family, 2, 3)
    parameters[2][1] = torch.nan
    assert getattr(fused_cuda, f"{family}_log_prob_sum")(x, *parameters).isnan().all()


def test_second_derivatives_are_refused(on_the_cpu):
    x, parameters = case("nb", 2, 3)
    value = fused_cuda.nb_log_prob_sum(x, parameters[0].requires_grad_(), *parameters[1:])
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(value.sum(), parameters[0], create_graph=True)


def test_where_there_is_no_gpu_nothing_is_compiled():
    x, parameters = case("nb", 2, 3)
    with ops.use_backend("fused_cuda"), pytest.raises(ValueError, match="'fused_cuda' was asked for and does not fit"):
        ops.nb_log_prob_sum(x, *parameters)
