"""Attributions: they add up to what the classifier's output gained, and where it is linear they are known."""

import numpy as np
import pytest
import torch

from celbo.module import SCANVAE
from celbo.ops.random import private_rng
from celbo.posterior.attribution import class_attributions, ranked_features, with_counts
from celbo.posterior.classification import class_probabilities


@pytest.fixture
def scanvae():
    """A classifier of 12 genes that sees batches."""

    def scanvae(**kwargs) -> SCANVAE:
        with private_rng(0):
            module = SCANVAE(**({"n_input": 12, "n_batch": 3, "n_labels": 4, "n_hidden": 16} | kwargs))
            for parameter in module.parameters():
                parameter.data.add_(0.3 * torch.randn_like(parameter))
        return module.eval()

    return scanvae


def output_of(module, tensors, x_ng):
    with private_rng(0):  # the latents are drawn, and not looked at
        return module.classify(x_ng, batch_index=tensors["batch"]).detach().numpy()


@pytest.mark.parametrize("baseline", [0.0, 2.0])
def test_they_sum_to_the_gain_of_the_output(scanvae, loader, baseline, global_rng_untouched):
    module = scanvae(encode_covariates=True)
    probability_nc, attribution_ng = class_attributions(module, loader, n_steps=200, baselines=baseline)
    np.testing.assert_array_equal(probability_nc, class_probabilities(module, loader))
    x_ng, class_n = loader.tables["X"], probability_nc.argmax(1)
    gain_nc = output_of(module, loader.tables, x_ng) - output_of(module, loader.tables, torch.full_like(x_ng, baseline))
    np.testing.assert_allclose(attribution_ng.sum(1), gain_nc[np.arange(len(class_n)), class_n], rtol=1e-2, atol=1e-2)


def test_of_a_linear_classifier(scanvae, loader):
    """Without hidden layers that bend, one node is exact: attribution = count times weight."""
    module = scanvae(n_layers=1, linear_classifier=True, log_variational=False, use_batch_norm="none", dropout_rate=0.0)
    hidden = module.z_encoder.encoder.fc_layers[0]
    hidden[-2] = torch.nn.Identity()  # in place of the ReLU
    first, mean, last = hidden[0].weight, module.z_encoder.mean_encoder.weight, module.classifier.classifier[-1].weight
    weight_cg = (last @ mean @ first).detach().numpy()
    probability_nc, attribution_ng = class_attributions(module, loader, n_steps=1)
    wanted_ng = loader.tables["X"].numpy() * weight_cg[probability_nc.argmax(1)]
    np.testing.assert_allclose(attribution_ng, wanted_ng, rtol=1e-4, atol=1e-5)


def test_ranking():
    table = ranked_features(np.array([[1.0, 5.0, -2.0], [3.0, 5.0, 0.0]]), {"expression": ["a", "b", "c"]})
    assert table["feature"].tolist() == ["b", "a", "c"]
    assert table["feature_idx"].tolist() == [1, 0, 2]
    assert table["attribution_mean"].tolist() == [5.0, 2.0, -1.0]
    assert table["attribution_std"].tolist() == [0.0, 1.0, 1.0]
    assert set(table["cells"]) == {2}
    assert set(table["modality"]) == {"None"}
    of_two = ranked_features(np.array([[1.0, 5.0, -2.0]]), {"mCG": ["r0", "r1"], "mCH": ["r0"]})
    assert list(zip(of_two["modality"], of_two["feature"])) == [("mCG", "r1"), ("mCG", "r0"), ("mCH", "r0")]


def test_other_counts(scanvae, loader):
    x_ng = np.flip(loader.tables["X"].numpy(), 0)
    batches = list(with_counts(loader, x_ng))
    np.testing.assert_array_equal(np.concatenate([one["X"] for one in batches]), x_ng)
    np.testing.assert_array_equal(np.concatenate([one["batch"] for one in batches]), loader.tables["batch"])


def test_no_steps(scanvae, loader):
    with pytest.raises(ValueError, match="n_steps=0"):
        class_attributions(scanvae(), loader, n_steps=0)
