"""SCVIVA: niches against loops, the loss by its formula, predictions above the type's mean, differences, archives."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import Dirichlet, Normal, Poisson, kl_divergence

from celbo.core import ArgumentError
from celbo.external import SCVIVA
from celbo.external.scviva import NicheLossOutput, nicheVAE
from celbo.external.scviva.differential_expression import DifferentialExpressionResults
from celbo.model.base import convert_archive, export_archive
from celbo.ops.random import own_rng, private_rng

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
G = 24


def tissue(n: int = 300, seed: int = 0) -> ad.AnnData:
    """Two halves; type a is in both, with its own state in each; b lies left, c right. Genes 12 to 15 leak from b."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(size=(n, 2))
    left = xy[:, 0] < 0.5
    kind = np.where(rng.uniform(size=n) < 0.4, "a", np.where(left, "b", "c"))
    mean = np.ones((n, G))
    for i, name in enumerate("abc"):
        mean[kind == name, 4 * i : 4 * i + 4] = 12
    mean[(kind == "a") & left, 16:20] = 8
    mean[kind == "b", 12:16] = 12
    mean[(kind == "a") & left, 12:16] = 5
    adata = ad.AnnData(rng.poisson(mean).astype(np.float32))
    adata.var_names = [f"gene{g}" for g in range(G)]
    adata.obs["cell_type"], adata.obs["slice"] = pd.Categorical(kind), pd.Categorical(["s1"] * n)
    adata.obs["batch"] = pd.Categorical(rng.choice(["b0", "b1"], n))
    adata.obsm["spatial"] = xy
    adata.obsm["X_scVI"] = np.log1p(adata.X)[:, ::6].astype(np.float32)
    return adata


def made(adata=None, setup=None, **init):
    adata = tissue() if adata is None else adata
    SCVIVA.preprocessing_anndata(adata, k_nn=8)
    SCVIVA.setup_anndata(adata, **({"batch_key": "batch"} | (setup or {})))
    return SCVIVA(adata, **({"n_hidden": 24, "n_latent": 4} | init))


@pytest.fixture(scope="module")
def model():
    model = made()
    model.train(max_epochs=60, **QUICK)
    return model


def test_preprocessing_names_types_in_the_order_of_cells():
    adata = tissue()
    before = set(adata.obs)
    SCVIVA.preprocessing_anndata(adata, k_nn=8, sample_key="slice")
    shares = adata.obsm["niche_composition"]
    assert list(shares.columns) == list(pd.unique(adata.obs["cell_type"]))
    np.testing.assert_allclose(shares.sum(1), 1)
    row, kinds = adata.obsm["niche_indexes"][5], adata.obs["cell_type"].to_numpy()
    for column, name in enumerate(shares.columns):
        mine = row[kinds[row] == name]
        assert shares.iloc[5, column] == len(mine) / 8
        expected = adata.obsm["X_scVI"][mine].mean(0) if len(mine) else 0
        np.testing.assert_allclose(adata.obsm["niche_activation"][5, column], expected, rtol=1e-6)
    assert set(adata.obs) == before
    state = adata.obsm["niche_activation"]
    SCVIVA.preprocessing_anndata(adata, k_nn=8, log1p=True)
    assert (adata.obsm["niche_activation"] != state).any()


