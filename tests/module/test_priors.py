"""Priors against closed forms and long draws."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from celbo.module.base import GaussianPrior, MogPrior
from celbo.module.base.priors import mixture_kl
from celbo.ops.random import private_rng


@pytest.fixture
def qz():
    generator = torch.Generator().manual_seed(0)
    return Normal(torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) + 0.3)


def test_gaussian(qz):
    torch.testing.assert_close(GaussianPrior().kl(qz), kl_divergence(qz, Normal(0.0, 1.0)).sum(-1))
    assert not list(GaussianPrior().parameters())


def test_mixture_of_one_is_a_normal(qz):
    with private_rng(0):
        prior = MogPrior(1, 3)
        mixture = prior.get_prior(qz.loc)
        drawn = mixture_kl(qz, mixture, 20_000)
        few = prior.kl(qz)
    component = Normal(prior.prior_means[0], prior.prior_log_scales[0].exp() + 1e-4)
    exact = kl_divergence(Independent(qz, 1), Independent(component.expand((5, 3)), 1))
    torch.testing.assert_close(drawn, exact, rtol=0.03, atol=0.03)
    torch.testing.assert_close(few, exact, rtol=0.6, atol=0.6)


def test_labels_choose_components(qz):
    with private_rng(0):
        prior = MogPrior(3, 3, celltype_bias=True)
        mixture = prior.get_prior(qz.loc, torch.tensor([[0], [1], [2], [0], [1]]))
    chosen = mixture.mixture_distribution.probs.argmax(-1)
    assert chosen.tolist() == [0, 1, 2, 0, 1]
    assert mixture.batch_shape == (5,)
