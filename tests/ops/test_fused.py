"""The fused pass in float32 against the reference in float64, and the choice between the two.

Tolerance, everywhere: one rounding of log mu, 6e-8, moves a log-probability by 6e-8 (x + mu), summed over genes, and a
gradient with respect to logits by as much in its own gene and through the softmax by its share of the row's sum.
``ULPS`` such roundings are allowed.
"""

import math
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from celbo import ops
from celbo.ops import fused_cpu, reference
from celbo.ops.native import kernels, machine_code, threads

FAMILIES = ("nb", "zinb", "poisson")
ULPS = 10
ROUNDING = 2.0**-24


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def case(
    family: str,
    n: int,
    g: int,
    *,
    log_theta: tuple[float, float] = (-3, 3),
    theta_shape=None,
    spread=2.0,
    mean=2.0,
    seed=0,
) -> tuple[Tensor, list[Tensor]]:
    """Counts and float32 parameters; log theta uniform in the range given."""
    rng = np.random.default_rng(seed)
    scale_logits = rng.normal(0, spread, (n, g))
    log_library = rng.normal(math.log(mean * g), 0.5, (n, 1))
    log_theta_g = rng.uniform(*log_theta, theta_shape or (g,))
    zi_logits = rng.normal(-1, 2, (n, g))
    mu = np.exp(log_library + scale_logits - np.logaddexp.reduce(scale_logits, 1, keepdims=True))
    x = rng.poisson(mu * rng.gamma(1, 1, (n, g)))
    arrays = [scale_logits, log_library, log_theta_g, zi_logits][: {"nb": 3, "zinb": 4, "poisson": 2}[family]]
    return torch.tensor(x, dtype=torch.float32), [torch.tensor(array, dtype=torch.float32) for array in arrays]


