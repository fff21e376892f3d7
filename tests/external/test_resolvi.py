"""RESOLVI: shares and own expression on simulated tissue, the loss by its formula, neighbours, archives, faults."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from torch.distributions import Dirichlet, Gamma, NegativeBinomial

from celbo.core import ArgumentError
from celbo.data import StoredMatrix
from celbo.data import open as open_data
from celbo.data.spatial import two_hop_cells
from celbo.external import RESOLVI
from celbo.external.resolvi.learned import CONSTRAINTS
from celbo.external.resolvi.weighed import BestOf, weighed_draw
from celbo.io import read_scvi_archive
from celbo.model.base import convert_archive, export_archive
from celbo.ops.random import own_rng

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
G = 60


def tissue(n: int = 240, seed: int = 0) -> tuple[ad.AnnData, np.ndarray]:
    """Two types in neighbouring halves, a fifth of each cell's counts its neighbours'; and the true profiles."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(size=(n, 2))
    kind = (xy[:, 0] + rng.normal(0, 0.15, n) > 0.5).astype(int)
    profile = np.full((2, G), 1.0)
    profile[0, :15], profile[1, 15:30] = 8, 8
    profile[:, 50:] = 0.2
    own = profile[kind] / profile[kind].sum(1, keepdims=True)
    near = np.argsort(cdist(xy, xy) + 9 * np.eye(n), axis=1)[:, :6]
    mixed = 0.75 * own + 0.2 * own[near].mean(1) + 0.05 * own.mean(0)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(300 * mixed).astype(np.float32)))
    adata.var_names = [f"gene{g}" for g in range(G)]
    adata.obs["kind"] = pd.Categorical(np.array(["a", "b"])[kind])
    adata.obs["seen"] = np.where(rng.uniform(size=n) < 0.5, adata.obs["kind"].astype(str), "unknown")
    adata.obs["batch"] = pd.Categorical(rng.choice(["b0", "b1"], n))
    adata.obsm["X_spatial"] = xy
    return adata, own


def made(adata=None, setup=None, **init):
    adata = tissue()[0] if adata is None else adata
    RESOLVI.setup_anndata(adata, **({"prepare_data_kwargs": {"n_neighbors": 6}} | (setup or {})))
    return RESOLVI(adata, **({"n_latent": 4, "mixture_k": 5} | init))


@pytest.fixture(scope="module")
def model():
    model = made(setup={"labels_key": "seen", "batch_key": "batch"}, semisupervised=True)
    model.train(max_epochs=40, **QUICK)
    return model


@pytest.mark.usefixtures("global_rng_untouched")
def test_own_expression_is_nearer_to_the_truth_than_counts_are(model):
    own = tissue()[1]
    x = model.adata.X.toarray()
    found = model.get_normalized_expression(n_samples=3, return_numpy=True)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    logs = [np.log(values + 1e-4).ravel() for values in (found, x / x.sum(1, keepdims=True), own)]
    assert np.corrcoef(logs[0], logs[2])[0, 1] > np.corrcoef(logs[1], logs[2])[0, 1] + 0.1
    shares = model.get_mixture_proportions()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert shares.mean().to_numpy() == pytest.approx([0.75, 0.2, 0.05], abs=0.1)


