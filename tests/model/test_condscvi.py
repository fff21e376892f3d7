"""CondSCVI: types of single cells, what varies within them, and fine labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from celbo.data import simulate_counts, synthetic_iid
from celbo.model import CondSCVI
from celbo.posterior.cell_types import mixtures_of_groups
from celbo.testing import check_model


@pytest.fixture(scope="module")
def cells():
    """Two types, each of two fine types; every fifth cell has no fine label."""
    adata = simulate_counts(400, 60, 4, 1, median_library=300, marker_strength=2.0, seed=2)
    fine = adata.obs["cell_type"].astype(str).to_numpy(dtype=object)
    adata.obs["fine_truth"] = fine.copy()
    adata.obs["type"] = np.where(np.isin(fine, ["type_0", "type_1"]), "A", "B")
    fine[::5] = np.nan
    adata.obs["fine"] = fine
    return adata


@pytest.fixture(scope="module")
def model(cells):
    adata = cells.copy()
    CondSCVI.setup_anndata(adata, labels_key="type", fine_labels_key="fine")
    model = CondSCVI(adata, n_hidden=32)
    model.train(max_epochs=30, lr=5e-3, plan_kwargs={"n_epochs_kl_warmup": 10}, verbose=0, seed=0)
    return model


@pytest.mark.parametrize("prior", ["normal", "mog"])
def test_contract(prior):
    check_model(
        CondSCVI,
        lambda: synthetic_iid(batch_size=20, n_genes=30, seed=0),
        setup={"labels_key": "labels", "batch_key": "batch"},
        init={"n_hidden": 6, "n_latent": 3, "prior": prior},
        train={"train_size": 0.8},
    )


def test_predicts_fine_labels_of_cells_without_one(model):
    soft = model.predict(soft=True)
    assert list(soft.columns) == ["type_0", "type_1", "type_2", "type_3"], "no phantom class"
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    unlabelled = np.arange(model.adata.n_obs) % 5 == 0
    right = model.predict() == model.adata.obs["fine_truth"].to_numpy()
    assert right[unlabelled].mean() > 0.9


def test_vamp_prior_has_the_moments_of_the_posteriors(model):
    prior = model.get_vamp_prior(p=4)
    mean_nk, var_nk = model.get_latent_representation(return_dist=True)
    weight_cp1 = prior["weights_vprior"][..., None]
    np.testing.assert_allclose(prior["weights_vprior"].sum(1), 1, rtol=1e-6)
    mixture_mean_ck = (weight_cp1 * prior["mean_vprior"]).sum(1)
    second_ck = (weight_cp1 * (prior["var_vprior"] + prior["mean_vprior"] ** 2)).sum(1)
    for c, name in enumerate(["A", "B"]):
        members = (model.adata.obs["type"] == name).to_numpy()
        np.testing.assert_allclose(mixture_mean_ck[c], mean_nk[members].mean(0), rtol=1e-4, atol=1e-5)
        second_k = (var_nk[members] + mean_nk[members] ** 2).mean(0)
        np.testing.assert_allclose(second_ck[c], second_k, rtol=1e-4)


def test_clusters_are_found_and_empty_components_have_no_weight():
    centre_nk = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 5, axis=0)
    mean, var, weight = mixtures_of_groups(centre_nk, np.full((15, 2), 0.5), np.zeros(15, dtype=int), 2, 4)
    assert sorted(weight[0].tolist()) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert {tuple(m) for m, w in zip(mean[0], weight[0], strict=True) if w} == {(0, 0), (9, 0), (0, 9)}
    np.testing.assert_array_equal(var[0][weight[0] > 0], np.full((3, 2), 0.5, dtype=np.float32))
    assert weight[1].tolist() == [1, 0, 0, 0], "a group without cells: N(0, I)"
    assert (mean[1] == 0).all()
    with pytest.raises(ValueError, match="p=0"):
        mixtures_of_groups(centre_nk, centre_nk, np.zeros(15, dtype=int), 1, 0)


def test_swapping_types_costs_likelihood(model):
    swaps = model.confusion_coarse_celltypes()
    assert isinstance(swaps, pd.DataFrame)
    assert (np.diag(swaps) == 0).all()
    assert swaps.loc["A", "B"] < -1
    assert swaps.loc["B", "A"] < -1


def test_rare_types_weigh_more(cells):
    adata = cells[:300].copy()
    adata.obs["type"] = np.where(np.arange(300) < 3, "rare", np.where(np.arange(300) < 63, "some", "most"))
    CondSCVI.setup_anndata(adata, labels_key="type")
    weights = CondSCVI(adata, weight_obs=True).module.ct_weight
    torch.testing.assert_close(weights, torch.tensor([1 / 0.79, 1 / 0.05, 1 / 0.20]))


def test_size_factor_takes_the_place_of_the_library(cells):
    adata = cells[:20].copy()
    adata.obs["size"] = np.linspace(1, 2, 20)
    CondSCVI.setup_anndata(adata, labels_key="type", size_factor_key="size")
    model = CondSCVI(adata, n_hidden=8)
    batch = next(iter(model._make_data_loader(adata=adata)))
    _, decoded = model.module.eval()(batch, compute_loss=False)
    torch.testing.assert_close(decoded["px"].mu.sum(-1), batch["size_factor"].squeeze(-1))


def test_without_fine_labels_predicting_says_so(cells):
    adata = cells[:20].copy()
    CondSCVI.setup_anndata(adata, labels_key="type")
    model = CondSCVI(adata, n_hidden=8)
    model.train(max_epochs=1, verbose=0, seed=0)
    with pytest.raises(ValueError, match="fine_labels_key"):
        model.predict()
    with pytest.raises(ValueError, match="normal"):
        CondSCVI(adata, prior="nrmal")


def test_figures_of_scvi_tools():
    """Size factors have no effect, and no label is one to learn, whose term is reported with its weight."""
    rng = torch.Generator().manual_seed(0)
    tensors = {
        "X": torch.poisson(torch.full((6, 5), 3.0), generator=rng),
        "labels": torch.zeros(6, 1, dtype=torch.long),
        "batch": torch.zeros(6, 1, dtype=torch.long),
        "fine_labels": torch.tensor([[0.0], [1], [2], [2], [1], [0]]),
        "size_factor": torch.full((6, 1), 2.0),
    }
    module = CondSCVI._module_cls(5, 1, 1, 3, n_hidden=4, n_latent=2, scvi_tools_figures=True).eval()
    _, decoded, record = module(tensors, loss_kwargs={"classification_ratio": 7.0})
    torch.testing.assert_close(decoded["px"].mean.sum(1), tensors["X"].sum(1))
    logits = module.classify(module.inference(tensors["X"], tensors["labels"])["qz"].loc, tensors["labels"])
    expected = 7 * torch.nn.functional.cross_entropy(logits, tensors["fine_labels"][:, 0].long())
    torch.testing.assert_close(record.classification_loss, expected)