def value_and_gradients(module, family: str, x: Tensor, parameters: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The op in the middle of a graph: parameters are doubled before it, its result weighted after it."""
    leaves = [(parameter / 2).detach().requires_grad_() for parameter in parameters]
    values = getattr(module, f"{family}_log_prob_sum")(x, *[leaf * 2 for leaf in leaves])
    return [values.detach(), *torch.autograd.grad((values * upstream).sum(), leaves)]


def bounds(x: Tensor, parameters: list[Tensor], upstream: Tensor, expected: list[Tensor]) -> list[Tensor]:
    """What ``ULPS`` roundings may do to each result."""
    share = parameters[0].softmax(1)
    moved = x + parameters[1].exp() * share
    weight = upstream.abs()[:, None]
    per_gene = 2 * weight * (moved + share * moved.sum(1, keepdim=True))
    theta_like = [per_gene + 2 * weight] * (len(parameters) - 2)
    sizes = [moved.sum(1) + expected[0].abs(), per_gene, 2 * weight * moved.sum(1, keepdim=True), *theta_like]
    return [ULPS * ROUNDING * size.sum_to_size(e.shape) + 1e-30 for size, e in zip(sizes, expected, strict=True)]


def check(family: str, x: Tensor, parameters: list[Tensor]) -> None:
    """Values and gradients of the fused pass are the reference's in float64, for any loss and for a mean over cells."""
    n = x.shape[0]
    for upstream in (torch.linspace(-2, 3, n), torch.full((n,), -1 / max(1, n))):
        check_weighted(family, x, parameters, upstream)


def check_weighted(family: str, x: Tensor, parameters: list[Tensor], upstream: Tensor) -> None:
    found = value_and_gradients(fused_cpu, family, x, parameters, upstream)
    double = [x.double(), [parameter.double() for parameter in parameters], upstream.double()]
    expected = value_and_gradients(reference, family, *double)
    for name, f, e, bound in zip(
        ("value", "logits", "library", "theta", "zi"), found, expected, bounds(*double, expected)
    ):
        assert f.dtype == torch.float32
        excess = ((f - e).abs() / bound).max() if f.numel() else torch.zeros(())
        assert excess <= 1, f"{family} {name}: {excess:.2f} times the bound"


# --------------------------------------------------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (129, 2001), (5, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes(family, shape):
    check(family, *case(family, *shape))


@pytest.mark.parametrize("family", ["nb", "zinb"])
@pytest.mark.parametrize("theta_shape", [(19,), (1, 19), (6, 19)])
def test_theta_shapes(family, theta_shape):
    check(family, *case(family, 6, 19, theta_shape=theta_shape))


@pytest.mark.parametrize("family", ["nb", "zinb"])
@pytest.mark.parametrize("log_theta", [(-9.2, -6.0), (-2.0, 2.0), (5.0, 9.0), (15.0, 18.4), (-9.2, 18.4)])
def test_theta_from_1e_4_to_1e8(family, log_theta):
    check(family, *case(family, 40, 60, log_theta=log_theta, mean=4.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_large_counts(family):
    x, parameters = case(family, 12, 9, mean=1e5)
    x[0, 0] = 1e6
    assert x.max() >= 1e6
    check(family, x, parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_that_are_not_whole(family):
    x, parameters = case(family, 20, 30)
    check(family, x * 0.7 + (x > 0) * 1e-3, parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_80(family):
    x, parameters = case(family, 9, 20)
    parameters[0] = torch.where(torch.arange(20) % 2 == 0, 80.0, -80.0) + parameters[0]
    check(family, x, parameters)


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_dropout_logits_of_80_and_more(size):
    x, parameters = case("zinb", 9, 20)
    parameters[3] = torch.where(torch.arange(20) % 3 == 0, size, -size) + parameters[3]
    check("zinb", x, parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_logit_of_minus_infinity_is_a_share_of_zero(family):
    x, parameters = case(family, 4, 6)
    parameters[0][1, 2], x[1, 2] = -math.inf, 0
    found = value_and_gradients(fused_cpu, family, x, parameters, torch.ones(4))
    assert all(tensor.isfinite().all() for tensor in found)
    assert found[1][1, 2] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_cells(family):
    x, parameters = case(family, 4, 6)
    x[2], parameters[1][2] = 0, -math.inf
    found = value_and_gradients(fused_cpu, family, x, parameters, torch.full((4,), 3.0))
    assert found[0][2] == 0
    assert (found[1][2] == 0).all()
    assert found[2][2] == 0
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_count_where_the_mean_is_zero_is_impossible(family):
    x, parameters = case(family, 2, 3)
    x[0, 1], parameters[1][0] = 2, -math.inf
    for module in (fused_cpu, reference):
        found = value_and_gradients(module, family, x, parameters, torch.ones(2))
        assert found[0][0] == -math.inf
        assert not any(tensor.isnan().any() for tensor in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_batch(family):
    x, parameters = case(family, 0, 5)
    found = value_and_gradients(fused_cpu, family, x, parameters, torch.ones(0))
    assert [tuple(tensor.shape) for tensor in found] == [(0,), *(tuple(parameter.shape) for parameter in parameters)]
    assert all((tensor == 0).all() for tensor in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_nan_anywhere_reaches_value_and_logit_gradient(family):
    x, parameters = case(family, 3, 40)
    x[1, -1] = 0  # the gradient of a nonzero count does not depend on its dropout logit
    for position in range(1 + len(parameters)):
        tensors = [x.clone(), *(parameter.clone() for parameter in parameters)]
        shared = tensors[position].dim() == 1
        tensors[position][-1 if shared else (1, -1)] = math.nan
        values, grad_logits, *_ = value_and_gradients(fused_cpu, family, tensors[0], tensors[1:], torch.ones(3))
        rows = [0, 1, 2] if shared else [1]
        assert values.isnan().nonzero().ravel().tolist() == rows, f"argument {position}"
        assert grad_logits.isnan().any(1).nonzero().ravel().tolist() == rows, f"argument {position}"


@pytest.mark.parametrize("family", FAMILIES)
def test_negative_count_is_nan(family):
    x, parameters = case(family, 3, 4)
    x[1, 1] = -1
    values = getattr(fused_cpu, f"{family}_log_prob_sum")(x, *parameters)
    assert values.isnan().tolist() == [False, True, False]


# --------------------------------------------------------------------------------------------------------------------
# Tensors of every kind


@pytest.mark.parametrize("family", FAMILIES)
def test_strides(family):
    x, parameters = case(family, 8, 10)
    upstream = torch.linspace(1, 2, 16)[::2]
    expected = value_and_gradients(fused_cpu, family, x, parameters, upstream)
    strided = [parameter.t().contiguous().t() if parameter.dim() == 2 else parameter for parameter in parameters]
    wide = torch.zeros(8, 20).index_copy(1, torch.arange(0, 20, 2), x)[:, ::2]
    assert not wide.is_contiguous()
    for f, e in zip(value_and_gradients(fused_cpu, family, wide, strided, upstream), expected, strict=True):
        assert torch.equal(f, e)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_gives_the_same_values(family):
    x, parameters = case(family, 30, 50)
    function = getattr(fused_cpu, f"{family}_log_prob_sum")
    expected = function(x, *[parameter.requires_grad_() for parameter in parameters])
    with torch.no_grad():
        values = function(x, *parameters)
    assert expected.requires_grad
    assert not values.requires_grad
    assert torch.equal(values, expected)


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_one_argument_with_a_gradient(position):
    x, parameters = case("zinb", 5, 8)
    expected = value_and_gradients(fused_cpu, "zinb", x, parameters, torch.ones(5))[1 + position] / 2
    parameters[position].requires_grad_()
    values = fused_cpu.zinb_log_prob_sum(x, *parameters)
    (gradient,) = torch.autograd.grad(values.sum(), parameters[position])
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_backward_twice_through_a_kept_graph(sign):
    x, parameters = case("zinb", 5, 8)
    parameters[0].requires_grad_()
    loss = sign * fused_cpu.zinb_log_prob_sum(x, *parameters).mean()
    first = torch.autograd.grad(loss, parameters[0], retain_graph=True)[0].clone()
    assert torch.equal(torch.autograd.grad(loss, parameters[0])[0], first)


@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivative_is_refused(family):
    x, parameters = case(family, 3, 4)
    parameters[0].requires_grad_()
    values = getattr(fused_cpu, f"{family}_log_prob_sum")(x, *parameters)
    with pytest.raises(RuntimeError, match=r"no second derivatives.*use_backend"):
        torch.autograd.grad(values.sum(), parameters[0], create_graph=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_under_autocast(family):
    x, parameters = case(family, 6, 9)
    rounded = [parameter.bfloat16().requires_grad_() for parameter in parameters]
    function = getattr(ops, f"{family}_log_prob_sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.backend_for(rounded[0]) == "fused_cpu"
        values = function(x, *rounded)
    gradients = torch.autograd.grad(values.sum(), rounded)
    as_float = [parameter.detach().float().requires_grad_() for parameter in rounded]
    expected = function(x, *as_float)
    assert values.dtype == torch.float32
    assert torch.equal(values, expected)
    for gradient, e in zip(gradients, torch.autograd.grad(expected.sum(), as_float), strict=True):
        assert gradient.dtype == torch.bfloat16
        assert torch.equal(gradient, e.bfloat16())


# --------------------------------------------------------------------------------------------------------------------
# Threads and processes


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_do_not_depend_on_threads_or_repeats(family, monkeypatch):
    monkeypatch.setattr(threads, "SMALLEST_SHARE", 1)
    x, parameters = case(family, 13, 301)
    results = []
    for count in (1, 2, 3, 8, 64, 2):
        torch.set_num_threads(count)
        results.append(value_and_gradients(fused_cpu, family, x, parameters, torch.linspace(1, 2, 13)))
    per_row = [0, 1, 2] + ([4] if family == "zinb" else [])
    for result in results[1:]:
        assert all(torch.equal(result[i], results[0][i]) for i in per_row)
    assert all(torch.equal(*pair) for pair in zip(results[1], results[-1], strict=True))


def test_callers_on_many_threads(monkeypatch):
    monkeypatch.setattr(threads, "SMALLEST_SHARE", 1)
    cases = [case("zinb", 7, 50, seed=seed) for seed in range(8)]
    expected = [fused_cpu.zinb_log_prob_sum(x, *parameters) for x, parameters in cases]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda arguments: fused_cpu.zinb_log_prob_sum(arguments[0], *arguments[1]), cases * 5))
    assert all(torch.equal(f, e) for f, e in zip(found, expected * 5, strict=True))


def test_work_that_fails_says_so_after_all_ranges_ended(monkeypatch):
    monkeypatch.setattr(threads, "SMALLEST_SHARE", 1)
    done = []

    def work(start, stop):
        done.append((start, stop))
        if start == 8:
            raise ArithmeticError(f"row {start}")

    with pytest.raises(ArithmeticError, match="row 8"):
        threads.for_row_ranges(work, 10, 1)
    assert sorted(done) == [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6), (6, 7), (7, 8), (8, 10)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_after_fork(monkeypatch):
    monkeypatch.setattr(threads, "SMALLEST_SHARE", 1)
    x, parameters = case("nb", 4, 8)
    expected = fused_cpu.nb_log_prob_sum(x, *parameters)  # the parent's threads are up
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads is what is tested; python and jax advise against
        child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(fused_cpu.nb_log_prob_sum(x, *parameters), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --------------------------------------------------------------------------------------------------------------------
# The choice


def test_backend_for():
    x = torch.zeros(2, 3)
    assert ops.backend_for(x) == ops.backend_for(x.half()) == "fused_cpu"
    assert ops.backend_for(x.double()) == ops.backend_for(x.to("meta")) == "reference"
    with ops.use_backend("reference"):
        assert ops.backend_for(x) == "reference"
        with ops.use_backend("auto"):
            assert ops.backend_for(x) == "fused_cpu"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(ops.backend_for, x).result() == "fused_cpu"  # another thread chooses for itself
    assert ops.backend_for(x) == "fused_cpu"


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"'fussed_cpu'.*Did you mean 'fused_cpu'"), ops.use_backend("fussed_cpu"):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_dispatch(family):
    x, parameters = case(family, 3, 4)
    name = f"{family}_log_prob_sum"
    function, fused, plain = (getattr(module, name) for module in (ops, fused_cpu, reference))
    assert torch.equal(function(x, *parameters), fused(x, *parameters))
    with ops.use_backend("reference"):
        assert torch.equal(function(x, *parameters), plain(x, *parameters))
    double = [parameter.double() for parameter in parameters]
    assert torch.equal(function(x, *double), plain(x, *double))
    counted = x.clone().requires_grad_()
    assert torch.autograd.grad(function(counted, *parameters).sum(), counted)[0].isfinite().all()
    with ops.use_backend("fused_cpu"), pytest.raises(ValueError, match=r"torch\.float64 on cpu"):
        function(x, *double)


def test_shapes_are_checked():
    x, parameters = case("zinb", 3, 4)
    with pytest.raises(ValueError, match=r"zi_logits \(3, 3\)"):
        ops.zinb_log_prob_sum(x, *parameters[:3], parameters[3][:, :3])


def test_broken_numba_is_said_once_and_the_reference_takes_over(monkeypatch):
    def broken(family):
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(machine_code, "loop", broken)
    monkeypatch.setattr(fused_cpu, "loop", broken)
    monkeypatch.setattr(machine_code, "_broken", {})
    x, parameters = case("nb", 3, 4)
    with pytest.warns(RuntimeWarning, match="Numba needs NumPy 2.4 or less"):
        values = ops.nb_log_prob_sum(x, *parameters)
    assert torch.equal(values, reference.nb_log_prob_sum(x, *parameters))
    assert torch.equal(ops.nb_log_prob_sum(x, *parameters), values)  # no second warning: it would be an error here
    assert ops.backend_for(x) == "reference"
    with ops.use_backend("fused_cpu"), pytest.raises(ImportError):
        ops.nb_log_prob_sum(x, *parameters)


SCRIPT = """
import sys
from celbo import ops
assert "numba" not in sys.modules
import torch
one = torch.ones(1, 2)
print(ops.poisson_log_prob_sum(one, one, one[:, :1]).item())
print("numba" in sys.modules)
"""


def run_script(**environment: str) -> tuple[str, str]:
    """What ``SCRIPT`` prints and what celbo logs, in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_compiling_is_said_once_a_cache_and_numba_comes_late(tmp_path):
    first, second = run_script(NUMBA_CACHE_DIR=str(tmp_path)), run_script(NUMBA_CACHE_DIR=str(tmp_path))
    assert first[1].count("Compiling the poisson likelihood") == 1
    value = first[0].splitlines()[0]
    assert first[0].splitlines()[1] == "True"
    assert second == (f"{value}\nFalse\n", "")  # a run that finds its loops compiled imports no numba
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["poisson"]


def test_polynomials_have_the_stated_error():
    kernels_exp, kernels_log1p = kernels.exp_negative, kernels.log1p

    @numba.njit
    def evaluate(points, exponentials, logarithms):
        for i in range(points.size):
            exponentials[i] = kernels_exp(-points[i])
            logarithms[i] = kernels_log1p(points[i])

    points = np.concatenate([np.geomspace(1e-20, 87, 200_000), np.linspace(0.001, 87, 200_000)]).astype(np.float32)
    exponentials, logarithms = np.empty_like(points), np.empty_like(points)
    evaluate(points, exponentials, logarithms)
    np.testing.assert_allclose(exponentials, np.exp(-points.astype(float)), rtol=9e-8)
    np.testing.assert_allclose(logarithms, np.log1p(points.astype(float)), rtol=1.3e-7)
