"""Foreground of proteins: a ReLU with the values of torch's and the gradient of projected descent."""

import pytest
import torch

from celbo.nn import DecoderTOTALVI
from celbo.nn.protein import ProteinDecoder, WakingReLU


class TestWakingReLU:
    @pytest.mark.parametrize(("x", "slope", "expected"), [(2, 3, 3), (2, -3, -3), (-2, -3, -3), (-2, 3, 0), (0, 3, 0)])
    def test_gradient(self, x, slope, expected):
        x = torch.tensor(float(x), requires_grad=True)
        (slope * WakingReLU()(x)).backward()
        assert x.grad == expected

    def test_values_are_those_of_relu(self, torch_rng):
        x = torch.randn(40, 3, generator=torch_rng)
        torch.testing.assert_close(WakingReLU()(x), x.relu(), rtol=0, atol=0)

    def test_descent_ends_at_the_projection(self):
        # the closest y >= 0 to a target t is max(t, 0), from either side
        target, x = torch.tensor([1.5, -1.5, 1.5, -1.5]), torch.nn.Parameter(torch.tensor([-2.0, -2.0, 2.0, 2.0]))
        descent, relu = torch.optim.SGD([x], lr=0.1), WakingReLU()
        for _ in range(200):
            descent.zero_grad()
            ((relu(x) - target) ** 2).sum().backward()
            descent.step()
        torch.testing.assert_close(relu(x), torch.tensor([1.5, 0.0, 1.5, 0.0]))
        assert x[1] == -2  # a unit that is best at its bound is left alone


@pytest.mark.parametrize("decoder", [DecoderTOTALVI, ProteinDecoder])
@pytest.mark.parametrize("wakes", [True, False])
def test_a_foreground_that_no_cell_has_gets_a_gradient(decoder, wakes, torch_rng):
    sizes = (5, 7, 4) if decoder is DecoderTOTALVI else (5, 4)
    decoder = decoder(*sizes, n_hidden=8, foreground_wakes=wakes)
    z = torch.randn(6, 5, generator=torch_rng)
    (layer,) = (one for one in decoder.py_fore_scale_decoder.modules() if isinstance(one, torch.nn.Linear))
    with torch.no_grad():
        layer.bias.fill_(-50)
    if isinstance(decoder, DecoderTOTALVI):
        times = decoder.logits(z)[-1]["fore_scale"]
    else:
        background, foreground, _ = decoder(z)
        times = foreground / background
    torch.testing.assert_close(times, torch.ones(6, 4))
    (-times.sum()).backward()  # more would be better
    assert ((layer.bias.grad < 0) == wakes).all()