def test_the_loss_is_its_formula():
    module_model = made(setup={"batch_key": "batch"}, gene_likelihood="nb", dispersion="gene-batch")
    module = module_model.module.eval()
    tensors = next(iter(module_model._make_data_loader(adata=module_model.adata, batch_size=9, shuffle=False)))
    assert tensors["x_neighbors"].shape == (9, 6 * G)
    near = module_model.adata.obsm["index_neighbor"][:9]
    np.testing.assert_array_equal(tensors["x_neighbors"].reshape(9, 6, G), module_model.adata.X.toarray()[near])
    encoded, decoded, record = module(tensors, loss_kwargs={"kl_weight": 0.3})
    x, library = tensors["X"], tensors["X"].sum(1, keepdim=True)
    batch = tensors["batch"][:, 0]
    rho = decoded["px"].get_normalized("scale")
    shares = encoded["mixture"]
    square = tensors["distance_neighbor"] / module._model.median_distance
    weights = torch.softmax(-square.sqrt(), 1)  # the map of each cell begins at 0
    profiles = [
        module.generative(encoded["z_neighbors"][:, m], library.log(), tensors["batch"])["px"] for m in range(6)
    ]
    spread = sum(weights[:, m : m + 1] * profiles[m].mean for m in range(6))
    background = library * shares[:, 2:] * torch.softmax(module.learned.background_concentration, 1)[batch]
    signal = shares[:, :1] * library * rho + shares[:, 1:2] * spread
    theta = 1 / CONSTRAINTS["px_r_mle"].value(module.learned.px_r_mle).t()[batch]
    mean = signal + background
    total = theta * (mean / signal) ** 2
    nll_n = -NegativeBinomial(total, logits=(mean / total).log()).log_prob(x).sum(1)
    torch.testing.assert_close(record.reconstruction_loss["reconstruction_loss"], nll_n, rtol=1e-4, atol=1e-3)
    # a moment-matched sum: gamma noise on the signal alone
    torch.testing.assert_close(mean + mean**2 / total, mean + signal**2 / theta)
    normal = shares / shares.sum(1, keepdim=True)
    prior = Dirichlet(torch.tensor([5.0, 1.5, 0.5])).log_prob(normal) + normal.log().sum(1)
    torch.testing.assert_close(record.kl_local["log_prior_shares"], -prior, rtol=1e-4, atol=1e-4)
    near_prior = Dirichlet(30 * (torch.exp(-square) + 1e-3)).log_prob(weights) + weights.log().sum(1)
    torch.testing.assert_close(record.kl_local["log_prior_weights"], -near_prior, rtol=1e-3, atol=1e-3)
    kl_n = encoded["qz"].log_prob(encoded["z"]).sum(1) - module.prior(None).log_prob(encoded["z"])
    torch.testing.assert_close(record.kl_local["kl_divergence_z"], kl_n)
    amounts = module._model.prior_proportions
    log_prior = Gamma(10.0, 10 / 3).log_prob(torch.tensor(20.0)) - 1
    for amount, value in zip(amounts, (5.0, 1.5, 0.5), strict=True):
        log_prior = log_prior + Gamma(10.0, 10 / (amount * 20)).log_prob(torch.tensor(value))
    log_prior = log_prior + Dirichlet(torch.full((2, G), 5.0)).log_prob(torch.full((2, G), 1 / G)).sum()
    torch.testing.assert_close(
        record.kl_global["kl_global"], 240 * torch.tensor(0.01 * G) - log_prior, rtol=1e-4, atol=0
    )
    expected = (nll_n + 0.3 * kl_n - prior - near_prior).mean() + record.kl_global["kl_global"] / 240
    torch.testing.assert_close(record.loss, expected, rtol=1e-4, atol=1e-2)


def test_neighbours_get_no_gradient():
    model = made()
    tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=5, shuffle=False)))
    tensors["x_neighbors"].requires_grad_()
    model.module(tensors)[2].loss.backward()
    assert tensors["x_neighbors"].grad is None


def test_two_hops_are_the_first_of_a_product_of_distances(rng):
    xy, names = rng.uniform(size=(40, 2)), pd.Index(map(str, range(40)))
    index_nm, distance_nm = two_hop_cells(xy, 6, None, names)
    distance_nn = cdist(xy, xy)
    near = np.argsort(distance_nn + 9 * np.eye(40), axis=1)[:, :10]
    kept = np.zeros_like(distance_nn)
    np.put_along_axis(kept, near, np.take_along_axis(distance_nn, near, 1), 1)
    np.testing.assert_allclose(distance_nm, np.take_along_axis(kept @ kept, index_nm, 1))


def test_labels_of_cells_and_of_their_neighbours(model):
    hidden = (model.adata.obs["seen"] == "unknown").to_numpy()
    truth = model.adata.obs["kind"].astype(str).to_numpy()
    assert (model.predict(num_samples=5, seed=0)[hidden] == truth[hidden]).mean() > 0.9
    soft = model.predict(soft=True, num_samples=5, seed=0)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-4)
    around = model.get_neighbor_abundance(n_samples=5, seed=0)
    np.testing.assert_allclose(around, soft.to_numpy()[model.adata.obsm["index_neighbor"]].mean(1), rtol=1e-5)
    found = model.differential_niche_abundance(groupby="kind", group1="a", seed=0)
    assert found.loc["a", "lfc_mean"] > 0 > found.loc["b", "lfc_mean"]
    assert (found["proba_de"] + found["proba_not_de"]).to_numpy() == pytest.approx(1)
    assert list(found["comparison"].unique()) == ["a vs Rest"]
    with pytest.raises(ArgumentError, match="made without labels"):
        made().predict()


