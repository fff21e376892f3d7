"""Row sums in plain torch against scipy, closed forms and scvi-tools' own numbers, in float64 unless said."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from celbo.ops import reference

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "parity" / "count_likelihoods.npz"
FAMILIES = ("nb", "zinb", "poisson")


def logits_of(mu: np.ndarray) -> tuple[Tensor, Tensor]:
    """scale_logits and log_library that give these means."""
    mu = torch.as_tensor(mu, dtype=torch.float64)
    return mu.log() + 3.0, mu.sum(1, keepdim=True).log()


def parameters_of(family: str, n: int, g: int, seed: int = 0, dtype=torch.float64) -> list[Tensor]:
    """Random scale_logits, log_library, and what else the family takes."""
    rng = torch.Generator().manual_seed(seed)
    scale_logits = 2 * torch.randn(n, g, generator=rng, dtype=dtype)
    log_library = torch.randn(n, 1, generator=rng, dtype=dtype) + math.log(3 * g)
    log_theta = torch.randn(g, generator=rng, dtype=dtype)
    zi_logits = torch.randn(n, g, generator=rng, dtype=dtype)
    return [scale_logits, log_library, log_theta, zi_logits][: {"nb": 3, "zinb": 4, "poisson": 2}[family]]


def counts(n: int, g: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.negative_binomial(0.3, 0.05, (n, g)), dtype=dtype)


def log_prob_sum(family: str, *args: Tensor) -> Tensor:
    return getattr(reference, f"{family}_log_prob_sum")(*args)


@pytest.fixture
def grid():
    """x, mu, theta (2000 cells of one to three genes) where scipy's own rounding is below 1e-9."""
    rng = np.random.default_rng(3)
    mu = np.exp(rng.uniform(-8, 7, (2000, 3)))
    theta = np.exp(rng.uniform(-9, 8, (2000, 3)))
    x = rng.poisson(np.exp(rng.uniform(-3, 7, (2000, 3)))).astype(float)
    return x, mu, theta


