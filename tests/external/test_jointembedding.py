"""JointEmbeddingSCVI: thinned counts and its loss against plain formulas; an SCVI but for its training."""

import numpy as np
import pytest
import torch
from scipy import stats

import celbo
from celbo.external import JointEmbeddingSCVI
from celbo.external.jointembedding import JointEmbeddingVAE
from celbo.external.jointembedding.module import cross_correlation_terms, thinned
from celbo.model import SCVI
from celbo.module import VAE
from celbo.ops.random import private_rng

SMALL = {"n_hidden": 8, "n_latent": 3}
TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}
PARTS = {"cco_loss", "cco_invariance", "cco_redundancy", "variance_loss"}


def data(seed: int = 0):
    return celbo.data.synthetic_iid(batch_size=40, n_genes=20, seed=seed)


def trained(cls=JointEmbeddingSCVI, **init):
    adata = data()
    cls.setup_anndata(adata, batch_key="batch")
    model = cls(adata, **(SMALL | init))
    model.train(**TRAIN)
    return model


# Mathematics.


def test_totals_are_log_uniform():
    x = torch.full((20_000, 5), 8000.0)
    with private_rng(0):
        totals = thinned(x, 1000.0).sum(1)
    assert stats.kstest(totals.log(), stats.uniform(np.log(1000), np.log(40)).cdf).statistic < 0.015


def test_each_count_is_thinned_by_the_share_of_its_cell():
    x = torch.tensor([[40.0, 4.0, 0.0, 36.0]])
    with private_rng(0):
        few = thinned(x.expand(50_000, 4), 20.0)
    share = stats.uniform(np.log(20 / 80), np.log(80 / 20))
    mean = float(np.exp(share.rvs(200_000, random_state=0)).mean())
    np.testing.assert_allclose(few.mean(0), x[0] * mean, rtol=0.01)
    assert (few <= x).all()
    assert (few == few.round()).all()
    assert np.corrcoef(few[:, 0], few[:, 3])[0, 1] > 0.8  # one share a cell


def test_cells_of_few_counts_stay():
    x = torch.tensor([[3.0, 2.0], [0.0, 0.0]])
    with private_rng(0):
        torch.testing.assert_close(thinned(x, 10.0), x)


