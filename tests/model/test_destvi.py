"""DestVI: spots of known mixture are taken apart; scvi-tools' faults are not repeated."""

import numpy as np
import pytest
import torch

from celbo.data import simulate_counts, simulate_spots
from celbo.model import CondSCVI, DestVI


@pytest.fixture(scope="module")
def cells():
    adata = simulate_counts(400, 80, 3, 1, median_library=200, marker_strength=2.0, seed=1)
    adata.obs["fine"] = adata.obs["cell_type"].astype(str) + "_fine"
    return adata


@pytest.fixture(scope="module")
def sc_model(cells):
    CondSCVI.setup_anndata(cells, labels_key="cell_type", fine_labels_key="fine")
    model = CondSCVI(cells, n_hidden=32, n_latent=3)  # without prior=, on which scvi-tools' from_rna_model fails
    model.train(max_epochs=20, lr=5e-3, verbose=0, seed=0)
    return model


@pytest.fixture(scope="module")
def spots(cells):
    return simulate_spots(cells, "cell_type", 100, seed=3)


@pytest.fixture(scope="module")
def model(spots, sc_model):
    DestVI.setup_anndata(spots)
    model = DestVI.from_rna_model(spots, sc_model, vamp_prior_p=4)
    model.train(max_epochs=100, lr=1e-2, n_epochs_kl_warmup=20, verbose=0, seed=0)
    return model


def test_proportions_of_simulated_spots(model, spots):
    found, truth = model.get_proportions(), spots.obsm["proportions"]
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert list(found.index) == list(spots.obs_names)
    assert np.corrcoef(found.to_numpy().ravel(), truth[found.columns].to_numpy().ravel())[0, 1] >= 0.9


def test_defaults_find_the_proportions(cells, spots):
    """And a learning rate of the user's own means gradient steps at that rate."""
    adata = cells.copy()
    CondSCVI.setup_anndata(adata, labels_key="cell_type")
    of_cells = CondSCVI(adata, n_hidden=32, n_latent=3)
    of_cells.train(verbose=0, seed=0, accelerator="cpu")
    DestVI.setup_anndata(spots)
    model = DestVI.from_rna_model(spots, of_cells, vamp_prior_p=4)
    model.train(verbose=0, seed=0, accelerator="cpu")
    assert model.recipe_ == of_cells.recipe_ == "short_cycle"
    assert len(of_cells.history["train_loss"]) == 30
    assert len(model.history["train_loss"]) == 240  # of one step each: thirty passes would leave shares unsettled
    found, truth = model.get_proportions(), spots.obsm["proportions"]
    assert np.corrcoef(found.to_numpy().ravel(), truth[found.columns].to_numpy().ravel())[0, 1] >= 0.9
    of_cells.train(max_epochs=1, lr=1e-3, verbose=0, seed=0, accelerator="cpu")
    assert of_cells.recipe_ == "classic"


def test_additional_types_and_parts_of_the_answers(model, sc_model):
    whole = model.get_proportions(keep_additional=True, normalize=False)
    assert list(whole.columns) == ["type_0", "type_1", "type_2", "additional_0"]
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-5)
    some = model.get_proportions(keep_additional=True, indices=[7, 2])
    np.testing.assert_allclose(some, whole.iloc[[7, 2]], rtol=1e-4, atol=1e-6)
    gamma = model.get_gamma(indices=[7, 2])
    np.testing.assert_allclose(gamma["type_1"], model.get_gamma(return_numpy=True)[[7, 2], :, 1], rtol=1e-4, atol=1e-5)
    fine = model.get_fine_celltypes(sc_model, indices=[7, 2])
    assert fine["type_0"].shape == (2, 3)
    np.testing.assert_allclose(fine["type_0"].sum(1), 1, rtol=1e-5)


def test_expression_of_all_types_adds_up_to_the_counts(model, spots):
    np.testing.assert_allclose(model.get_scale_for_ct("type_2").sum(1), 1, rtol=1e-5)
    parts = sum(model.get_expression_for_ct(name).to_numpy() for name in model.cell_type_mapping)
    counts = spots.X.toarray()
    assert (parts <= counts + 1e-3).all()
    share = 1 - model.get_proportions(keep_additional=True)["additional_0"].to_numpy()
    assert np.abs(parts.sum(1) / counts.sum(1) - share).mean() < 0.05
    sparse = model.get_expression_for_ct("type_0", return_sparse_array=True)
    np.testing.assert_array_equal(sparse.toarray(), model.get_expression_for_ct("type_0"))
    with pytest.raises(ValueError, match="type_0"):
        model.get_scale_for_ct("type_O")


