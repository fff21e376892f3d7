import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from celbo.nn import Encoder


@pytest.fixture
def x(torch_rng):
    return torch.randn(8, 4, generator=torch_rng)


def encoder(**options):
    return Encoder(4, 3, n_hidden=5, **options).eval()


def test_mean_and_variance(x):
    net = encoder(n_cat_list=[2])
    codes = torch.arange(8)[:, None] % 2
    mean, variance, z = net(x, codes)
    hidden = net.encoder(x, codes)
    torch.testing.assert_close(mean, net.mean_encoder(hidden))
    torch.testing.assert_close(variance, net.var_encoder(hidden).exp() + 1e-4)
    assert z.shape == (8, 3)


def test_var_activation_and_var_eps(x):
    net = encoder(var_activation=F.softplus, var_eps=0.5)
    torch.testing.assert_close(net(x)[1], F.softplus(net.var_encoder(net.encoder(x))) + 0.5)


def test_the_distribution_has_that_mean_and_variance(x):
    net = encoder(return_dist=True)
    q, _ = net(x)
    net.return_dist = False
    mean, variance, _ = net(x)
    assert isinstance(q, Normal)
    torch.testing.assert_close(q.loc, mean)
    torch.testing.assert_close(q.variance, variance)


def test_a_logistic_normal_sample_lies_on_the_simplex(x):
    z = encoder(distribution="ln")(x)[2]
    torch.testing.assert_close(z.sum(-1), torch.ones(8))
    assert (z > 0).all()


def test_gradients_flow_through_the_sample(x):
    net = encoder(return_dist=True)
    net(x)[1].sum().backward()
    assert net.var_encoder.weight.grad.abs().sum() > 0


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="n_hiden"):
        Encoder(4, 3, n_hiden=5)