def test_cross_correlation_is_numpys():
    z, other = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    other = other + 2 * z
    both = np.corrcoef(z.T, other.T)[:4, 4:]
    invariance, redundancy = cross_correlation_terms(z, other)
    np.testing.assert_allclose(invariance, ((1 - np.diag(both)) ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(redundancy, (both**2).sum() - (np.diag(both) ** 2).sum(), rtol=1e-6)
    assert cross_correlation_terms(z, z)[0] < 1e-12


def minibatch(n: int = 30):
    generator = torch.Generator().manual_seed(0)
    return {"X": torch.poisson(torch.full((n, 6), 20.0), generator=generator), "batch": torch.arange(n)[:, None] % 2}


def test_loss_is_the_plain_formula():
    weights = {
        "joint_embedding_weight": 7.0,
        "lambda_off_diag": 0.3,
        "reconstruction_weight": 0.5,
        "variance_weight": 2.0,
        "min_library_size": 5.0,
    }
    with private_rng(0):
        module = JointEmbeddingVAE(6, n_batch=2, dropout_rate=0.0, **SMALL, **weights).train()
    tensors = minibatch()
    encoded, decoded, _ = module(tensors)
    with private_rng(3):
        out = module.loss(tensors, encoded, decoded, kl_weight=0.7)
    with private_rng(3):
        few = thinned(tensors["X"], 5.0)
        other = module.inference(few, tensors["batch"])["z"]
    plain = VAE.loss(module, tensors, encoded, decoded, kl_weight=0.7)
    nll_n, kl_n = plain.reconstruction_loss["reconstruction_loss"], plain.kl_local["kl_divergence_z"]
    z, seen = encoded["z"], [part.detach().numpy() for part in (encoded["z"], other)]
    both = np.corrcoef(seen[0].T, seen[1].T)[:3, 3:]
    invariance, redundancy = ((1 - np.diag(both)) ** 2).sum(), (both**2).sum() - (np.diag(both) ** 2).sum()
    variance = np.mean([np.maximum(0, 1 - part.std(0)).mean() for part in seen])
    wanted = {"cco_invariance": invariance, "cco_redundancy": redundancy, "variance_loss": variance}
    wanted |= {"cco_loss": invariance + 0.3 * redundancy}
    for name, value in wanted.items():
        np.testing.assert_allclose(out.extra_metrics[name], value, rtol=1e-4, err_msg=name)
    loss = (0.5 * nll_n + 0.7 * kl_n).mean() + 7 * wanted["cco_loss"] + 2 * variance
    torch.testing.assert_close(out.loss, loss.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    assert z.requires_grad


def test_gradients_reach_the_encoder_by_both_views():
    with private_rng(0):
        module = JointEmbeddingVAE(6, n_batch=2, reconstruction_weight=0.0, **SMALL).train()
        module(minibatch(), loss_kwargs={"kl_weight": 0.0})[2].loss.backward()
    assert module.z_encoder.mean_encoder.weight.grad.abs().sum() > 0
    assert not module.decoder.px_scale_decoder[0].weight.grad.abs().sum()


# A plain SCVI otherwise.


@pytest.mark.parametrize("when", ["evaluated", "off", "one cell"])
def test_the_loss_is_that_of_scvi(when):
    options = {"use_joint_embedding": when != "off"}
    with private_rng(0):
        module = JointEmbeddingVAE(6, n_batch=2, dropout_rate=0.0, use_batch_norm="none", **SMALL, **options)
        module.train(when != "evaluated")
    tensors = minibatch(1 if when == "one cell" else 30)
    encoded, decoded, out = module(tensors)
    plain = VAE.loss(module, tensors, encoded, decoded)
    torch.testing.assert_close(out.loss, plain.loss)
    assert out.extra_metrics == {}


def test_answers_are_those_of_scvi_with_the_same_weights(tmp_path):
    model = trained()
    adata = data()
    SCVI.setup_anndata(adata, batch_key="batch")
    plain = SCVI(adata, **SMALL)
    plain.module.load_state_dict(model.module.state_dict())
    plain.is_trained_ = True
    np.testing.assert_array_equal(plain.get_latent_representation(), model.get_latent_representation())
    for ask in ("get_elbo", "get_normalized_expression"):
        np.testing.assert_allclose(getattr(plain, ask)(seed=0), getattr(model, ask)(seed=0), rtol=1e-6)
    model.save(tmp_path / "model")
    again = JointEmbeddingSCVI.load(str(tmp_path / "model"), data(), accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), atol=1e-6)


@pytest.mark.usefixtures("global_rng_untouched")
def test_parts_of_the_loss_are_in_the_history():
    model = trained()
    assert {f"{part}_train" for part in PARTS} <= set(model.history)
    assert not {f"{part}_validation" for part in PARTS} & set(model.history)
    assert not {f"{part}_train" for part in PARTS} & set(trained(use_joint_embedding=False).history)


def test_a_query_of_a_new_batch():
    reference, query = trained(), data(seed=1)
    query.obs["batch"] = "new"
    model = JointEmbeddingSCVI.load_query_data(query, reference)
    model.train(**TRAIN)
    np.testing.assert_allclose(
        model.get_latent_representation(data()), reference.get_latent_representation(), atol=1e-5
    )


def test_what_is_no_count_is_refused():
    adata = data()
    JointEmbeddingSCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match="'normal' is not for counts"):
        JointEmbeddingSCVI(adata, gene_likelihood="normal")
    JointEmbeddingSCVI(adata, gene_likelihood="normal", use_joint_embedding=False)
    with pytest.raises(ValueError, match="min_library_size must be a number greater than 0"):
        JointEmbeddingSCVI(adata, min_library_size=0)


def test_thinned_cells_lie_nearer_than_in_scvi():
    """Of cells with a tenth of their counts, among whole cells."""
    adata = celbo.data.simulate_counts(400, 100, 4, 1, median_library=500, marker_strength=2.0, seed=0)
    way = {}
    for cls in (SCVI, JointEmbeddingSCVI):
        cls.setup_anndata(adata)
        model = cls(adata, n_latent=5)
        model.train(40, seed=0, verbose=0, accelerator="cpu")
        few = adata.copy()
        few.X = np.random.default_rng(0).binomial(adata.X.toarray().astype(int), 0.1).astype(np.float32)
        whole, thin = model.get_latent_representation(), model.get_latent_representation(few)
        way[cls] = np.linalg.norm(thin - whole, axis=1).mean() / np.linalg.norm(whole - whole.mean(0), axis=1).mean()
    assert way[JointEmbeddingSCVI] < 0.9 * way[SCVI]
