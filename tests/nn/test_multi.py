"""Networks of several data sets: own layers, shared layers."""

import pytest
import torch

from celbo.nn import MultiDecoder, MultiEncoder

CODES = torch.arange(6)[:, None] % 2


def test_encoder_takes_each_data_set_by_its_head(torch_rng):
    net = MultiEncoder(2, [10, 12], 5, n_hidden=8, n_cat_list=[2]).eval()
    for head, n_input in enumerate((10, 12)):
        x = torch.randn(6, n_input, generator=torch_rng)
        mean, variance, z = net(x, head, CODES)
        hidden = net.encoder_shared(net.encoders[head](x, CODES), CODES)
        torch.testing.assert_close(mean, net.mean_encoder(hidden))
        torch.testing.assert_close(variance, net.var_encoder(hidden).exp())
        assert z.shape == (6, 5)


def test_encoder_returns_a_distribution(torch_rng):
    net = MultiEncoder(1, [10], 5, n_hidden=8, return_dist=True, distribution="ln").eval()
    q, z = net(torch.randn(6, 10, generator=torch_rng), 0)
    assert q.loc.shape == (6, 5)
    torch.testing.assert_close(z.sum(-1), torch.ones(6))


def test_encoder_wants_a_size_for_each_head():
    with pytest.raises(ValueError, match="1 sizes for 2 heads"):
        MultiEncoder(2, [10], 5)


@pytest.mark.parametrize(("conditioned", "shared"), [(1, 1), (0, 2), (2, 0)])
def test_decoder(torch_rng, conditioned, shared):
    net = MultiDecoder(5, 9, 6, 8, conditioned, shared, n_cat_list=[2]).eval()
    z, library = torch.randn(6, 5, generator=torch_rng), torch.full((6, 1), 3.0)
    scale, log_theta, rate, dropout = net(z, 0, library, "gene-cell", CODES)
    torch.testing.assert_close(scale.sum(-1), torch.ones(6))
    torch.testing.assert_close(rate, scale * library.exp())
    assert log_theta.shape == dropout.shape == (6, 9)
    assert net(z, 0, library, "gene", CODES)[1] is None


def test_only_conditioned_layers_see_the_data_set(torch_rng):
    z, library = torch.randn(1, 5, generator=torch_rng), torch.zeros(1, 1)
    for conditioned in (0, 1):
        net = MultiDecoder(5, 9, 6, 8, conditioned, 1, n_cat_list=[2]).eval()
        scales = [net(z, i, library, "gene", torch.tensor([[i]]))[0] for i in (0, 1)]
        assert torch.equal(*scales) == (conditioned == 0)
