import pytest
import torch
from torch.distributions import kl_divergence

from celbo.distributions import Normal

LOC, STD = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])


def test_carries_a_normalized_mean():
    distribution = Normal(LOC, STD, normal_mu=LOC / 2)
    assert distribution.get_normalized("mu") is distribution.loc
    torch.testing.assert_close(distribution.get_normalized("scale"), LOC / 2)
    assert Normal(LOC, STD).get_normalized("scale") is None
    with pytest.raises(ValueError, match="'loc'"):
        distribution.get_normalized("loc")


def test_expand_keeps_it():
    wider = Normal(LOC, STD, normal_mu=LOC).expand((4, 2))
    assert isinstance(wider, Normal)
    assert wider.batch_shape == wider.normal_mu.shape == (4, 2)


def test_kl_divergence_is_torchs():
    expected = 0.5 * (STD**2 + LOC**2 - 1) - STD.log()
    torch.testing.assert_close(kl_divergence(Normal(LOC, STD), Normal(torch.zeros(2), torch.ones(2))), expected)


def test_rsample_carries_the_gradient_and_sample_does_not():
    loc = LOC.clone().requires_grad_()
    assert Normal(loc, STD).rsample().requires_grad
    assert not Normal(loc, STD).sample().requires_grad


@pytest.mark.usefixtures("global_rng_untouched")
def test_private_generator():
    first, second = (Normal(LOC, STD).sample((7,), generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (7, 2)


def test_repr():
    assert repr(Normal(LOC, STD)) == "Normal(loc: (2,), scale: (2,))"
