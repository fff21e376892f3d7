"""Positive numbers with added zeros, against the mixture that they are: a point mass and a density of scipy's."""

import numpy as np
import pytest
import scipy.stats as st
import torch
from scipy.special import expit
from torch.distributions import Independent

from celbo.distributions import Gamma, LogNormal, ZeroInflatedGamma, ZeroInflatedLogNormal
from celbo.ops.random import private_rng

ROWS = {
    "gamma": (ZeroInflatedGamma, {"concentration": 2.5, "rate": 0.7}, st.gamma(2.5, scale=1 / 0.7), "scale"),
    "log_normal": (
        ZeroInflatedLogNormal,
        {"mu": 0.4, "scale": 0.6},
        st.lognorm(0.6, scale=np.exp(0.4)),
        "normal_mu",
    ),
}
ZI_LOGITS = torch.tensor([-3.0, 0.2, 2.0], dtype=torch.float64)


@pytest.fixture(params=ROWS)
def row(request):
    family, parameters, density, carried = ROWS[request.param]
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    return family(**tensors, zi_logits=ZI_LOGITS), density, family, tensors, carried


def test_a_zero_has_a_probability_and_all_else_a_density(row):
    made, density, *_ = row
    pi = expit(ZI_LOGITS.numpy())
    np.testing.assert_allclose(made.log_prob(torch.zeros(3).double()), np.log(pi))
    for x in (1e-3, 0.8, 12.0):
        expected = np.log1p(-pi) + density.logpdf(x)
        np.testing.assert_allclose(made.log_prob(torch.full((3,), x, dtype=torch.float64)), expected)
    assert (made.log_prob(torch.full((3,), -1.0).double()) == -torch.inf).all()


def test_moments_are_those_of_the_mixture_and_of_its_samples(row):
    made, density, *_ = row
    pi = expit(ZI_LOGITS.numpy())
    second = (1 - pi) * (density.var() + density.mean() ** 2)
    np.testing.assert_allclose(made.mean, (1 - pi) * density.mean())
    np.testing.assert_allclose(made.variance, second - ((1 - pi) * density.mean()) ** 2)
    np.testing.assert_allclose(made.zi_probs, pi)
    np.testing.assert_allclose(made.get_normalized("mu"), np.full(3, density.mean()))
    n = 20_000
    with private_rng(0):
        x = made.sample((n,)).numpy()
    assert x.shape == (n, 3)
    assert (np.abs((x == 0).mean(0) - pi) < 5 * np.sqrt(pi * (1 - pi) / n)).all()
    assert (np.abs(x.mean(0) - made.mean.numpy()) < 5 * np.sqrt(made.variance.numpy() / n)).all()
    kept = x[:, 1][x[:, 1] > 0]
    assert st.kstest(kept, density.cdf).pvalue > 1e-4


def test_shapes_names_and_gradients(row):
    made, _, family, tensors, carried = row
    with_carried = family(**tensors, zi_logits=ZI_LOGITS, **{carried: ZI_LOGITS + 9})
    torch.testing.assert_close(with_carried.get_normalized("scale"), ZI_LOGITS + 9)
    wider = with_carried.expand((2, 3))
    assert wider.batch_shape == wider.get_normalized("scale").shape == (2, 3)
    assert Independent(made, 1).log_prob(torch.ones(3).double()).shape == ()
    assert repr(made).splitlines()[0].startswith(family.__name__)
    with pytest.raises(ValueError, match="normalized value of"):
        made.get_normalized("rate of nothing")
    leaves = {name: value.clone().requires_grad_() for name, value in (tensors | {"zi_logits": ZI_LOGITS}).items()}
    family(**leaves).log_prob(torch.tensor([0.0, 0.5, 3.0]).double()).sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())


def test_wrong_parameters_are_refused_where_asked():
    for family, parameters in ((Gamma, {"concentration": 1.0, "rate": -1.0}), (LogNormal, {"mu": 0.0, "scale": 0.0})):
        with pytest.raises(ValueError, match=r"rate|scale"):
            family(**{name: torch.tensor(value) for name, value in parameters.items()}, validate_args=True)