@pytest.mark.parametrize("options", [{}, {"prior_mixture": True}, {"semisupervised": False, "spatial_weight": 2.5}])
def test_the_loss_is_its_formula(options):
    with private_rng(0):
        module = nicheVAE(5, 2, n_batch=2, n_labels=3, n_hidden=8, n_latent=3, **options).eval()
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    tensors = {
        "X": torch.poisson(torch.full((3, 5), 4.0), generator=generator),
        "batch": torch.tensor([[0], [1], [1]]),
        "labels": torch.tensor([[2], [0], [1]]),
        "niche_composition": shares,
        "latent_mean_ct_key": torch.randn(3, 6, generator=generator),
    }
    with own_rng(0):
        encoded, decoded, record = module(tensors, loss_kwargs={"kl_weight": 0.25, "n_samples_mixture": 4000})
    x, z, qz = tensors["X"], encoded["z"], encoded["qz"]
    rho = decoded["px"].rate / x.sum(1, keepdim=True)
    torch.testing.assert_close(rho.sum(1), torch.ones(3))
    nll_n = -Poisson(decoded["px"].rate).log_prob(x).sum(1)
    if module.semisupervised:
        log_p = torch.log_softmax(module.classifier(qz.loc), 1)
        nll_n = nll_n - 50 * log_p[torch.arange(3), tensors["labels"][:, 0]]
    near = (shares + 1e-6) / (1 + 3e-6)
    composition_n = -Dirichlet(module.composition_decoder(z).concentration).log_prob(near)
    states = module.niche_decoder(z, tensors["batch"])
    logs = Normal(states.loc, states.scale).log_prob(tensors["latent_mean_ct_key"].reshape(3, 3, 2)).sum(-1)
    niche_n = -torch.where(shares > 0, logs, 0.0).sum(1)
    torch.testing.assert_close(record.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(record.composition_loss["composition_loss"], composition_n)
    torch.testing.assert_close(record.niche_loss["niche_loss"], niche_n)
    kl_n = record.kl_local["kl_divergence_z"]
    if module.prior_mixture:  # by its label each cell has next to one component
        mean, scale = module.prior_means[tensors["labels"][:, 0]], 1 + 1e-4
        torch.testing.assert_close(kl_n, kl_divergence(qz, Normal(mean, scale)).sum(1), rtol=0.1, atol=0.1)
    else:
        torch.testing.assert_close(kl_n, kl_divergence(qz, Normal(0.0, 1.0)).sum(1))
    expected = (nll_n + 0.25 * kl_n + module.spatial_weight * (composition_n + niche_n)).mean()
    torch.testing.assert_close(record.loss, expected)
    assert isinstance(record, NicheLossOutput)


def test_a_poisson_niche_takes_counts():
    module = nicheVAE(5, 2, n_batch=1, n_labels=2, n_hidden=8, n_latent=3, niche_likelihood="poisson").eval()
    decoded = module.generative(torch.randn(4, 3), torch.zeros(4, 1), torch.zeros(4, 1, dtype=torch.long))
    assert isinstance(decoded["niche_expression"], Poisson)
    assert decoded["niche_expression"].rate.shape == (4, 2, 2)


@pytest.mark.usefixtures("global_rng_untouched")
def test_niches_are_predicted_better_than_by_the_type(model):
    truth = model.adata.obsm["niche_composition"].to_numpy()
    found = model.predict_neighborhood()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    kinds = model.adata.obs["cell_type"].to_numpy()
    null = np.stack([truth[kinds == kind].mean(0) for kind in kinds])
    correlation = [np.corrcoef(one.ravel(), truth.ravel())[0, 1] for one in (found, null)]
    assert correlation[0] > correlation[1] + 0.05
    states = model.predict_niche_activation(indices=[7, 3])
    assert states.shape == (2, 3, 4)
    assert model.get_composition_error(return_mean=False).shape == (300,)
    assert model.get_niche_error(indices=np.arange(9), return_mean=False).shape == (9,)
    assert float(model.get_niche_error(seed=0)) == pytest.approx(
        float(model.get_niche_error(return_mean=False, seed=0).mean()), rel=0.02
    )


def test_genes_that_leak_from_neighbours_are_told(model):
    pytest.importorskip("sklearn")
    left = np.flatnonzero((model.adata.obs["cell_type"] == "a") & (model.adata.obsm["spatial"][:, 0] < 0.5))
    right = np.flatnonzero((model.adata.obs["cell_type"] == "a") & (model.adata.obsm["spatial"][:, 0] >= 0.5))
    found = model.differential_expression(idx1=left, idx2=right, seed=0, n_restarts_optimizer_gpc=0)
    assert isinstance(found, DifferentialExpressionResults)
    probability = found.g1_g2["proba_de_g1_n1"]
    own, leaked = probability[[f"gene{g}" for g in range(16, 20)]], probability[[f"gene{g}" for g in range(12, 16)]]
    assert own.min() > leaked.max()
    kinds = model.adata.obs["cell_type"].to_numpy()
    assert set(kinds[found.n1_index]) <= {"b", "c"}
    assert not set(found.n1_index) & set(left)
    assert found.n1_n2 is not None
    assert list(found.g1_n1["comparison"].unique()) == ["group1 vs group1_neighbors"]
    assert "kernel" in found.gpc_info()


def test_one_table_without_niches_and_three_without_a_second_group(model):
    table = model.differential_expression(groupby="cell_type", group1="b", niche_mode=False, seed=0)
    assert set(table.index) == set(model.adata.var_names)
    found = model.differential_expression(groupby="cell_type", group1="b", seed=0, k_nn=4, radius=0.2)
    assert found.n1_n2 is None
    assert found.g1_g2["comparison"].iloc[0] == "b vs Rest"
    with pytest.raises(ArgumentError, match="one group at a time, and group1 names 3"):
        model.differential_expression(groupby="cell_type")
    with pytest.raises(ArgumentError, match="No cell of another type is near"):
        model.differential_expression(groupby="cell_type", group1="b", radius=1e-9)


def test_genes_are_drawn(model, tmp_path):
    pytest.importorskip("sklearn")
    model.differential_expression(
        groupby="cell_type", group1="a", group2="c", seed=0, path_to_save=str(tmp_path / "genes.png")
    )
    assert (tmp_path / "genes.png").stat().st_size > 1000
    found = model.differential_expression(groupby="cell_type", group1="b", group2="c", seed=0, niche_mode=True)
    up = found.g1_g2.index[found.g1_g2["proba_de_g1_n1"].notna()]
    axes = found.plot(
        filter=up[:2], background_filter=up[2:3], manual_limits=(0, 4, -1, 1), show_plot=False, legend_loc="lower left"
    )
    assert [text.get_text() for text in axes.texts] == list(up[:2])
    assert axes.get_xlim() == (0, 4)
    np.testing.assert_allclose(axes.collections[1].get_offsets()[0, 0], found.g1_g2.loc[up[2], "lfc_median"])


@pytest.mark.usefixtures("global_rng_untouched")
def test_archives(model, tmp_path):
    found = model.predict_neighborhood(seed=3)
    model.save(str(tmp_path / "m"))
    again = SCVIVA.load(str(tmp_path / "m"), model.adata.copy(), accelerator="cpu")
    np.testing.assert_allclose(again.predict_neighborhood(seed=3), found, rtol=1e-5)
    export_archive(tmp_path / "m", tmp_path / "peer")
    convert_archive(tmp_path / "peer", tmp_path / "back")
    back = SCVIVA.load(str(tmp_path / "back"), model.adata.copy(), accelerator="cpu")
    np.testing.assert_allclose(back.predict_neighborhood(seed=3), found, rtol=1e-5)
    back.train(max_epochs=1, **QUICK)


def test_a_query_is_described_by_the_types_of_its_reference(model):
    query = tissue(seed=1)
    query = query[query.obs["cell_type"] != "c"].copy()
    query.obs["cell_type"] = query.obs["cell_type"].cat.remove_unused_categories()
    query.obs["batch"] = "b2"
    SCVIVA.preprocessing_query_anndata(query, model, k_nn=8)
    shares = query.obsm["niche_composition"]
    assert list(shares.columns) == list(model.adata.obsm["niche_composition"].columns)
    np.testing.assert_array_equal(shares["c"], 0)
    mapped = SCVIVA.load_query_data(query, model)
    mapped.train(max_epochs=1, **QUICK)
    assert mapped.predict_neighborhood().shape == (query.n_obs, 3)
    query.obs["cell_type"] = "d"
    with pytest.raises(ArgumentError, match=r"types that the reference does not know: 'd'\. Its types are"):
        SCVIVA.preprocessing_query_anndata(query, model, k_nn=8)


def test_data_that_cannot_be():
    adata = tissue()
    with pytest.raises(ArgumentError, match=r"no 'niche_composition', .*SCVIVA\.preprocessing_anndata"):
        SCVIVA.setup_anndata(adata)
    with pytest.raises(KeyError, match="cell_typ"):
        SCVIVA.preprocessing_anndata(adata, labels_key="cell_typ")
    with pytest.raises(ArgumentError, match=r"at least 301 cells\. Too small: 'all cells' \(300 cells\)"):
        SCVIVA.preprocessing_anndata(adata, k_nn=300)
    del adata.obsm["X_scVI"]
    with pytest.raises(ArgumentError, match=r"no embedding 'X_scVI' .*there are: 'spatial'"):
        SCVIVA.preprocessing_anndata(adata, k_nn=8)
    del adata.obsm["spatial"]
    with pytest.raises(ArgumentError, match="no coordinates under 'spatial'"):
        SCVIVA.preprocessing_anndata(adata, k_nn=8)


@pytest.mark.parametrize("case", ["scviva", "scviva_mixture_nb"])
def test_answers_are_those_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 15


@pytest.mark.filterwarnings("ignore:.*cells share their place", "ignore:.*fewer than 3 cells")
def test_latents_follow_the_depth_of_real_layers(shared_dir):
    """The best of ten principal components of log counts has a rank correlation with depth of 0.52 over all cells."""
    path = shared_dir / "data" / "spatial_cortex_osmfish.h5ad"
    if not path.exists():
        pytest.skip("no spatial_cortex_osmfish.h5ad in 'shared/data'")
    adata = ad.read_h5ad(path)
    names = ["Layer 2-3", "Layer 4", "Layer 5", "Layer 6"]
    depth = (
        adata.obs["region"].astype(str).replace(r" (medial|lateral)", "", regex=True).map(dict(zip(names, range(4))))
    )
    adata = adata[depth.notna()].copy()
    x = np.log1p(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    adata.obsm["X_scVI"] = (u * s)[:, :10].astype(np.float32)
    SCVIVA.preprocessing_anndata(adata, k_nn=10, labels_key="cell_type")
    SCVIVA.setup_anndata(adata, labels_key="cell_type")
    model = SCVIVA(adata)
    model.train(max_epochs=4, **QUICK)

    def best(z_nk):
        return np.abs([spearmanr(z, depth.dropna())[0] for z in z_nk.T]).max()

    assert best(model.get_latent_representation()) > best((u * s)[:, :10])


def test_covariates_enter_the_networks():
    """Those of the setup, into the first layer of each, and into others where they are injected deeply."""
    adata = tissue(60)
    adata.obs["donor"], adata.obs["depth"] = pd.Categorical(["a", "b", "c"] * 20), np.linspace(-1, 1, 60)
    setup = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["depth"]}
    options = {"n_hidden": 8, "n_latent": 3, "n_layers_niche": 2, "n_hidden_niche": 8}
    model = made(adata, setup, deeply_inject_covariates=False, **options)
    n_cats = model.summary_stats["n_batch"] + 3
    weights = model.module.state_dict()
    first, second = (f"niche_decoder.decoder.fc_layers.Layer {i}.0.weight" for i in range(2))
    assert weights["decoder.px_decoder.fc_layers.Layer 0.0.weight"].shape == (8, 3 + 1 + n_cats)
    assert (weights[first].shape[1], weights[second].shape[1]) == (3 + 1 + n_cats, 8)
