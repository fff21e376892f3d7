from collections.abc import Iterator

import numpy as np
import pytest
import torch

from celbo.module import LDVAE

N, G, K, B = 12, 7, 3, 2
PRIOR = {"library_log_means": np.array([[2.0, 2.5]]), "library_log_vars": np.array([[0.1, 0.2]])}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def tensors(torch_rng):
    x = torch.poisson(torch.full((N, G), 3.0), generator=torch_rng)
    return {"X": x, "batch": torch.arange(N)[:, None] % B, "labels": torch.zeros(N, 1, dtype=torch.int64)}


def ldvae(**options):
    return LDVAE(**{"n_input": G, "n_batch": B, "n_labels": 1, "n_hidden": 8, "n_latent": K, **PRIOR, **options})


def test_state_dict():
    state = ldvae().state_dict()
    names = list(state)
    assert names[:3] == ["px_r", "library_log_means", "library_log_vars"]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert [name for name in names if name.startswith("decoder")] == [
        f"decoder.{part}.fc_layers.Layer 0.{child}"
        for part in ("factor_regressor", "px_dropout_decoder")
        for child in ["0.weight", *[f"1.{name}" for name in norm]]
    ]
    assert state["decoder.factor_regressor.fc_layers.Layer 0.0.weight"].shape == (G, K + B)


@pytest.mark.parametrize("gene_likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("use_observed_lib_size", [False, True])
def test_it_trains(tensors, gene_likelihood, use_observed_lib_size):
    module = ldvae(
        gene_likelihood=gene_likelihood, use_observed_lib_size=use_observed_lib_size, n_layers_encoder=2, bias=True
    )
    inference, generative, loss = module(tensors)
    loss.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    assert (inference["ql"] is None) == (generative["pl"] is None) == use_observed_lib_size
    assert len(module.z_encoder.encoder.fc_layers) == 2


@pytest.mark.parametrize("n_batch", [1, B])
def test_loadings_are_how_the_normalized_decoder_answers_to_a_factor(n_batch):
    module = ldvae(n_batch=n_batch).eval()
    batch_norm = module.decoder.factor_regressor.fc_layers[0][1]
    with torch.no_grad():
        batch_norm.running_var.uniform_(0.5, 2)
        batch_norm.weight.uniform_(0.5, 2)
        codes = torch.zeros(1, 1, dtype=torch.int64)
        origin = module.decoder.factor_regressor(torch.zeros(1, K), codes)
        steps = [module.decoder.factor_regressor(torch.eye(K)[k : k + 1], codes) - origin for k in range(K)]
    loadings = module.get_loadings()
    assert isinstance(loadings, np.ndarray)
    np.testing.assert_allclose(loadings, torch.cat(steps).T, rtol=1e-4, atol=1e-6)


def test_loadings_without_batch_norm_are_the_weight():
    module = ldvae(use_batch_norm=False)
    weight = module.decoder.factor_regressor.fc_layers[0][0].weight
    np.testing.assert_array_equal(module.get_loadings(), weight[:, :K].detach().numpy())


def test_a_dispersion_by_cell_is_refused():
    with pytest.raises(ValueError, match="gene-cell"):
        ldvae(dispersion="gene-cell")
