"""Gathering columns of the weight equals multiplying by one-hot columns."""

import pytest
import torch
import torch.nn.functional as F

from celbo.nn.fc_layers import append_columns, covariate_widths, linear_with_covariates


def one_hot(codes, n_cat):
    return F.one_hot(codes.squeeze(-1), n_cat).to(torch.float64)


@pytest.fixture
def layer(torch_rng):
    """Weight, bias, dense input and codes of covariates with 2, 1 and 3 categories."""

    def normal(*shape):
        return torch.randn(*shape, generator=torch_rng, dtype=torch.float64)

    codes = [torch.randint(0, n, (7, 1), generator=torch_rng) for n in (2, 1, 3)]
    return normal(5, 4 + 5).requires_grad_(), normal(5).requires_grad_(), normal(7, 4).requires_grad_(), codes


def reference(weight, bias, x, codes):
    return F.linear(torch.cat([x, one_hot(codes[0], 2), one_hot(codes[2], 3)], -1), weight, bias)


def test_values_and_gradients_equal_those_of_one_hot_columns(layer):
    weight, bias, x, codes = layer
    outputs = [reference(weight, bias, x, codes), linear_with_covariates(x, weight, bias, [2, 0, 3], codes)]
    torch.testing.assert_close(outputs[1], outputs[0])
    theirs, ours = (torch.autograd.grad(y.pow(2).sum(), (weight, bias, x)) for y in outputs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_codes_may_be_a_column_or_flat(layer, shape):
    weight, bias, x, codes = layer
    flat = [code.reshape(shape) for code in codes]
    torch.testing.assert_close(linear_with_covariates(x, weight, bias, [2, 0, 3], flat), reference(*layer))


def test_rows_of_weights_are_taken_as_soft_codes(layer):
    weight, bias, x, codes = layer
    soft = [one_hot(codes[0], 2), codes[1], one_hot(codes[2], 3)]
    torch.testing.assert_close(linear_with_covariates(x, weight, bias, [2, 0, 3], soft), reference(*layer))
    half = [torch.full((7, 2), 0.5), None, soft[2]]
    zero, one = ([torch.full((7, 1), k), None, codes[2]] for k in (0, 1))
    mean = sum(linear_with_covariates(x, weight, bias, [2, 0, 3], codes) for codes in (zero, one)) / 2
    torch.testing.assert_close(linear_with_covariates(x, weight, bias, [2, 0, 3], half), mean)


@pytest.mark.parametrize("repeat_codes", [False, True])
def test_samples_in_front_share_the_codes(layer, repeat_codes):
    weight, bias, x, codes = layer
    given = [code.expand(2, 7, 1) for code in codes] if repeat_codes else codes
    y = linear_with_covariates(torch.stack([x, 2 * x]), weight, bias, [2, 0, 3], given)
    torch.testing.assert_close(y[0], reference(weight, bias, x, codes))
    torch.testing.assert_close(y[1], reference(weight, bias, 2 * x, codes))


def test_a_missing_covariate_is_named(layer):
    weight, bias, x, codes = layer
    with pytest.raises(ValueError, match="3 categorical covariates and got 1"):
        linear_with_covariates(x, weight, bias, [2, 0, 3], codes[:1])
    with pytest.raises(ValueError, match="covariate 2 has 3 categories, but None"):
        linear_with_covariates(x, weight, bias, [2, 0, 3], [codes[0], None, None])


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_code_out_of_range_is_named(layer, wrong):
    weight, bias, x, codes = layer
    bad = codes[2].clone()
    bad[:2, 0] = torch.tensor([wrong, 0])
    with pytest.raises(IndexError, match=rf"covariate 2 has codes from {min(wrong, 0)} to .* codes 0 to 2"):
        linear_with_covariates(x, weight, bias, [2, 0, 3], [codes[0], None, bad])


def test_a_single_category_takes_no_column():
    assert covariate_widths([2, 1, 0, 3]) == [2, 0, 0, 3]
    assert covariate_widths(None) == []


def test_append_columns_repeats_over_samples(torch_rng):
    x, u = torch.randn(2, 7, 3, generator=torch_rng), torch.randn(7, 2, generator=torch_rng)
    y = append_columns(x, u)
    assert y.shape == (2, 7, 5)
    torch.testing.assert_close(y[1, :, 3:], u)
    assert append_columns(x) is x