def test_differences_are_those_of_the_types(model):
    found = model.differential_expression(groupby="kind", group1="a", group2="b", seed=0)
    up = found["lfc_median"] > 1
    assert set(found.index[up]) >= {f"gene{g}" for g in range(15)}
    assert not set(found.index[up]) & {f"gene{g}" for g in range(15, 50)}


def test_differences_of_a_model_loaded_without_data(model, tmp_path):
    model.save(str(tmp_path / "m"))
    loaded = RESOLVI.load(str(tmp_path / "m"), adata=False)
    wanted = model.differential_expression(groupby="kind", group1="a", seed=0)
    pd.testing.assert_frame_equal(
        loaded.differential_expression(model.adata.copy(), groupby="kind", group1="a", seed=0), wanted, rtol=1e-4
    )


def test_counts_on_disk_give_the_same_priors_and_answers(tmp_path):
    adata, _ = tissue(120)
    adata.write_h5ad(tmp_path / "tissue.h5ad")
    models = [made(adata.copy()), made(open_data(tmp_path / "tissue.h5ad", stream=True))]
    assert isinstance(models[1].adata.X, StoredMatrix)
    priors = [one.compute_dataset_dependent_priors() for one in models]
    x = adata.X.toarray()
    few = np.argsort(x.sum(0))[:1]
    assert priors[0]["background_ratio"] == pytest.approx((x[:, few].mean(1) / x.mean(1)).mean(), rel=1e-5)
    assert priors[0] == pytest.approx(priors[1])
    models[1].train(max_epochs=2, **QUICK)
    wanted = models[1].get_latent_representation()
    np.testing.assert_allclose(models[1].get_latent_representation(adata.copy()), wanted, rtol=1e-4, atol=1e-5)


def test_the_line_of_the_tutorial_of_scvi_tools(model):
    """It hands over a model of Pyro, and says how many minibatches to summarise at once."""
    asked = {"return_sites": ["px_rate"], "num_samples": 3, "summary_fun": {"post_sample_q50": np.median}, "seed": 0}
    drawn = model.sample_posterior(model=model.module.model_corrected, summary_frequency=30, **asked)
    rate_ng = model.sample_posterior(**asked)["post_sample_q50"]["px_rate"]
    np.testing.assert_array_equal(drawn["post_sample_q50"]["px_rate"], rate_ng)
    assert model.module.model_residuals is model.module


def test_sites_of_the_posterior(model):
    found = model.sample_posterior(num_samples=3, indices=[4, 2], seed=0, return_samples=True)
    means = found["post_sample_means"]
    assert means["mixture_proportions"].shape == (2, 3)
    np.testing.assert_allclose(means["per_neighbor_diffusion"].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        means["diffusion_proportion_per_neighbor"].sum((1, 2)), means["diffusion_mixture_proportion"][:, 0], rtol=1e-5
    )
    assert found["posterior_samples"]["mean_poisson"].shape == (3, 2, G)
    np.testing.assert_allclose(means["mean_poisson"], found["posterior_samples"]["mean_poisson"].mean(0), rtol=1e-6)
    drawn = model.sample_posterior(num_samples=200, indices=[4], return_sites=["obs", "mean_poisson"], seed=0)
    spread = drawn["post_sample_stds"]["obs"][0] / np.sqrt(200)
    z = (drawn["post_sample_means"]["obs"] - drawn["post_sample_means"]["mean_poisson"])[0] / np.maximum(spread, 0.01)
    assert np.abs(z).max() < stats.norm.isf(1e-6)
    with pytest.raises(ValueError, match="px_rate"):
        model.sample_posterior(return_sites=["px_rte"])


def test_weighted_expression(model):
    one = model.get_normalized_expression_importance(n_samples=2, indices=[3, 1], gene_list=["gene5"], seed=0)
    assert one.shape == (2, 1)
    assert list(one.index) == list(model.adata.obs_names[[3, 1]])
    draws = model.get_normalized_expression_importance(n_samples=4, return_mean=False, seed=0)
    assert draws.shape == (4, model.adata.n_obs, G)


