"""Stereoscope: profiles and mixtures of simulated cells, the losses by their formulas, archives, contracts."""

import functools

import numpy as np
import pytest
import torch
from torch.distributions import NegativeBinomial, Normal
from torch.nn.functional import softplus

from celbo.data import simulate_counts, simulate_spots, synthetic_iid
from celbo.external import RNAStereoscope, SpatialStereoscope
from celbo.external.stereoscope import RNADeconv, SpatialDeconv
from celbo.testing import check_model, check_module

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
N, G, C = 8, 6, 3
TRAIN_HISTORY = ("elbo_train", "reconstruction_loss_train", "kl_global_train", "train_loss")


@pytest.fixture(scope="module")
def cells():
    return simulate_counts(600, 100, 4, 1, median_library=300.0, seed=0)


@pytest.fixture(scope="module")
def rna(cells):
    RNAStereoscope.setup_anndata(cells, labels_key="cell_type")
    model = RNAStereoscope(cells)
    model.train(max_epochs=60, lr=0.1, **QUICK)
    return model


@pytest.fixture
def batch(torch_rng):
    x = torch.poisson(torch.full((N, G), 3.0), generator=torch_rng)
    return {"X": x, "labels": torch.arange(N)[:, None] % C, "ind_x": torch.arange(N)[:, None]}


@pytest.fixture
def sc_params(rng):
    return rng.normal(size=(G, C)), rng.normal(size=G)


def test_profiles_of_simulated_types_are_recovered(rna, cells):
    """Correlations are 0.989, 0.995, 0.996, 0.982; those of scvi-tools, trained alike, 0.989, 0.995, 0.996, 0.983."""
    w_gc, px_o = rna.module.get_params()
    profile_gc = np.log1p(np.exp(w_gc)) * np.exp(px_o)[:, None]
    truth_gc = cells.varm["cell_type_profile"] * cells.varm["batch_effect"]
    for c in range(4):
        assert np.corrcoef(profile_gc[:, c], truth_gc[:, c])[0, 1] > 0.97


def test_mixtures_of_simulated_spots_are_recovered(rna, cells):
    """Correlation 0.948 with the shares of cells; that of scvi-tools, trained alike on the same spots, is 0.948 too."""
    spots = simulate_spots(cells, "cell_type", n_spots=150, capture_rate=0.1, seed=1)
    SpatialStereoscope.setup_anndata(spots)
    model = SpatialStereoscope.from_rna_model(spots, rna)
    model.train(max_epochs=200, lr=0.5, **QUICK)
    found = model.get_proportions()
    assert list(found.index) == list(spots.obs_names)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    truth = spots.obsm["proportions"][found.columns]
    assert np.corrcoef(found.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1] >= 0.9
    with_noise = model.get_proportions(keep_noise=True)  # in scvi-tools an AttributeError for models from_rna_model
    assert list(with_noise.columns) == [*found.columns, "noise_term"]
    noise = model.history["noise_proportion_train"].to_numpy(dtype=float)[-1, 0]
    assert noise == pytest.approx(with_noise["noise_term"].mean(), abs=0.05)


@pytest.mark.parametrize("platform_sd", [0.0, 0.3])
def test_defaults_converge(cells, platform_sd):
    """Correlations are 0.984 and 0.982, also where each gene is caught at a rate of its own; scvi-tools' 400 epochs end
    far from the optimum.
    """
    spots = simulate_spots(cells, "cell_type", n_spots=150, capture_rate=0.3, seed=1)
    rate_g = np.random.default_rng(0).normal(0, platform_sd, spots.n_vars)
    spots.X = spots.X.multiply(np.exp(rate_g)).rint().tocsr()
    RNAStereoscope.setup_anndata(cells, labels_key="cell_type")
    of_cells = RNAStereoscope(cells)
    of_cells.train(**QUICK)
    SpatialStereoscope.setup_anndata(spots)
    model = SpatialStereoscope.from_rna_model(spots, of_cells)
    model.train(**QUICK)
    for trained in (of_cells, model):
        assert "flat" in trained.trainer.stop_reason
        assert len(trained.history["train_loss"]) < 150
    found = model.get_proportions()
    truth = spots.obsm["proportions"][found.columns]
    assert np.corrcoef(found.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1] >= 0.9


def test_moments_begin_near_the_profiles(cells):
    RNAStereoscope.setup_anndata(cells, labels_key="cell_type")
    model = RNAStereoscope(cells)
    model.module.start_from_cells(model._make_data_loader(cells, batch_size=100))
    w_gc, px_o = model.module.get_params()
    x, types = cells.X.toarray(), cells.obs["cell_type"].cat.codes.to_numpy()
    share_gc = np.stack([(x[types == c].sum(0) + 0.1) / (x[types == c].sum() + 1) for c in range(4)], axis=1)
    np.testing.assert_allclose(np.logaddexp(0, w_gc) * np.exp(px_o)[:, None], share_gc, rtol=1e-3)
    square_g = ((x - x.sum(1, keepdims=True) * share_gc.T[types]) ** 2).sum(0)
    np.testing.assert_allclose(np.exp(px_o), np.clip(square_g / x.sum(0) - 1, 0.02, 1e3), rtol=1e-3)


