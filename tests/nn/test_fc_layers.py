import pytest
import torch
import torch.nn.functional as F
from torch import nn

from celbo.nn import FCLayers


@pytest.fixture
def x(torch_rng):
    return torch.randn(8, 4, generator=torch_rng)


@pytest.fixture
def codes(torch_rng):
    return [torch.randint(0, n, (8, 1), generator=torch_rng) for n in (2, 3)]


def test_state_dict_names_and_shapes():
    layers = FCLayers(4, 3, n_cat_list=[2, 1, 3], n_cont=2, n_layers=2, n_hidden=5, use_layer_norm=True)
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = [
        f"fc_layers.Layer {i}.{name}" for i in (0, 1) for name in ["0.weight", "0.bias", *[f"1.{n}" for n in norm]]
    ]
    assert list(layers.state_dict()) == names
    assert layers.state_dict()["fc_layers.Layer 0.0.weight"].shape == (5, 4 + 2 + 2 + 3)
    assert layers.state_dict()["fc_layers.Layer 1.0.weight"].shape == (3, 5 + 2 + 2 + 3)


def test_absent_steps_keep_their_place():
    block = FCLayers(4, 3, use_batch_norm=False, use_activation=False, dropout_rate=0).fc_layers[0]
    assert [type(step).__name__ for step in block] == ["Linear"] + ["NoneType"] * 4
    block = FCLayers(4, 3, use_layer_norm=True, activation_fn=nn.Tanh, bias=False).fc_layers[0]
    kinds = ["Linear", "BatchNorm1d", "LayerNorm", "Tanh", "Dropout"]
    assert [type(step).__name__ for step in block] == kinds
    assert (block[1].momentum, block[1].eps, block[2].elementwise_affine, block[0].bias) == (0.01, 1e-3, False, None)


@pytest.mark.parametrize("inject", [True, False])
def test_forward_is_the_formula_written_out(x, codes, inject, torch_rng):
    cont = torch.randn(8, 2, generator=torch_rng)
    layers = FCLayers(4, 3, [2, 3], 2, n_layers=2, n_hidden=5, inject_covariates=inject, use_layer_norm=True).eval()
    hot = [F.one_hot(code[:, 0], n).float() for code, n in zip(codes, (2, 3), strict=True)]
    h = x
    for i, (linear, batch_norm, layer_norm, relu, _) in enumerate(layers.fc_layers):
        seen = torch.cat([h, cont, *hot], 1) if i == 0 or inject else h
        h = relu(layer_norm(batch_norm(linear(seen))))
    torch.testing.assert_close(layers(x, *codes, cont=cont), h)
    assert [layers.inject_into_layer(i) for i in range(3)] == [True, inject, inject]


def test_covariates_that_were_not_announced_are_not_looked_at(x, codes):
    layers = FCLayers(4, 3).eval()
    torch.testing.assert_close(layers(x, *codes), layers(x))


def test_samples_are_normalized_each_by_itself_in_training(torch_rng):
    layers = FCLayers(4, 3, dropout_rate=0, use_activation=False)
    x = torch.randn(2, 8, 4, generator=torch_rng) * torch.tensor([1.0, 5.0])[:, None, None]
    y = layers(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert layers.fc_layers[0][1].num_batches_tracked == 2
    layers.eval()
    torch.testing.assert_close(layers(x)[1], layers(x[1]))


ONLY_COVARIATES = [[0] * 4 + [1] * 5, [0] * 5 + [1] * 5]


@pytest.mark.parametrize("hook_first_layer", [True, False])
def test_online_update_moves_only_the_columns_of_covariates(x, codes, hook_first_layer):
    layers = FCLayers(4, 3, [2, 3], n_layers=2, n_hidden=5, dropout_rate=0, activation_fn=nn.Tanh)
    layers.set_online_update_hooks(hook_first_layer)
    layers(x, *codes).pow(2).sum().backward()
    for i, (linear, batch_norm, *_) in enumerate(layers.fc_layers):
        hooked = i == 1 or hook_first_layer
        moves = (linear.weight.grad != 0).any(0).int().tolist()
        assert moves == (ONLY_COVARIATES[i] if hooked else [1] * 9)
        assert (linear.bias.grad != 0).any() != hooked
        assert (batch_norm.weight.grad != 0).any()


def test_online_update_freezes_a_layer_without_covariates(x, codes):
    layers = FCLayers(4, 3, [2, 3], n_layers=2, n_hidden=5, dropout_rate=0, bias=False, inject_covariates=False)
    layers.set_online_update_hooks()
    layers(x, *codes).pow(2).sum().backward()
    assert (layers.fc_layers[0][0].weight.grad != 0).any()
    assert (layers.fc_layers[1][0].weight.grad == 0).all()