@pytest.mark.usefixtures("global_rng_untouched")
def test_archives(model, tmp_path):
    found = model.get_mixture_proportions()
    model.save(str(tmp_path / "m"))
    again = RESOLVI.load(str(tmp_path / "m"), tissue()[0], accelerator="cpu")
    np.testing.assert_allclose(again.get_mixture_proportions(), found, rtol=1e-5)
    export_archive(tmp_path / "m", tmp_path / "peer")
    archive = read_scvi_archive(tmp_path / "peer")
    assert archive.attributes["registry_"]["setup_args"]["prepare_data"] is False
    assert {"px_r_mle", "u_prior_means", "resolvae.decoder$$$px_scale_decoder.0.weight"} <= set(
        archive.pyro_params["params"]
    )
    assert not [key for key in archive.state_dict if key.startswith("learned")]
    convert_archive(tmp_path / "peer", tmp_path / "back")
    for folder in ("peer", "back"):
        back = RESOLVI.load(str(tmp_path / folder), model.adata.copy(), accelerator="cpu")
        assert back.module.scvi_tools_figures
        np.testing.assert_allclose(back.get_mixture_proportions(), found, rtol=1e-5)
        for name, value in model.module.learned.named_parameters():
            torch.testing.assert_close(back.module.learned.get_parameter(name), value)
    back.train(max_epochs=1, **QUICK)


def test_draws_are_taken_in_proportion_to_how_well_they_explain_the_counts(model):
    """Latents taken of ten have the mean of ten, weighed, from which that of all is a standard deviation away."""
    four = next(iter(model._make_data_loader(adata=model.adata, batch_size=4, shuffle=False)))
    often = {key: value.repeat(100, *[1] * (value.dim() - 1)) for key, value in four.items()}
    with torch.no_grad(), own_rng(0):
        draws = [weighed_draw(model.module.eval(), often) for _ in range(10)]
        logs = torch.stack([logs.unflatten(0, (100, 4)) for _, logs in draws])
        z = torch.stack([encoded["z"].unflatten(0, (100, 4)) for encoded, _ in draws])
        wanted_nk = torch.einsum("stn,stnk->nk", logs.softmax(0), z) / 100
        taken = [BestOf(model.module, 10).inference(often)["z"].unflatten(0, (100, 4)).mean(0) for _ in range(2)]
    taken_nk, z = torch.stack(taken).mean(0), z.flatten(0, 1)
    assert ((taken_nk - wanted_nk) / z.std(0)).abs().max() < 0.35
    assert ((z.mean(0) - wanted_nk) / z.std(0)).abs().max() > 0.7
    table = model.differential_expression(groupby="kind", group1="a", weights="importance", n_samples=3, seed=0)
    assert table.loc["gene0", "lfc_mean"] > 1


def test_a_query_has_weights_of_its_own_cells(model, tmp_path):
    """What was learnt of all cells stays to the bit; what a cell owns, and a new batch's columns, are new and move."""
    other, own = tissue(120, seed=1)
    other.obs_names = [f"other{i}" for i in range(other.n_obs)]
    other.obs["batch"] = pd.Categorical(["b2"] * other.n_obs)
    query = RESOLVI.load_query_data(other, model)
    query.train(max_epochs=5, **QUICK)
    before, after = model.module.state_dict(), query.module.state_dict()
    assert after["learned.per_neighbor_diffusion_map"].shape == (120, 6)
    assert after["learned.per_neighbor_diffusion_map"].abs().max() > 0
    assert (after["learned.background_concentration"][:2] == before["learned.background_concentration"]).all()
    assert after["learned.background_concentration"].shape == (3, G)
    same = [name for name in before if before[name].shape == after[name].shape]
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert len(same) > 30
    found = query.get_normalized_expression(n_samples=3, return_numpy=True)
    x = other.X.toarray()
    logs = [np.log(values + 1e-4).ravel() for values in (found, x / x.sum(1, keepdims=True), own)]
    assert np.corrcoef(logs[0], logs[2])[0, 1] > np.corrcoef(logs[1], logs[2])[0, 1] + 0.1
    assert (query.predict() == other.obs["kind"]).mean() > 0.9
    query.save(tmp_path / "query")
    again = RESOLVI.load(str(tmp_path / "query"), other, accelerator="cpu")
    np.testing.assert_array_equal(again.predict(soft=True, seed=0), query.predict(soft=True, seed=0))


