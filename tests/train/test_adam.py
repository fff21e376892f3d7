"""celbo's Adam: torch's numbers, without torch's compiler."""

import pytest
import torch

from celbo.train.optim import Adam, AdamW


def weights(torch_rng):
    return [torch.randn(shape, generator=torch_rng) for shape in ((5, 3), (7,))]


@pytest.mark.parametrize("options", [{}, {"lr": 1e-2, "eps": 0.01, "weight_decay": 1e-1}])
@pytest.mark.parametrize(("own", "torchs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_the_same_bits_as_torch(torch_rng, own, torchs, options):
    start = weights(torch_rng)
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    optimizers = own(ours, **options), torchs(theirs, fused=True, **options)
    for _ in range(10):
        gradients = weights(torch_rng)
        for optimizer, parameters in zip(optimizers, (ours, theirs), strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, start[0] if a.shape == (5, 3) else start[1])


def test_state_dict_is_torchs(torch_rng):
    parameter = torch.nn.Parameter(weights(torch_rng)[0])
    ours = Adam([parameter], lr=0.1)
    parameter.grad = torch.ones_like(parameter)
    ours.step()
    again = torch.optim.Adam([torch.nn.Parameter(parameter.detach().clone())], lr=0.1, fused=True)
    again.load_state_dict(ours.state_dict())
    assert isinstance(ours, torch.optim.Adam)


def test_a_closure_is_called_with_gradients_on():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 3.0
    assert float(parameter.detach().max()) < 1.0
