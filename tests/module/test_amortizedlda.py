"""AmortizedLDAModule: priors, likelihood, divergences."""

import numpy as np
import pytest
import torch
from torch.distributions import Dirichlet, Normal, kl_divergence

from celbo.module import AmortizedLDAModule
from celbo.module.amortizedlda import logistic_normal_of
from celbo.ops.topics import topics_of_counts

N, G, K = 6, 7, 3


@pytest.fixture
def batch(torch_rng):
    return {"X": torch.poisson(torch.full((N, G), 2.0), generator=torch_rng)}


@pytest.fixture
def made():
    def made(**kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AmortizedLDAModule(G, K, 6, **kwargs).eval()

    return made


def test_the_prior_is_laplaces_approximation_of_a_dirichlet():
    """The density over softmax's argument peaks at the mean, and its curvature there is the inverse covariance's."""
    alpha = torch.tensor([0.7, 2.0, 5.0], dtype=torch.float64)
    mean, scale = logistic_normal_of(alpha)

    def log_density(
        u,
    ):  # of the Dirichlet in softmax coordinates: the Jacobian makes each exponent alpha, not alpha - 1
        return (alpha * u.log_softmax(-1)).sum()

    torch.testing.assert_close(mean.softmax(-1), Dirichlet(alpha).mean)
    hessian = torch.autograd.functional.hessian(log_density, mean)
    covariance = torch.linalg.pinv(-hessian)  # of u without its constant part, which softmax does not see
    torch.testing.assert_close(scale.square(), covariance.diagonal())


def test_loss_is_the_formula(made, batch, monkeypatch):
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    module = made(cell_topic_prior=[0.2, 0.5, 0.9], topic_feature_prior=0.3)
    with torch.no_grad():
        module._guide.topic_feature_posterior_mu.copy_(torch.linspace(-2, 2, K * G).reshape(K, G))
    inference, _, out = module(batch, loss_kwargs={"kl_weight": 0.3, "n_obs": 50})
    guide = module._guide
    theta = inference["qz"].loc.softmax(-1)
    beta = guide.topic_feature_posterior_mu.softmax(-1)
    nll_n = -(batch["X"] * (theta @ beta).log()).sum(-1)
    p = Normal(*logistic_normal_of(torch.tensor([0.2, 0.5, 0.9])))
    kl_n = kl_divergence(inference["qz"], p).sum(-1)
    scale = torch.nn.functional.softplus(guide.unconstrained_topic_feature_posterior_sigma)
    q = Normal(guide.topic_feature_posterior_mu, scale)
    kl_global = kl_divergence(q, Normal(*logistic_normal_of(torch.full((G,), 0.3)))).sum()
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(out.kl_local["kl_local"], kl_n)
    torch.testing.assert_close(out.kl_global_sum, kl_global)
    torch.testing.assert_close(out.loss, (nll_n + 0.3 * kl_n).mean() + 0.3 * kl_global / 50)


def test_answers_lie_on_the_simplex(made, batch):
    module = made()
    with torch.random.fork_rng(devices=[]):
        features_kg, topics_nk = module.topic_by_feature(20), module.get_topic_distribution(batch["X"], 20)
    assert features_kg.shape == (K, G)
    assert topics_nk.shape == (N, K)
    np.testing.assert_allclose(features_kg.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(topics_nk.sum(-1), 1, rtol=1e-5)


def test_a_feature_whose_probability_underflows_does_no_harm(made, batch):
    module = made()
    batch["X"][:, 0] = 0
    with torch.random.fork_rng(devices=[]):
        module._guide.topic_feature_posterior_mu.data[:, 0] = -1e4
        loss = module(batch)[2].loss
        loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("prior", "message"),
    [([0.1, 0.2], "3 of them"), (0.0, "greater than 0"), ([[0.1, 0.2, 0.3]], "greater than 0, or a list")],
)
def test_wrong_priors_are_named(made, prior, message):
    with pytest.raises(ValueError, match=message):
        made(cell_topic_prior=prior)


def test_training_begins_with_topics_of_the_counts_the_largest_where_it_is_expected():
    rng = np.random.default_rng(0)
    x = torch.tensor(
        rng.poisson(60 * rng.dirichlet([2, 1, 0.5], 80) @ rng.dirichlet(np.full(40, 0.2), 3)) + 0.0
    ).float()
    module = AmortizedLDAModule(40, 3, 8, cell_topic_prior=[0.2, 0.7, 0.4])
    assert module.start_from_counts(x)
    topics_kg, _ = topics_of_counts(x, 3)
    torch.testing.assert_close(module.topic_by_feature(4000)[[1, 2, 0]], topics_kg, rtol=0.05, atol=1e-3)
    torch.testing.assert_close(module._guide.topics().stddev, torch.full((3, 40), 0.1))


@pytest.mark.parametrize(
    ("n_topics", "x"), [(1, torch.ones(9, 4)), (3, torch.ones(2, 4)), (2, torch.zeros(9, 4)), (2, -torch.ones(9, 4))]
)
def test_nothing_to_begin_with(n_topics, x):
    module = AmortizedLDAModule(4, n_topics, 8)
    before = module._guide.topic_feature_posterior_mu.clone()
    assert not module.start_from_counts(x)
    assert torch.equal(module._guide.topic_feature_posterior_mu, before)