def test_elbo_does_not_grow_with_the_number_of_augmentations(model, spots):
    batch = next(iter(model._make_data_loader(adata=spots, batch_size=50)))
    module, kl = model.module, {}
    for n_augmentations in (1, 6):
        module.n_samples_augmentation = n_augmentations
        out = module.train()(batch)[2]
        kl[n_augmentations] = out.kl_local["kl_local"].detach()
        assert out.kl_local["kl_local"].shape == (50,)
        assert out.n_obs_minibatch == 50
    module.n_samples_augmentation = 2
    module.eval()
    assert kl[6].sum() < 1.5 * kl[1].sum()


@pytest.mark.parametrize("amortization", ["none", "latent", "proportion", "both"])
def test_amortizations(spots, sc_model, amortization):
    options = {"prior_mode": "normal", "amortization": amortization, "n_states_per_label": 1}
    model = DestVI.from_rna_model(spots, sc_model, vamp_prior_p=2, **options)
    model.train(max_epochs=1, verbose=0, seed=0)
    whole = model.get_gamma(return_numpy=True), model.get_proportions()
    assert whole[0].shape == (100, 3, 3)
    np.testing.assert_allclose(
        model.get_gamma(return_numpy=True, indices=[5, 1]), whole[0][[5, 1]], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(model.get_proportions(indices=[5, 1]), whole[1].iloc[[5, 1]], rtol=1e-4)


def test_several_states_need_a_network(spots, sc_model):
    with pytest.raises(ValueError, match="prior_mode='normal'"):
        DestVI.from_rna_model(spots, sc_model, amortization="none")


def test_validation_with_augmentation_and_latents_without_extra_types(cells, sc_model):
    spots = simulate_spots(cells, "cell_type", 30, seed=4)
    spots.obs["slide"] = np.where(np.arange(30) < 15, "a", "b")
    DestVI.setup_anndata(spots, batch_key="slide")
    model = DestVI.from_rna_model(spots, sc_model, vamp_prior_p=2, add_celltypes=0, n_latent_amortization=2)
    assert model.module.n_batch == 2, "the setup of the spots is kept"
    model.train(max_epochs=1, train_size=0.8, verbose=0, seed=0)
    assert np.isfinite(model.history["elbo_validation"].to_numpy()).all()
    whole = model.get_latent_representation()
    assert whole.shape == (30, 2)
    np.testing.assert_allclose(model.get_latent_representation(indices=[4, 1], batch_size=1), whole[[4, 1]], atol=1e-5)


def test_genes_are_matched_by_name(cells, sc_model, model):
    shuffled = simulate_spots(cells[:, ::-1].copy(), "cell_type", 10, seed=5)
    DestVI.setup_anndata(shuffled)
    other = DestVI.from_rna_model(shuffled, sc_model, vamp_prior_p=2)
    torch.testing.assert_close(other.module.px_decoder.weight.flip(0), sc_model.module.px_decoder.weight)
    shuffled.var_names = [f"x{i}" for i in range(80)]
    DestVI.setup_anndata(shuffled)
    with pytest.raises(ValueError, match="lacks 80"):
        DestVI.from_rna_model(shuffled, sc_model)


def test_saves_and_loads(model, spots, tmp_path):
    model.save(str(tmp_path / "model"))
    loaded = DestVI.load(str(tmp_path / "model"), spots, accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_proportions(), model.get_proportions())
    torch.testing.assert_close(loaded.module.mean_vprior, model.module.mean_vprior)


def test_latents_need_to_be_asked_for(model):
    with pytest.raises(ValueError, match="n_latent_amortization"):
        model.get_latent_representation()


@pytest.mark.parametrize("n_layers", [1, 3])
def test_states_are_read_off_two_layers_whatever_the_reference_has(cells, spots, n_layers):
    CondSCVI.setup_anndata(cells, labels_key="cell_type")
    reference = CondSCVI(cells, n_layers=n_layers, n_hidden=8)
    reference.train(max_epochs=0, verbose=0)
    DestVI.setup_anndata(spots)
    model = DestVI.from_rna_model(spots, reference)
    depths = [len(encoder[0].fc_layers) for encoder in (model.module.gamma_encoder, model.module.V_encoder)]
    assert depths == [2, n_layers]