def test_nb_is_scipys(grid):
    x, mu, theta = grid
    expected = stats.nbinom.logpmf(x, theta, theta / (theta + mu)).sum(1)
    found = log_prob_sum("nb", torch.tensor(x), *logits_of(mu), torch.tensor(theta).log())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_zinb_is_a_mixture_of_zero_and_scipys_nb(grid):
    x, mu, theta = grid
    zi_logits = np.random.default_rng(4).normal(0, 4, x.shape)
    nb = stats.nbinom.logpmf(x, theta, theta / (theta + mu)) + special.log_expit(-zi_logits)
    expected = np.where(x == 0, np.logaddexp(special.log_expit(zi_logits), nb), nb).sum(1)
    found = log_prob_sum("zinb", torch.tensor(x), *logits_of(mu), torch.tensor(theta).log(), torch.tensor(zi_logits))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_poisson_is_scipys(grid):
    x, mu, _ = grid
    found = log_prob_sum("poisson", torch.tensor(x), *logits_of(mu))
    np.testing.assert_allclose(found, stats.poisson.logpmf(x, mu).sum(1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nb_at_large_theta_is_poisson(dtype):
    x = counts(50, 7, dtype=dtype)
    scale_logits, log_library = parameters_of("poisson", 50, 7, dtype=dtype)
    log_theta = torch.full((7,), math.log(1e8), dtype=dtype)
    nb = log_prob_sum("nb", x, scale_logits, log_library, log_theta)
    poisson = log_prob_sum("poisson", x, scale_logits, log_library)
    torch.testing.assert_close(
        nb, poisson, rtol=1e-5, atol=1e-5
    )  # they differ by (x - mu)^2 / (2 theta) < 1e-4 |poisson|


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_of_one_gene_sum_to_one(family):
    x = torch.arange(3000, dtype=torch.float64)[:, None]
    scale_logits = torch.full((3000, 1), -4.0, dtype=torch.float64)  # one gene: its share is 1 whatever the logit
    log_library = torch.full((3000, 1), math.log(20.0), dtype=torch.float64)
    more = {"nb": [math.log(0.7)], "zinb": [math.log(0.7), -1.0], "poisson": []}[family]
    args = [torch.full((3000, 1), value, dtype=torch.float64) for value in more]
    total = log_prob_sum(family, x, scale_logits, log_library, *args).logsumexp(0)
    assert abs(total.item()) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_differences(family):
    x = counts(4, 5)
    parameters = [parameter.requires_grad_() for parameter in parameters_of(family, 4, 5)]
    assert torch.autograd.gradcheck(lambda *p: log_prob_sum(family, x, *p), parameters)
    assert torch.autograd.gradgradcheck(lambda *p: log_prob_sum(family, x, *p), parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_empty_cell_has_probability_one_and_no_gradient(family, dtype):
    parameters = parameters_of(family, 3, 4, dtype=dtype)
    parameters[1] = torch.tensor([[2.0], [-math.inf], [1.0]], dtype=dtype)
    parameters = [parameter.requires_grad_() for parameter in parameters]
    x = counts(3, 4, dtype=dtype)
    x[1] = 0
    values = log_prob_sum(family, x, *parameters)
    assert values[1].item() == pytest.approx(0, abs=1e-6)
    gradients = torch.autograd.grad(values.sum(), parameters)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][1] == 0).all()
    assert gradients[1][1].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_share_that_underflows_keeps_value_and_gradient(dtype):
    """At a mean near 0, log NB = x (log mu - log theta) + log of the rising factorial / x!, and d/d log mu = x."""
    x = torch.tensor([[0.0, 3.0]], dtype=dtype)
    scale_logits = torch.tensor([[80.0, -80.0]], dtype=dtype, requires_grad=True)
    log_library, log_theta = torch.zeros(1, 1, dtype=dtype), torch.full((2,), math.log(2.0), dtype=dtype)
    value = log_prob_sum("nb", x, scale_logits, log_library, log_theta)
    first = -2 * math.log(1.5)
    second = 3 * (-160 - math.log(2)) + math.log(2 * 3 * 4 / 6)
    assert value.item() == pytest.approx(first + second, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, scale_logits)
    torch.testing.assert_close(gradient, torch.tensor([[-3.0, 3.0]], dtype=dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_float64_rounded(family):
    """One rounding of log mu moves x log mu by 6e-8 x; twenty of them are allowed."""
    x = counts(40, 30, dtype=torch.float32)
    parameters = parameters_of(family, 40, 30, dtype=torch.float32)
    found = log_prob_sum(family, x, *parameters).double()
    expected = log_prob_sum(family, x.double(), *[parameter.double() for parameter in parameters])
    bound = 1.2e-6 * (x.sum(1) + parameters[1].exp()[:, 0] + expected.abs())
    assert ((found - expected).abs() <= bound).all()


@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_scvi_tools_numbers(name):
    """scvi-tools puts 1e-8 into its logarithms: its values are off by up to 1e-8 (x / mu + ...), mu >= 1e-3 here."""
    if not PARITY.exists():
        pytest.skip("the parity archive ../shared/parity/count_likelihoods.npz is not here")
    archive = np.load(PARITY)
    x, mu, theta = (torch.as_tensor(archive[key])[:, None] for key in ("x", "mu", "theta"))
    scale_logits = torch.zeros_like(mu)  # one gene a cell: the library is the mean
    log_mu, log_theta = mu.log().requires_grad_(), theta.log().requires_grad_()
    zi_logits = torch.as_tensor(archive["zi_logits"])[:, None].requires_grad_()
    args = [log_theta] if name == "nb" else [log_theta, zi_logits]
    value = log_prob_sum(name, x, scale_logits, log_mu, *args)
    gradients = torch.autograd.grad(value.sum(), [log_mu, *args])
    scale = 1e-8 * (1 + x / mu + x / theta)[:, 0].numpy()
    expected = [
        archive[name].ravel(),
        archive[f"{name}_dmu"] * archive["mu"],
        archive[f"{name}_dtheta"] * archive["theta"],
    ]
    expected += [] if name == "nb" else [archive["zinb_dzi_logits"]]
    for found, wanted in zip([value, *gradients], expected, strict=True):
        error = np.abs(found.detach().numpy().ravel() - wanted)
        assert (error <= 20 * scale + 1e-7 * np.abs(wanted)).all()


def test_half_precision_is_computed_in_float32():
    x, parameters = counts(5, 6, dtype=torch.float32), parameters_of("zinb", 5, 6, dtype=torch.float32)
    rounded = [parameter.bfloat16() for parameter in parameters]
    found = log_prob_sum("zinb", x, *rounded)
    assert found.dtype == torch.float32
    assert torch.equal(found, log_prob_sum("zinb", x, *[parameter.float() for parameter in rounded]))


def test_shapes_that_do_not_fit_are_all_named():
    x, (scale_logits, log_library, log_theta) = counts(4, 5), parameters_of("nb", 4, 5)
    with pytest.raises(ValueError, match=r"x \(4, 5\).*log_library \(4,\).*log_theta \(5,\).*log_library \(n, 1\)"):
        reference.nb_log_prob_sum(x, scale_logits, log_library[:, 0], log_theta)
    with pytest.raises(ValueError, match=r"log_theta \(4,\)"):
        reference.nb_log_prob_sum(x, scale_logits, log_library, log_theta[:4])