def test_data_that_cannot_be():
    adata, _ = tissue()
    with pytest.raises(ArgumentError, match=r"No argument of prepare_data_kwargs is called 'n_neighbours'"):
        RESOLVI.setup_anndata(adata, prepare_data_kwargs={"n_neighbours": 5})
    with pytest.raises(ArgumentError, match=r"no coordinates under 'spatial'; there are: 'X_spatial'"):
        RESOLVI.setup_anndata(adata, prepare_data_kwargs={"spatial_rep": "spatial"})
    with pytest.raises(ArgumentError, match="no 'index_neighbor' and no 'distance_neighbor': pass prepare_data=True"):
        RESOLVI.setup_anndata(adata, prepare_data=False)
    adata.obs["slice"] = ["big"] * 235 + ["small"] * 5
    with pytest.raises(ArgumentError, match=r"Too small: 'small' \(5 cells\)"):
        RESOLVI.setup_anndata(adata, prepare_data_kwargs={"slice_key": "slice"})
    RESOLVI.setup_anndata(adata, prepare_data_kwargs={"n_neighbors": 6})
    part = adata[100:].copy()
    with pytest.raises(ArgumentError, match=r"found among other cells|lie elsewhere"):
        RESOLVI.setup_anndata(part, prepare_data=False)
    few = adata[:, :30].copy()
    RESOLVI.setup_anndata(few)
    with pytest.raises(ArgumentError, match=r"one gene in 50, .* these are 30 genes: give background_ratio="):
        RESOLVI(few)
    assert RESOLVI(few, background_ratio=0.1).compute_dataset_dependent_priors(n_small_genes=2)["median_distance"] > 0
    model = made()
    other, _ = tissue(seed=1)
    other.obs_names = [f"other{i}" for i in range(other.n_obs)]
    model.is_trained_ = True
    with pytest.raises(ArgumentError, match=r"not trained on 240 of the cells: 'other0'"):
        model.get_latent_representation(other)


def test_real_sections(shared_dir):
    path = shared_dir / "data" / "spatial_breast_4slices.h5ad"
    if not path.is_file():
        pytest.skip("no spatial_breast_4slices.h5ad in 'shared/data'")
    adata = ad.read_h5ad(path)
    adata = adata[:, np.argsort(-np.asarray(adata.X.sum(0)).ravel())[:200]].copy()
    RESOLVI.setup_anndata(adata, batch_key="slice", prepare_data_kwargs={"spatial_rep": "spatial"})
    model = RESOLVI(adata, n_latent=5)
    model.train(max_epochs=2, **QUICK)
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("case", ["resolvi", "resolvi_labels", "resolvi_poisson"])
def test_answers_are_those_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 12


def test_names_of_cells_without_a_batch_are_their_own(tmp_path):
    """As in scvi-tools' archives; those of celbo 0.2.0 have "cell_" before them, and load, too."""
    adata, _ = tissue(60)
    model = made(adata, {"batch_key": None}, n_hidden=8, n_hidden_encoder=8, n_latent=2)
    field = model.adata_manager.registry["field_registries"]["ind_x"]["state_registry"]
    np.testing.assert_array_equal(field["categorical_mapping"], sorted(adata.obs_names))
    model.train(max_epochs=0, verbose=0)
    before = np.asarray([f"cell_{name}" for name in sorted(adata.obs_names)], dtype=object)
    model.registry_["field_registries"]["ind_x"]["state_registry"]["categorical_mapping"] = before
    model.save(tmp_path / "model")
    plain = adata.copy()
    loaded = RESOLVI.load(tmp_path / "model", plain, accelerator="cpu")
    assert set(plain.obs["_indices"]) == set(before)
    np.testing.assert_allclose(loaded.get_latent_representation(), model.get_latent_representation(), rtol=1e-6)


def test_hidden_layers_of_the_classifier_have_no_batch_normalization():
    options = {"semisupervised": True, "n_labels": 2, "classifier_parameters": {"n_layers": 1}}
    module = RESOLVI._module_cls(6, 5, 3, n_batch=1, n_latent=2, **options)
    weights = {name: tuple(w.shape) for name, w in module.state_dict().items() if ".classifier." in name}
    assert sorted(weights.values()) == [(2,), (2, 128), (128,), (128, 2)]


@pytest.mark.parametrize(("neighbors", "finds"), [("two_hops", True), ("nearest", False)])
def test_scvi_tools_finds_neighbours_that_are_its_own(neighbors, finds, tmp_path):
    """So that data as the user has them load there, too."""
    model = made(tissue(60)[0], {"neighbors": neighbors}, n_hidden=8, n_hidden_encoder=8, n_latent=2)
    model.train(max_epochs=0, verbose=0)
    model.save(tmp_path / "model")
    export_archive(tmp_path / "model", tmp_path / "exported")
    assert read_scvi_archive(tmp_path / "exported").attributes["registry_"]["setup_args"]["prepare_data"] is finds