def test_maximum_likelihood_by_its_formula(batch):
    weight_c = np.array([1.0, 2.0, 5.0])
    module = RNADeconv(G, C, ct_weight=weight_c)
    out = module(batch)[2]
    rate_ng = batch["X"].sum(1, keepdim=True) * softplus(module.W).T[batch["labels"][:, 0]]
    nll_n = -NegativeBinomial(rate_ng, logits=module.px_o).log_prob(batch["X"]).sum(1)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(out.loss, (torch.tensor(weight_c).float()[batch["labels"][:, 0]] * nll_n).sum())
    assert out.kl_local_sum == out.kl_global_sum == 0


@pytest.mark.parametrize("prior_weight", ["n_obs", "minibatch"])
def test_maximum_a_posteriori_by_its_formula(batch, sc_params, prior_weight):
    module = SpatialDeconv(20, sc_params, prior_weight)
    out = module(batch, loss_kwargs={"n_obs": 20})[2]
    v_cs = softplus(module.V[:, :N])
    rate_sg = (softplus(module.beta)[:, None] * softplus(module.W) @ v_cs[:-1]).T + v_cs[-1:].T * softplus(module.eta)
    nll_s = -NegativeBinomial(rate_sg, logits=module.px_o).log_prob(batch["X"]).sum(1)
    prior = -Normal(0.0, 1.0).log_prob(module.eta).sum()
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_s)
    torch.testing.assert_close(out.kl_global["kl_global"], prior)
    torch.testing.assert_close(out.loss, prior + (20 * nll_s.mean() if prior_weight == "n_obs" else nll_s.sum()))


def test_modules_keep_the_contract(batch, sc_params):
    check_module(lambda: RNADeconv(G, C), batch)
    check_module(lambda: SpatialDeconv(N, sc_params), batch)


@pytest.mark.usefixtures("global_rng_untouched")
def test_models_keep_the_contract(sc_params):
    data = functools.partial(synthetic_iid, batch_size=20, n_genes=G, seed=0)
    common = {"history": TRAIN_HISTORY, "answers": ()}
    check_model(RNAStereoscope, data, setup={"labels_key": "labels"}, **common)
    init = {"sc_params": sc_params, "cell_type_mapping": np.array(["a", "b", "c"])}
    check_model(SpatialStereoscope, data, init=init, **common)


def test_genes_are_matched_by_name(rna, cells):
    shuffled = cells[:20, ::-1].copy()
    SpatialStereoscope.setup_anndata(shuffled)
    model = SpatialStereoscope.from_rna_model(shuffled, rna)
    np.testing.assert_array_equal(model.module.W, rna.module.get_params()[0][::-1])
    foreign = cells[:20].copy()
    foreign.var_names = [f"other_{name}" for name in foreign.var_names]
    SpatialStereoscope.setup_anndata(foreign)
    with pytest.raises(ValueError, match="the genes of the RNAStereoscope lacks 100 of the 100"):
        SpatialStereoscope.from_rna_model(foreign, rna)


def test_profiles_by_name(rna, cells):
    spots = cells[:20].copy()
    SpatialStereoscope.setup_anndata(spots)
    model = SpatialStereoscope.from_rna_model(spots, rna)
    scale_ng = model.get_scale_for_ct(["type_1", "type_0", "type_1"])
    per_unit_g = softplus(model.module.beta) * model.module.px_o.exp()
    expected_gc = (per_unit_g[:, None] * softplus(model.module.W)).detach().numpy()
    np.testing.assert_allclose(scale_ng, expected_gc[:, [1, 0, 1]].T, rtol=1e-6)
    with pytest.raises(ValueError, match="type_9"):
        model.get_scale_for_ct(["type_9"])


def test_wrong_arguments(cells, rna, sc_params):
    with pytest.raises(ValueError, match=r"ct_weight has shape \(2,\)"):
        RNADeconv(G, C, ct_weight=np.ones(2))
    with pytest.raises(ValueError, match="minibatch"):
        SpatialDeconv(N, sc_params, "minibatches")
    spots = cells[:20].copy()
    SpatialStereoscope.setup_anndata(spots)
    with pytest.raises(ValueError, match=r"W of shape \(100, 3\).*got \(6, 3\) and \(6,\)"):
        SpatialStereoscope(spots, sc_params, np.array(["a", "b", "c"]))
    with pytest.raises(RuntimeError, match="train"):
        SpatialStereoscope.from_rna_model(spots, RNAStereoscope(cells))


def test_weights_by_either_name(cells):
    RNAStereoscope.setup_anndata(cells, labels_key="cell_type")
    n_types = cells.obs["cell_type"].nunique()
    weight_c = np.arange(1.0, n_types + 1)
    for name in ("ct_weight", "ct_weights"):
        model = RNAStereoscope(cells, **{name: weight_c})
        np.testing.assert_array_equal(model.module.ct_weight, weight_c)
