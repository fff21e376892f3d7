"""AUTOZI: which genes are zero-inflated."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats as st
from sklearn.metrics import roc_auc_score

from celbo.model import AUTOZI

KINDS = ["gene", "gene-batch", "gene-label", "gene-cell"]


@pytest.fixture
def adata():
    """600 cells of three types; every other gene loses half of its counts."""
    rng = np.random.default_rng(0)
    n, g = 600, 40
    type_n = rng.integers(0, 3, n)
    mean_ng = np.exp(rng.normal(2.0, 0.5, g) + rng.normal(0, 0.5, (3, g))[type_n])
    counts = rng.poisson(rng.gamma(4.0, mean_ng / 4.0))
    lost_g = np.arange(g) % 2 == 1
    counts[lost_g & (rng.random((n, g)) < 0.5)] = 0
    adata = anndata.AnnData(
        counts.astype(np.float32), var=pd.DataFrame({"lost": lost_g}, [f"gene_{i}" for i in range(g)])
    )
    adata.obs_names = [f"cell_{i}" for i in range(n)]
    adata.obs["type"] = np.array(["a", "b", "c"])[type_n]
    adata.obs["batch"] = np.array(["x", "y"])[np.arange(n) % 2]
    return adata


@pytest.fixture
def autozi(adata):
    def autozi(**kwargs) -> AUTOZI:
        AUTOZI.setup_anndata(adata, batch_key="batch", labels_key="type")
        return AUTOZI(adata, **({"n_hidden": 16, "n_latent": 3} | kwargs))

    return autozi


@pytest.mark.parametrize("kind", KINDS)
def test_zero_inflated_genes_are_ranked_first(autozi, quick, kind):
    own_delta = kind == "gene-cell"  # of each count: what a gene's counts have in common is the decoder's to say
    model = quick(autozi(zero_inflation=kind), max_epochs=60, plan_kwargs={"lr": 0.02 if own_delta else 0.05})
    found = model.get_alphas_betas(**({"seed": 0} if own_delta else {}))
    inflated = st.beta.cdf(0.5, found["alpha_posterior"], found["beta_posterior"])
    assert inflated.shape == {"gene-batch": (40, 2), "gene-label": (40, 3)}.get(kind, (40,))
    score_g = inflated.reshape(40, -1).mean(1)
    assert roc_auc_score(model.adata.var["lost"], score_g) >= (0.8 if own_delta else 0.9)
    assert found["alpha_prior"].shape == found["beta_prior"].shape == (1,)


def test_tensors_instead_of_arrays(autozi):
    model = autozi()
    arrays, tensors = model.get_alphas_betas(), model.get_alphas_betas(as_numpy=False)
    assert arrays.keys() == tensors.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].detach().numpy(), array)


def test_global_divergence_is_logged_and_shared_among_cells(autozi, quick):
    history = quick(autozi()).history
    parts = {
        name: history[f"{name}_train"].iloc[-1, 0] for name in ("elbo", "reconstruction_loss", "kl_local", "kl_global")
    }
    shared = parts["kl_global"] / 540
    np.testing.assert_allclose(parts["elbo"], parts["reconstruction_loss"] + parts["kl_local"] + shared, rtol=1e-6)
    assert parts["kl_global"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_marginal_likelihood(autozi, quick, kind):
    """More samples give a better bound, which lies above the ELBO; the seed fixes it."""
    model = quick(autozi(zero_inflation=kind))
    cells = np.arange(20)
    few, many = (model.get_marginal_ll(indices=cells, n_mc_samples=n, seed=0) for n in (1, 100))
    elbo = np.mean([float(model.get_elbo(indices=cells, seed=seed)) for seed in range(10)])
    share = float(model.module.compute_global_kl_divergence().detach()) / 20
    assert isinstance(many, float)
    assert many > elbo - share
    assert many > few - 1.0
    assert model.get_marginal_ll(indices=cells, n_mc_samples=100, seed=0) == many
    with pytest.raises(ValueError, match="n_mc_samples must be a whole number of at least 1"):
        model.get_marginal_ll(n_mc_samples=0)


def test_it_answers_like_other_models(autozi, quick, tmp_path):
    model = quick(autozi(zero_inflation="gene-label"))
    expression = model.get_normalized_expression(indices=[3, 1], gene_list=["gene_2", "gene_5"], n_samples=3)
    assert expression.shape == (2, 2)
    dropout = model.get_likelihood_parameters()["dropout"]
    assert ((dropout > 0) & (dropout < 1)).all()
    model.save(str(tmp_path / "own"))
    again = AUTOZI.load(str(tmp_path / "own"), model.adata, accelerator="cpu")
    for name, value in model.get_alphas_betas().items():
        np.testing.assert_array_equal(again.get_alphas_betas()[name], value)
