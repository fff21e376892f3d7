"""Faults of answers about cells seen elsewhere (numbers of the list of traps), each gone here."""

import numpy as np
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.distributions import NegativeBinomialMixture
from celbo.model import SCVI


@pytest.fixture(scope="module")
def model():
    adata = synthetic_iid(batch_size=60, n_genes=20, seed=0)
    adata.obs["half"] = ["in" if i % 2 else "out" for i in range(120)]
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=8, n_latent=2, gene_likelihood="nb")
    model.train(max_epochs=3, verbose=0, seed=0, accelerator="cpu")
    return model


def test_trap_3a_3_samples_of_a_mixture_have_its_mean_and_variance(torch_rng):
    """The arguments of the gamma distribution were swapped (#1999, #2024)."""
    one = torch.ones(60_000)
    px = NegativeBinomialMixture(mu1=4 * one, mu2=20 * one, theta1=2 * one, mixture_logits=0 * one)
    sample = px.sample(generator=torch_rng).double()
    assert sample.mean().item() == pytest.approx(12.0, rel=0.03)
    variance = 0.5 * (4 + 16 / 2) + 0.5 * (20 + 400 / 2) + 8.0**2
    assert sample.var().item() == pytest.approx(variance, rel=0.05)


def test_trap_3a_8_marginal_likelihood_does_not_depend_on_the_samples_of_a_pass(model):
    """Wrong with one sample a pass (#2362)."""
    options = {"n_mc_samples": 400, "indices": range(20), "seed": 0}
    one, many = (float(model.get_marginal_ll(n_mc_samples_per_pass=k, **options)) for k in (1, 50))
    assert one == pytest.approx(many, rel=2e-3)


def test_trap_3b_6_rest_is_the_rest_of_the_subset(model):
    """scvi-tools compares with every cell outside the group, also those outside the subset."""
    subset = np.flatnonzero(model.adata.obs["half"] == "in")
    result = model.differential_expression(
        groupby="batch", group1=["batch_0"], subset_idx=subset, seed=0, silent=True, mode="change"
    )
    x, batch = np.asarray(model.adata.X)[subset], model.adata.obs["batch"].to_numpy()[subset]
    rest = x[batch != "batch_0"].mean(0)
    genes = model.adata.var_names.get_indexer(result.index)
    np.testing.assert_allclose(result["raw_mean2"].to_numpy(), rest[genes], rtol=1e-5)


def test_trap_3b_7_nothing_is_cached_in_the_users_data(model):
    """scvi-tools keeps size factors in obs, ten times off after a setup on another layer."""
    before = {name: set(getattr(model.adata, name)) for name in ("obs", "obsm", "uns", "layers", "var")}
    model.differential_expression(groupby="batch", group1=["batch_0"], seed=0, silent=True)
    assert {name: set(getattr(model.adata, name)) for name in before} == before
    adata = synthetic_iid(batch_size=60, n_genes=20, seed=0)
    adata.layers["tenfold"] = adata.X * 10
    means = []
    for layer in (None, "tenfold"):
        SCVI.setup_anndata(adata, batch_key="batch", layer=layer)
        other = SCVI(adata, n_hidden=8, n_latent=2)
        other.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
        result = other.differential_expression(groupby="batch", group1=["batch_0"], seed=0, silent=True)
        means.append(result.loc[adata.var_names, ["raw_mean1", "raw_normalized_mean1"]].to_numpy(float))
    np.testing.assert_allclose(means[1][:, 0], 10 * means[0][:, 0], rtol=1e-5)
    np.testing.assert_allclose(means[1][:, 1], means[0][:, 1], rtol=1e-5)


def test_trap_3b_8_change_mode_says_which_genes_pass_the_fdr(model):
    options = {"groupby": "batch", "group1": ["batch_0"], "silent": True, "mode": "change"}
    first, again = (model.differential_expression(**options, seed=1) for _ in range(2))
    assert "is_de_fdr_0.05" in first
    np.testing.assert_array_equal(first["proba_de"], again["proba_de"])


def test_trap_3b_10_expression_can_be_asked_for_one_batch(model):
    """Without transform_batch it is that of each cell's own batch (#3578)."""
    own = model.get_normalized_expression(seed=0)
    as_0 = model.get_normalized_expression(transform_batch="batch_0", seed=0)
    of_0 = (model.adata.obs["batch"] == "batch_0").to_numpy()
    np.testing.assert_allclose(own[of_0], as_0[of_0], rtol=1e-4)
    assert not np.allclose(own[~of_0], as_0[~of_0], rtol=1e-4)


def test_trap_3b_12_the_mean_of_z_is_what_latents_are(model):
    """A re-implementation took a sample, "a really big problem" (cellarium-ml #328)."""
    first, second = model.get_latent_representation(), model.get_latent_representation()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, model.get_latent_representation(return_dist=True)[0])
    assert not np.array_equal(first, model.get_latent_representation(give_mean=False))
